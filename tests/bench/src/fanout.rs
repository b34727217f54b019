//! One publisher, many clients: the run itself.

use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::feeder::{FeedReport, Feeder, Phase};
use crate::ledger::{Ledger, Summary};
use crate::procfs::Server;
use crate::stamp::{self, new_run};
use crate::swarm::Swarm;
use crate::sys::monotonic_ns;
use crate::target::{Endpoint, Target, Transport};
use crate::window::{Usage, Window};

/// How long to wait for stragglers after the last arrival.
const STRAGGLERS: u64 = 2_000_000_000;
/// Time for the feeder's thread or process to be ready before the first event is due.
const RUN_UP: u64 = 50_000_000;
/// A feeder that wakes up later than this, in microseconds at p99, is not on schedule.
const TOO_LATE: f64 = 5_000.0;
/// Connections under way at a time while the clients are set up.
const AT_ONCE: usize = 32;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the clients are connected.
    pub transport: Transport,
    /// How many clients.
    pub clients: usize,
    /// Events per second.
    pub rate: f64,
    /// Payload bytes.
    pub size: usize,
    /// Length of the measured stretch.
    pub seconds: f64,
    /// Length of the load before it that does not count.
    pub warmup: f64,
    /// The topic published to and subscribed to.
    pub topic: String,
    /// Events per publish request.
    pub batch: u64,
    /// The CPU the generator has taken for itself, if any.
    pub cpu: Option<usize>,
    /// Whether each delivery is kept by itself: see [`Ledger::log`].
    pub log: bool,
}

/// What came out.
pub struct Outcome {
    /// First deliveries expected: events the server took, times clients.
    pub expected: u64,
    /// The books.
    pub ledger: Ledger,
    /// The feeder's account.
    pub feed: FeedReport,
    /// What was spent.
    pub usage: Usage,
    /// Growth of the server's resident memory from before the clients to after the warm-up.
    pub rss_per_client: Option<f64>,
    /// Resident memory of the server, before the clients connected, in KiB.
    pub rss_before: Option<u64>,
    /// What ready data waited for the generator's event loop.
    pub lag: Summary,
    /// Clients lost, and why the first was.
    pub closed: (usize, Option<String>),
    /// When the first event was planned.
    pub start: u64,
    /// From the first planned event to the last arrival, in seconds.
    pub seconds: f64,
}

impl Plan {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String, hint| Err(Failure::new(what, hint));
        if self.clients == 0 {
            return wrong("--clients 0 measures nothing".to_owned(), "ask for at least one");
        }
        if !(self.rate > 0.0 && self.rate <= 1e6) {
            return wrong(format!("--rate {} is out of range", self.rate), "use 0.01 to 1000000");
        }
        if !(self.seconds > 0.0 && self.seconds <= 3600.0 && (0.0..=600.0).contains(&self.warmup)) {
            return wrong(
                format!("--seconds {} or --warmup {} is out of range", self.seconds, self.warmup),
                "use up to 3600 and 600",
            );
        }
        check_size(self.size)?;
        if self.batch == 0 || self.batch > 10_000 {
            return wrong(format!("--batch {} is out of range", self.batch), "use 1 to 10000");
        }
        Ok(())
    }

    fn phase(&self, seconds: f64, run: u32) -> Phase {
        Phase {
            run,
            start: monotonic_ns() + RUN_UP,
            count: ((self.rate * seconds).round() as u64).max(1),
            rate: self.rate,
            size: self.size,
            batch: self.batch,
        }
    }
}

/// A payload has to hold the stamp, and at 16 MiB the generator is the bottleneck.
pub fn check_size(size: usize) -> Result<()> {
    if (stamp::LENGTH..=16 * 1024 * 1024).contains(&size) {
        return Ok(());
    }
    Err(Failure::new(
        format!("--size {size} is out of range"),
        "use 33 (the stamp in each payload) to 16777216",
    ))
}

