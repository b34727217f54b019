//! WebSocket echo: as fast as it comes back, or on a schedule.

use std::time::Duration;

use crate::connection::Sink;
use crate::error::{Failure, Result};
use crate::fanout::check_size;
use crate::feeder::Phase;
use crate::ledger::{Summary, Times};
use crate::procfs::Server;
use crate::stamp::{LENGTH, Stamp, new_run};
use crate::swarm::Swarm;
use crate::sys::{Timer, monotonic_ns, precise_sleeps};
use crate::target::{Endpoint, Target};
use crate::websocket::{BINARY, TEXT, encode};
use crate::window::{Usage, Window};

/// How long to wait for the last answers.
const STRAGGLERS: u64 = 2_000_000_000;
/// On an overloaded schedule, messages sent before the arrived ones are looked at.
const BURST: u32 = 256;
const AT_ONCE: usize = 32;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many connections.
    pub connections: usize,
    /// Payload bytes.
    pub size: usize,
    /// Length of the measured stretch.
    pub seconds: f64,
    /// Length of the load before it that does not count.
    pub warmup: f64,
    /// Closed loop: messages under way per connection.
    pub inflight: usize,
    /// Open loop: messages per second over all connections.
    pub rate: Option<f64>,
    /// Binary instead of text messages.
    pub binary: bool,
}

/// What came out.
pub struct Outcome {
    /// The books.
    pub ledger: EchoLedger,
    /// What was spent.
    pub usage: Usage,
    /// What ready data waited for the generator's event loop.
    pub lag: Summary,
    /// Connections lost, and why the first was.
    pub closed: (usize, Option<String>),
    /// From the first message to the last answer, in seconds.
    pub seconds: f64,
}

/// The books of an echo run, and in the closed loop also what keeps it going.
pub struct EchoLedger {
    run: u32,
    size: usize,
    opcode: u8,
    /// Closed loop: an answer before this time is followed by the next message.
    until: u64,
    next: Vec<u32>,
    expected: Vec<u32>,
    scratch: Vec<u8>,
    /// Messages sent.
    pub sent: u64,
    /// Answers that are what was sent.
    pub received: u64,
    /// Answers that are not what was sent, or not in order.
    pub wrong: u64,
    /// Messages of the schedule that were not sent in time.
    pub unsent: u64,
    /// Answer minus planned time; in the closed loop minus the time of sending.
    pub latency: Times,
    /// Sending minus planned time, open loop.
    pub late: Times,
    /// Arrival of the latest answer.
    pub last: u64,
}

impl EchoLedger {
    fn new(plan: &Plan, run: u32) -> Self {
        Self {
            run,
            size: plan.size,
            opcode: if plan.binary { BINARY } else { TEXT },
            until: 0,
            next: vec![0; plan.connections],
            expected: vec![0; plan.connections],
            scratch: Vec::new(),
            sent: 0,
            received: 0,
            wrong: 0,
            unsent: 0,
            latency: Times::new(),
            late: Times::new(),
            last: 0,
        }
    }

    /// Appends the next message of a connection.
    fn message_for(&mut self, client: usize, planned: u64, out: &mut Vec<u8>) {
        let sequence = self.next[client];
        self.next[client] = sequence.wrapping_add(1);
        self.scratch.clear();
        Stamp { planned, sequence, run: self.run }.write(self.size, &mut self.scratch);
        // Any mask but zero, so that a server cannot skip the unmasking.
        let mask = (self.run ^ sequence.wrapping_mul(0x9e37_79b9) | 0x0101_0101).to_ne_bytes();
        encode(self.opcode, &self.scratch, mask, out);
        self.sent += 1;
    }
}

impl Sink for EchoLedger {
    fn message(&mut self, client: usize, payload: &[u8], at: u64, out: &mut Vec<u8>) {
        let Some(stamp) = Stamp::find(payload) else {
            return;
        };
        if stamp.run != self.run {
            return;
        }
        let whole = payload.len() == self.size && payload[LENGTH..].iter().all(|&b| b == b'.');
        let expected = self.expected[client];
        self.expected[client] = stamp.sequence.wrapping_add(1);
        self.last = at;
        if whole && stamp.sequence == expected {
            self.received += 1;
            self.latency.record(at.saturating_sub(stamp.planned));
        } else {
            self.wrong += 1;
        }
        if at < self.until {
            self.message_for(client, at, out);
        }
    }
}

