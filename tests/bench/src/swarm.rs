//! All clients and the one event loop that drives them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::connection::{Connection, Discard, Sink};
use crate::error::{Failure, Result};
use crate::ledger::Times;
use crate::sys::{Timer, monotonic_ns, raise_descriptor_limit};
use crate::target::{Endpoint, Target};

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
/// Without a single new client for this long, connecting has failed.
const STALL: u64 = 10_000_000_000;
/// Descriptors this process needs besides the clients'.
const RESERVE: u64 = 64;

/// When a client began to connect and when it was greeted.
#[derive(Clone, Copy)]
pub struct Welcome {
    /// Start of its connect call.
    pub started: u64,
    /// Arrival of the greeting.
    pub done: u64,
}

/// A set of clients of one endpoint.
pub struct Swarm {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    clients: Vec<Option<Connection>>,
    buffer: Vec<u8>,
    target: Target,
    endpoint: Endpoint,
    topic: Option<String>,
    /// The `Last-Event-ID` of clients that come back.
    pub seen: Option<String>,
    /// In the order of the greetings.
    pub welcomes: Vec<Welcome>,
    /// Clients lost after they were connected.
    pub closed: usize,
    /// Why the first of them was lost.
    pub first_loss: Option<String>,
    /// How long what was ready had to wait for this loop: the time from each wake-up until all it
    /// reported was handled, counted once per client served. It is part of every latency measured
    /// here and no fault of the server.
    pub lag: Times,
}

impl Swarm {
    /// An empty set.
    pub fn new(target: Target, endpoint: Endpoint, topic: Option<&str>) -> Result<Self> {
        let no_epoll = |e: io::Error| {
            Failure::new(format!("no event loop ({e})"), "raise the limit on open descriptors")
        };
        let poll = Poll::new().map_err(no_epoll)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(no_epoll)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            waker: Arc::new(waker),
            clients: Vec::new(),
            buffer: vec![0; 64 * 1024],
            target,
            endpoint,
            topic: topic.map(str::to_owned),
            seen: None,
            welcomes: Vec::new(),
            closed: 0,
            first_loss: None,
            lag: Times::new(),
        })
    }

    /// Ends a wait in [`Swarm::pump`] from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Lets `timer` end a wait in [`Swarm::pump`].
    pub fn watch(&self, timer: &Timer) -> Result<()> {
        use std::os::fd::AsRawFd;
        self.poll
            .registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)
            .map_err(|e| Failure::new(format!("no timer ({e})"), "run on Linux 2.6.27 or newer"))
    }

    /// Clients that are connected now.
    pub fn connected(&self) -> usize {
        self.clients.len() - self.closed
    }

    /// Connects clients until there are `count`, at most `at_once` of them under way at a time,
    /// and waits until the server has greeted all.
    pub fn connect(&mut self, count: usize, at_once: usize) -> Result<()> {
        self.connect_with(count, at_once, &mut Discard)
    }

    /// The same, with somebody interested in what arrives meanwhile.
    pub fn connect_with(
        &mut self,
        count: usize,
        at_once: usize,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let limit = raise_descriptor_limit();
        if count as u64 + RESERVE > limit {
            return Err(Failure::new(
                format!("{count} clients need more than the {limit} descriptors allowed here"),
                "raise `ulimit -Hn` or ask for fewer --clients",
            ));
        }
        let mut progress = monotonic_ns();
        while self.welcomes.len() < count {
            let before = self.welcomes.len();
            while self.clients.len() < count && self.clients.len() - before < at_once {
                self.start_one()?;
            }
            self.pump(Duration::from_millis(100), sink)?;
            if let Some(loss) = &self.first_loss {
                return Err(Failure::new(
                    format!("client {} of {count}: {loss} ({})", before + 1, self.target.address),
                    "check that the server runs there, speaks the contract and has descriptors",
                ));
            }
            let now = monotonic_ns();
            if self.welcomes.len() > before {
                progress = now;
            } else if now - progress > STALL {
                return Err(Failure::new(
                    format!("only {before} of {count} clients were greeted, then none for 10 s"),
                    "look for a limit on clients, threads or descriptors in the server",
                ));
            }
        }
        Ok(())
    }

    fn start_one(&mut self) -> Result<()> {
        let index = self.clients.len();
        let source = source_address(index, self.target.address.ip(), ports_per_address());
        let hint = "lower --clients, or free ports and descriptors";
        let mut client = Connection::open(
            &self.target,
            self.endpoint,
            self.topic.as_deref(),
            self.seen.as_deref(),
            source,
        )
        .map_err(|e| Failure::new(format!("client {}: {e}", index + 1), hint))?;
        self.poll
            .registry()
            .register(&mut client.stream, Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(|e| Failure::new(format!("client {}: {e}", index + 1), hint))?;
        self.clients.push(Some(client));
        Ok(())
    }

    /// Waits for something to happen, at most `patience`, and handles all of it.
    pub fn pump(&mut self, patience: Duration, sink: &mut impl Sink) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => {
                return Err(Failure::new(format!("epoll failed ({e})"), "report this as a bug"));
            }
        }
        let woken = monotonic_ns();
        let mut served = 0;
        for event in &self.events {
            let index = event.token().0;
            let Some(slot) = self.clients.get_mut(index) else {
                continue;
            };
            let Some(client) = slot else { continue };
            served += 1;
            let was_welcomed = client.is_welcomed();
            let result = serve(client, index, event, &mut self.buffer, sink);
            if !was_welcomed && client.is_welcomed() {
                let welcome = Welcome { started: client.started, done: client.welcomed };
                self.welcomes.push(welcome);
            }
            if let Err(reason) = result {
                *slot = None;
                self.closed += 1;
                self.first_loss.get_or_insert(reason);
            }
        }
        if served > 0 {
            self.lag.record_many(monotonic_ns() - woken, served);
        }
        Ok(())
    }

    /// Queues bytes for one client and sends what its socket takes.
    pub fn send(&mut self, index: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let Some(slot) = self.clients.get_mut(index) else {
            return;
        };
        let Some(client) = slot else { return };
        if let Err(reason) = client.queue(fill) {
            *slot = None;
            self.closed += 1;
            self.first_loss.get_or_insert(reason);
        }
    }
}

fn serve(
    client: &mut Connection,
    index: usize,
    event: &mio::event::Event,
    buffer: &mut [u8],
    sink: &mut impl Sink,
) -> std::result::Result<(), String> {
    if !client.advance()? {
        return Ok(());
    }
    if event.is_readable() || event.is_read_closed() || event.is_error() {
        let to_end = event.is_read_closed() || event.is_error();
        client.readable(index, to_end, buffer, sink)?;
    }
    client.flush()
}

/// How many clients to open from one source address: four fifths of the ephemeral ports, since
/// other programs and connections in TIME_WAIT hold some.
fn ports_per_address() -> usize {
    static PORTS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *PORTS.get_or_init(|| {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let range = range.unwrap_or_default();
        let mut ends = range.split_whitespace().filter_map(|n| n.parse::<usize>().ok());
        match (ends.next(), ends.next()) {
            (Some(low), Some(high)) if high > low => (high - low + 1) * 4 / 5,
            _ => 20_000,
        }
    })
}

/// Which address client `index` connects from; the kernel's choice as long as its ports last.
fn source_address(index: usize, to: IpAddr, ports: usize) -> Option<Ipv4Addr> {
    match (to, index / ports.max(1)) {
        (IpAddr::V4(to), group @ 1..=200) if to.is_loopback() => {
            Some(Ipv4Addr::new(127, 0, 0, group as u8 + 1))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "swarm_tests.rs"]
mod tests;