/// Connects, warms up, measures.
pub fn run(
    plan: &Plan,
    target: Target,
    feeder: &mut dyn Feeder,
    server: Option<&Server>,
) -> Result<Outcome> {
    let rss_before = server.map(Server::rss_kib);
    let mut swarm = Swarm::new(target, Endpoint::Events(plan.transport), Some(&plan.topic))?;
    swarm.connect(plan.clients, AT_ONCE)?;
    measure(plan, &mut swarm, feeder, server, rss_before)
}

/// Warms up and measures, with the clients connected. `rss_before`: the server's memory before that.
pub fn measure(
    plan: &Plan,
    swarm: &mut Swarm,
    feeder: &mut dyn Feeder,
    server: Option<&Server>,
    rss_before: Option<u64>,
) -> Result<Outcome> {
    let run = new_run();
    if plan.warmup > 0.0 {
        drive(swarm, feeder, &plan.phase(plan.warmup, !run), plan)?;
    }
    let rss_after = server.map(Server::rss_kib);
    let grown = rss_after.zip(rss_before).map(|(after, before)| after as f64 - before as f64);
    swarm.lag = crate::ledger::Times::new();
    let window = Window::open(server);
    let phase = plan.phase(plan.seconds, run);
    let (ledger, feed) = drive(swarm, feeder, &phase, plan)?;
    let active = ledger.last.max(phase.planned(phase.count - 1)).saturating_sub(phase.start);
    let usage = window.close(active.max(1_000_000));
    Ok(Outcome {
        expected: feed.accepted * plan.clients as u64,
        ledger,
        feed,
        usage,
        rss_per_client: grown.map(|kib| kib / plan.clients as f64),
        rss_before,
        lag: swarm.lag.summary(),
        closed: (swarm.closed, swarm.first_loss.take()),
        start: phase.start,
        seconds: active as f64 / 1e9,
    })
}

/// Runs one phase: the feeder on its own thread, all clients on this one.
fn drive(
    swarm: &mut Swarm,
    feeder: &mut dyn Feeder,
    phase: &Phase,
    plan: &Plan,
) -> Result<(Ledger, FeedReport)> {
    let mut ledger = Ledger::new(phase.run, plan.clients, phase.count);
    ledger.log = plan.log.then(Vec::new);
    let waker = swarm.waker();
    let (sender, receiver) = mpsc::channel();
    let feed = thread::scope(|scope| {
        scope.spawn(move || {
            let _ = sender.send(feeder.feed(phase));
            let _ = waker.wake();
        });
        loop {
            swarm.pump(Duration::from_millis(100), &mut ledger)?;
            match receiver.try_recv() {
                Ok(report) => return report,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Failure::new("the publisher panicked", "report this as a bug"));
                }
            }
        }
    })?;
    let ended = monotonic_ns();
    let expected = feed.accepted * plan.clients as u64;
    while ledger.delivered < expected {
        let quiet_since = ledger.last.max(ended);
        if monotonic_ns().saturating_sub(quiet_since) > STRAGGLERS {
            break;
        }
        swarm.pump(Duration::from_millis(100), &mut ledger)?;
    }
    Ok((ledger, feed))
}

impl Outcome {
    /// First deliveries that did not come.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.ledger.delivered)
    }

    /// CPU time of the server per delivery, in microseconds.
    pub fn cpu_per_delivery(&self) -> Option<f64> {
        let delivered = self.ledger.delivered.max(1) as f64;
        self.usage.server_cpu.map(|cpu| cpu as f64 / 1e3 / delivered)
    }

    /// Why not to trust the figures; empty if there is no reason.
    pub fn objections(&self) -> Vec<String> {
        let mut objections = self.usage.objections();
        if self.feed.own_late.p99 > TOO_LATE {
            objections.push(format!(
                "the publisher woke up to {:.1} ms late by its own fault (p99)",
                self.feed.own_late.p99 / 1e3
            ));
        }
        if self.feed.unsent > 0 {
            objections.push(format!("{} events were never sent: no time left", self.feed.unsent));
        }
        if self.feed.failed > 0 {
            objections.push(format!("{} events were refused", self.feed.failed));
        }
        if self.ledger.delivered == 0 {
            objections.push("nothing arrived".to_owned());
        }
        objections
    }
}