impl Plan {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<()> {
        check_size(self.size)?;
        let sane = self.connections > 0
            && (1..=1000).contains(&self.inflight)
            && (self.seconds > 0.0 && self.seconds <= 3600.0)
            && (0.0..=600.0).contains(&self.warmup)
            && self.rate.is_none_or(|rate| rate > 0.0 && rate <= 1e6);
        if sane {
            return Ok(());
        }
        Err(Failure::new(
            "--connections, --inflight, --seconds, --warmup or --rate is out of range",
            "use at least 1, 1 to 1000, up to 3600, up to 600 and up to 1000000",
        ))
    }
}

/// Connects, warms up, measures.
pub fn run(plan: &Plan, target: Target, server: Option<&Server>) -> Result<Outcome> {
    precise_sleeps();
    let timer = Timer::new()
        .map_err(|e| Failure::new(format!("no timer ({e})"), "raise the descriptor limit"))?;
    let mut swarm = Swarm::new(target, Endpoint::Echo, None)?;
    swarm.watch(&timer)?;
    swarm.connect(plan.connections, AT_ONCE)?;
    let run = new_run();
    if plan.warmup > 0.0 {
        drive(&mut swarm, plan, &timer, plan.warmup, !run)?;
    }
    swarm.lag = Times::new();
    let window = Window::open(server);
    let start = monotonic_ns();
    let ledger = drive(&mut swarm, plan, &timer, plan.seconds, run)?;
    let active = ledger.last.saturating_sub(start).max(1_000_000);
    let usage = window.close(active);
    Ok(Outcome {
        ledger,
        usage,
        lag: swarm.lag.summary(),
        closed: (swarm.closed, swarm.first_loss.take()),
        seconds: active as f64 / 1e9,
    })
}

fn drive(
    swarm: &mut Swarm,
    plan: &Plan,
    timer: &Timer,
    seconds: f64,
    run: u32,
) -> Result<EchoLedger> {
    let mut ledger = EchoLedger::new(plan, run);
    match plan.rate {
        Some(rate) => on_schedule(swarm, plan, timer, seconds, rate, &mut ledger)?,
        None => back_to_back(swarm, plan, seconds, &mut ledger)?,
    }
    let ended = monotonic_ns();
    while ledger.received + ledger.wrong < ledger.sent && swarm.connected() > 0 {
        if monotonic_ns().saturating_sub(ledger.last.max(ended)) > STRAGGLERS {
            break;
        }
        swarm.pump(Duration::from_millis(50), &mut ledger)?;
    }
    Ok(ledger)
}

/// Closed loop: each answer triggers the next message.
fn back_to_back(
    swarm: &mut Swarm,
    plan: &Plan,
    seconds: f64,
    ledger: &mut EchoLedger,
) -> Result<()> {
    ledger.until = monotonic_ns() + (seconds * 1e9) as u64;
    for client in 0..plan.connections {
        swarm.send(client, |out| {
            for _ in 0..plan.inflight {
                ledger.message_for(client, monotonic_ns(), out);
            }
        });
    }
    while monotonic_ns() < ledger.until && swarm.connected() > 0 {
        swarm.pump(Duration::from_millis(50), ledger)?;
    }
    Ok(())
}

/// Open loop: messages at planned times, the connections in turn, answered or not.
fn on_schedule(
    swarm: &mut Swarm,
    plan: &Plan,
    timer: &Timer,
    seconds: f64,
    rate: f64,
    ledger: &mut EchoLedger,
) -> Result<()> {
    let count = ((rate * seconds).round() as u64).max(1);
    let start = monotonic_ns() + 1_000_000;
    let schedule = Phase { run: ledger.run, start, count, rate, size: plan.size, batch: 1 };
    let mut armed = 0;
    let mut next = 0;
    while next < count {
        let mut burst = 0;
        let mut now = monotonic_ns();
        if now > schedule.deadline() || swarm.connected() == 0 {
            ledger.unsent = count - next;
            break;
        }
        while next < count && burst < BURST && schedule.planned(next) <= now {
            let planned = schedule.planned(next);
            let client = (next % plan.connections as u64) as usize;
            ledger.late.record(now - planned);
            swarm.send(client, |out| ledger.message_for(client, planned, out));
            next += 1;
            burst += 1;
            now = monotonic_ns();
        }
        let due = schedule.planned(next.min(count - 1));
        let patience = if next < count && due <= now {
            Duration::ZERO
        } else {
            if armed != due {
                timer
                    .set(due)
                    .map_err(|e| Failure::new(format!("the timer failed ({e})"), "report this"))?;
                armed = due;
            }
            Duration::from_millis(50)
        };
        swarm.pump(patience, ledger)?;
    }
    Ok(())
}
