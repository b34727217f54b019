//! `GET /threads`: what the server's own threads do at this moment, as an event stream.
//!
//! There is no thread for it. Each viewer's own thread takes a sample and sends what has changed, four times
//! a second; viewers that ask at the same time share one, and the others wait for its lock. While nobody looks,
//! nothing is read, and nothing is kept.
//!
//! A sleeping thread costs one small read: where its times are those of the last sample it has not run, and
//! all else is as it was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::App;
use crate::auth::error::AuthError;
use crate::client::registry::{Client, Transport};
use crate::listener::connection::Connection;
use crate::os::clock::wall_clock;
use crate::os::task::{self, Times, Wait};
use crate::session::error::HandlerResult;
use crate::session::event_stream::{EventStream, StreamHandler};

/// How often a viewer gets an event, and how old the sample in it may be.
const INTERVAL: Duration = Duration::from_millis(250);

/// The most threads in a sample.
const MAX_THREADS: usize = 600;

/// The beginnings of the names of threads that sleep until another thread hands them something. (In their
/// sleep, the kernel cannot tell a channel from a lock.)
const RECEIVERS: [&str; 6] = ["sse ", "ws ", "wsw ", "broadcaster", "listener", "idle"];

/// The threads of a server, for those who watch them.
pub struct Threads {
    app: Arc<App>,
    /// Kept by the viewers that have sent it.
    latest: Mutex<Weak<Sample>>,
}

/// What all threads did at one moment.
struct Sample {
    taken: Instant,
    /// Milliseconds since 1970.
    at: u64,
    /// By their numbers.
    threads: Vec<Thread>,
    omitted: usize,
}

#[derive(Clone, PartialEq)]
struct Thread {
    number: u32,
    name: String,
    role: &'static str,
    client: Option<u64>,
    /// When its client came; else when it was started.
    since: Instant,
    state: char,
    waits: &'static str,
    call: Option<&'static str>,
    /// Whether the kernel tells what it waits for.
    tells_call: bool,
    times: Option<Times>,
    voluntary: Option<u64>,
    involuntary: Option<u64>,
    /// Messages and bytes that wait for its client.
    queued: (usize, usize),
}

impl Threads {
    /// Those of the server whose handlers share this `app`.
    pub fn new(app: &Arc<App>) -> Threads {
        Threads { app: Arc::clone(app), latest: Mutex::default() }
    }

    /// What serves a viewer.
    pub fn handler(self) -> Box<StreamHandler> {
        Box::new(move |stream| self.serve(stream))
    }

    /// Shows the threads until the viewer is gone: all at first, then what changes.
    fn serve(&self, stream: &mut EventStream) -> HandlerResult {
        let mut last: Option<Arc<Sample>> = None;
        loop {
            let sample = self.sample();
            stream.send("threads", sample.message(last.as_deref()).to_string())?;
            last = Some(sample);
            stream.wait(INTERVAL)?;
        }
    }

    fn sample(&self) -> Arc<Sample> {
        // Held while the sample is taken: who comes meanwhile gets the same.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let last = latest.upgrade();
        if let Some(sample) = last.as_ref().filter(|last| last.taken.elapsed() < INTERVAL) {
            return Arc::clone(sample);
        }
        let sample = Arc::new(Sample::take(&self.app.clients.list(), last.as_deref()));
        *latest = Arc::downgrade(&sample);
        sample
    }
}

/// Checks that a client may see the threads, whose names hold clients' addresses. Where there is a subscribe
/// token, whoever has it may, and the router has asked for it. Else it must be a program on this machine, or
/// the server's own page in a browser on this machine.
///
/// # Errors
/// [`AuthError::ForbiddenOrigin`], [`AuthError::OnlyThisMachine`].
pub fn check(app: &App, connection: &Connection) -> Result<(), AuthError> {
    if !app.access.is_public() {
        return Ok(());
    }
    app.origins.check(connection)?;
    let (socket, client) = (connection.socket_peer(), connection.peer());
    let is_loopback =
        socket.ip().to_canonical().is_loopback() && client.ip.to_canonical().is_loopback();
    // A proxy on this machine that is not trusted: nobody knows who stands behind it.
    let is_hidden = client == socket.into()
        && ["Forwarded", "X-Forwarded-For"].iter().any(|name| connection.header(name).is_some());
    // Another site's page has no foreign origin where that site's name leads to this machine.
    let is_own_name = connection.header("Host").is_none_or(names_this_machine);
    match is_loopback && !is_hidden && is_own_name {
        true => Ok(()),
        false => Err(AuthError::OnlyThisMachine),
    }
}

/// Whether the host of a URL is an address, or `localhost`.
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<std::net::IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

impl Sample {
    fn take(clients: &[Arc<Client>], last: Option<&Sample>) -> Sample {
        let clients = clients.iter().filter_map(|client| Some((client.thread()?, &**client)));
        let clients: HashMap<u32, &Client> = clients.collect();
        let mut numbers = task::list();
        let total = numbers.len();
        // The server's own threads first, then the youngest clients: where there are too many, only these
        // are asked about.
        let age = |number: &u32| clients.get(number).map(|client| u64::MAX - client.number);
        if total > MAX_THREADS {
            numbers.sort_by_cached_key(age);
            numbers.truncate(MAX_THREADS);
        }
        numbers.sort_unstable();
        let omitted = total - numbers.len();
        let threads = numbers.into_iter().filter_map(|number| {
            let before = last.and_then(|last| last.thread(number));
            Thread::read(number, clients.get(&number).copied(), before)
        });
        let threads = threads.collect();
        Sample { taken: Instant::now(), at: wall_clock(), threads, omitted }
    }

