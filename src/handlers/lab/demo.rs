//! Demo clients: event streams of this server to itself, over loopback, for experiments.
//!
//! They are clients as others are, with a thread each in the server. Their own side has none: between bursts
//! nothing but heartbeats comes, which their sockets hold, and after a burst the thread that has published it
//! reads one client after the other. It waits in `read` for a client that has not got everything; a
//! timeout ends that, and the end of the stream, when the server lets the client go or shuts down.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::app::App;
use crate::os::sys::{Usage, usage_of_others};

/// The fan-outs, by their names and in the order of their hubs.
pub(super) const FANOUTS: [&str; 2] = ["direct", "handoff"];

/// The end of each event's data in a burst, and nowhere else in a stream: so an event is counted by one byte.
const MARK: u8 = b'!';

/// The longest that a client's response may be until it is subscribed: its head and two events.
const MAX_BEGINNING: usize = 4096;

/// The demo clients of a server.
pub(super) struct DemoClients {
    address: SocketAddr,
    /// What a client sends, by its fan-out.
    requests: [String; 2],
    /// Locked for the length of a command.
    clients: Mutex<[Vec<TcpStream>; 2]>,
    visitors: AtomicUsize,
}

/// What a burst has taken, from the first event until all clients had the last one.
pub(super) struct Burst {
    /// How many events came to clients.
    pub deliveries: u64,
    pub time: Duration,
    /// That of the whole process, but for the thread that publishes and reads.
    pub usage: Usage,
}

/// Somebody for whom there may be demo clients.
pub(super) struct Visit<'a>(&'a DemoClients);

impl DemoClients {
    /// Those of a server that has `prefix` in front of its paths. None yet.
    pub fn new(app: &App, prefix: &str) -> DemoClients {
        let address = app.address;
        let token = app.config.subscribe_token.as_ref();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        // HTTP/1.0: no chunks, whose lengths would have to be skipped.
        let requests = FANOUTS.map(|fanout| {
            format!(
                "GET {prefix}/lab/stream?fanout={fanout} HTTP/1.0\r\nHost: {address}\r\n{token}\r\n"
            )
        });
        let (clients, visitors) = (Mutex::default(), AtomicUsize::new(0));
        DemoClients { address, requests, clients, visitors }
    }

    fn clients(&self) -> MutexGuard<'_, [Vec<TcpStream>; 2]> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a visitor.
    pub fn visit(&self) -> Visit<'_> {
        self.visitors.fetch_add(1, Ordering::SeqCst);
        Visit(self)
    }

    /// Opens and closes clients until there are so many of each fan-out.
    ///
    /// # Errors
    /// Where the server does not let one in, or not until `deadline`.
    pub fn set(&self, wanted: [u64; 2], deadline: Instant) -> Result<(), String> {
        let mut all = self.clients();
        for (fanout, wanted) in wanted.into_iter().enumerate() {
            let clients = &mut all[fanout];
            clients.retain_mut(is_open);
            clients.truncate(wanted as usize);
            while clients.len() < wanted as usize {
                let client = self.open(fanout, deadline).map_err(|error| {
                    format!("demo client {} ({}): {error}", clients.len() + 1, FANOUTS[fanout])
                })?;
                clients.push(client);
            }
        }
        Ok(())
    }

    /// A client that is subscribed.
    fn open(&self, fanout: usize, deadline: Instant) -> io::Result<TcpStream> {
        let mut client = TcpStream::connect_timeout(&self.address, left(deadline)?)?;
        client.set_write_timeout(Some(left(deadline)?))?;
        client.write_all(self.requests[fanout].as_bytes())?;
        let mut beginning = Vec::new();
        // The second event is the greeting, which comes when the client is subscribed.
        while beginning.windows(2).filter(|pair| pair == b"\n\n").count() < 2 {
            client.set_read_timeout(Some(left(deadline)?))?;
            let mut bytes = [0; 512];
            let read = client.read(&mut bytes)?;
            beginning.extend_from_slice(&bytes[..read]);
            if read == 0 || beginning.len() > MAX_BEGINNING {
                let text = String::from_utf8_lossy(&beginning);
                let status = text.lines().next().unwrap_or("nothing");
                return Err(io::Error::other(format!("the server answered {status:?}")));
            }
        }
        Ok(client)
    }

    /// Publishes `events` events of `bytes` bytes each, and waits until the clients of this fan-out have them
    /// all, up to `deadline`.
    ///
    /// # Errors
    /// Those of `publish`; and where others' commands take until `deadline`.
    pub fn burst(
        &self,
        fanout: usize,
        events: u64,
        bytes: usize,
        deadline: Instant,
        publish: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Burst, String> {
        let mut all = self.clients();
        if left(deadline).is_err() {
            return Err("others' experiments take too long; try again".to_owned());
        }
        let clients = &mut all[fanout];
        let mut data = "x".repeat(bytes - 1);
        data.push(char::from(MARK));
        let (start, before) = (Instant::now(), usage_of_others());
        for _ in 0..events {
            publish(&data)?;
        }
        let mut deliveries = 0;
        // Who has not got everything is closed: what comes for it later would count in the next burst.
        clients.retain_mut(|client| {
            let counted = count(client, events, deadline);
            deliveries += counted;
            counted == events
        });
        let usage = usage_of_others() - before;
        Ok(Burst { deliveries, time: start.elapsed(), usage })
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let DemoClients { visitors, .. } = self.0;
        // The lock first: whoever comes meanwhile opens its clients afterwards.
        let mut clients = self.0.clients();
        if visitors.fetch_sub(1, Ordering::SeqCst) == 1 {
            *clients = Default::default();
        }
    }
}

/// Whether a client has not been let go. What has come for it is read.
fn is_open(client: &mut TcpStream) -> bool {
    let is_open = client.set_nonblocking(true).is_ok()
        && loop {
            match client.read(&mut [0; 512]) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
    is_open && client.set_nonblocking(false).is_ok()
}

/// Reads until so many events have come, up to `deadline`. Returns how many did.
fn count(client: &mut TcpStream, events: u64, deadline: Instant) -> u64 {
    let mut bytes = [0; 16 * 1024];
    let mut counted = 0;
    while counted < events {
        let Ok(left) = left(deadline) else { break };
        let read = client.set_read_timeout(Some(left)).and_then(|()| client.read(&mut bytes));
        match read {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                counted += bytes[..read].iter().filter(|byte| **byte == MARK).count() as u64;
            }
        }
    }
    counted
}

/// The time until `deadline`.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}