    fn thread(&self, number: u32) -> Option<&Thread> {
        let found = self.threads.binary_search_by_key(&number, |thread| thread.number);
        found.ok().map(|index| &self.threads[index])
    }

    /// The event: what is not as it was in `last`, or all.
    fn message(&self, last: Option<&Sample>) -> Value {
        let is_new =
            |thread: &&Thread| last.and_then(|last| last.thread(thread.number)) != Some(*thread);
        let before = last.map_or(&[][..], |last| &last.threads);
        let gone = before.iter().map(|thread| thread.number);
        let gone: Vec<u32> = gone.filter(|number| self.thread(*number).is_none()).collect();
        let changed = self.threads.iter().filter(is_new).map(|thread| thread.json(self.taken));
        json!({
            "at": self.at,
            "full": last.is_none(),
            "omitted": self.omitted,
            "tells": {
                "syscall": self.threads.iter().any(|thread| thread.tells_call),
                "schedstat": self.threads.iter().any(|thread| thread.times.is_some()),
                "switches": self.threads.iter().any(|thread| thread.voluntary.is_some()),
            },
            "threads": changed.collect::<Vec<_>>(),
            "gone": gone,
        })
    }
}

impl Thread {
    /// `None` where it has ended.
    fn read(number: u32, client: Option<&Client>, before: Option<&Thread>) -> Option<Thread> {
        // First: if it runs after this, the next sample finds other times.
        let times = task::times(number);
        let outbox = client.and_then(|client| client.outbox());
        let queued = outbox.map_or((0, 0), |outbox| outbox.queued());
        let client_number = client.map(|client| client.number);
        let is_asleep = |thread: &&Thread| {
            times.is_some()
                && thread.times == times
                && thread.state != 'R'
                && thread.client == client_number
        };
        if let Some(same) = before.filter(is_asleep) {
            return Some(Thread { queued, ..same.clone() });
        }
        let status = task::status(number)?;
        let call = task::call(number);
        let role = match client.map(|client| client.transport) {
            Some(Transport::Sse) => "sse",
            Some(Transport::WebSocket) => "ws",
            None if status.name.starts_with("wsw ") => "ws",
            None if status.name.starts_with("http ") || status.name == "kept" => "http",
            None => "server",
        };
        // Between the two questions it may have woken up.
        let state = match call {
            Some((Wait::Running, _)) => 'R',
            _ => status.state,
        };
        let waits = match call.map_or(Wait::Other, |(wait, _)| wait) {
            _ if state == 'R' => running(times, before.and_then(|before| before.times)),
            Wait::Read => "read",
            Wait::Write => "write",
            Wait::Futex if RECEIVERS.iter().any(|name| status.name.starts_with(name)) => "channel",
            Wait::Futex => "lock",
            Wait::Poll => "poll",
            Wait::Accept => "accept",
            Wait::Sleep => "sleep",
            Wait::Running | Wait::Other => "other",
        };
        let started = || match before.filter(|before| before.client.is_none()) {
            Some(before) => before.since,
            None => {
                let now = Instant::now();
                task::age(number).and_then(|age| now.checked_sub(age)).unwrap_or(now)
            }
        };
        Some(Thread {
            number,
            // The kernel's name is cut off.
            name: client.map_or(status.name, |client| format!("{role} {}", client.peer)),
            role,
            client: client_number,
            since: client.map_or_else(started, |client| client.since),
            state,
            waits,
            call: call.and_then(|(_, name)| name).filter(|_| state != 'R'),
            tells_call: call.is_some(),
            times,
            voluntary: status.voluntary,
            involuntary: status.involuntary,
            queued,
        })
    }

    fn json(&self, now: Instant) -> Value {
        let seconds = now.saturating_duration_since(self.since).as_millis() as f64 / 1_000.0;
        json!({
            "tid": self.number,
            "name": self.name,
            "role": self.role,
            "client": self.client,
            "state": self.state,
            "waits": self.waits,
            "call": self.call,
            "cpuMs": self.times.map(|times| milliseconds(times.cpu)),
            "queuedMs": self.times.map(|times| milliseconds(times.queued)),
            "voluntary": self.voluntary,
            "involuntary": self.involuntary,
            "queue": self.queued.0,
            "queueBytes": self.queued.1,
            "seconds": seconds,
        })
    }
}

/// What a thread in state R does: since the last sample it has been on a processor for longer than it has waited
/// for one, or not. The kernel does not tell which of the two it does at this moment.
fn running(times: Option<Times>, before: Option<Times>) -> &'static str {
    let Some(Times { cpu, queued, .. }) = times else { return "running" };
    let (cpu_before, queued_before) =
        before.map_or((Duration::ZERO, Duration::ZERO), |before| (before.cpu, before.queued));
    match queued.saturating_sub(queued_before) > cpu.saturating_sub(cpu_before) {
        true => "cpu",
        false => "running",
    }
}

/// With three decimals.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass() {
        for host in
            ["localhost", "LOCALHOST:3000", "127.0.0.1:80", "[::1]:3000", "[::1]", "192.0.2.1"]
        {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    #[test]
    fn who_waits_for_longer_than_it_runs_waits_for_a_processor() {
        let times = |cpu, queued| {
            let (cpu, queued) = (Duration::from_millis(cpu), Duration::from_millis(queued));
            Some(Times { cpu, queued, turns: 1 })
        };
        assert_eq!(running(times(105, 1_001), times(100, 1_000)), "running");
        assert_eq!(running(times(101, 1_005), times(100, 1_000)), "cpu");
        assert_eq!(running(None, None), "running");
    }
}
