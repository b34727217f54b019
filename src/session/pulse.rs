//! Whether a WebSocket's client is there: the session's thread asks each time its read times out,
//! and between messages.
//!
//! A client that sends anything is there, and so is one that takes bytes. So the clock of a ping
//! starts when the ping has reached the client's system: on a slow line it waits behind megabytes
//! in the kernel's buffer, and for as long as that shrinks it is too early to ask for an answer.
//!
//! ```text
//!              ┌──────────────────── something came ◄────────────────────┐
//!              ▼                                                          │
//! Idle ──► nothing in front of the ping ──────────────► Pinged ──► nothing came ──► silent
//!      └─► bytes in front of it ──► Behind ── taken ──────┘
//!                                    │  ▲
//!                         fewer left └──┘   not one taken ──► silent
//! ```
//!
//! Each step takes an interval: two without a sign of life are the end of a client to which nothing
//! was on its way. Only where something came, the client is asked again in the same check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::Frame;

use crate::client::outbox::Outbox;
use crate::event::payload::Payload;
use crate::os::tcp;
use crate::ws::frame::frame;

/// What is known of a client at the last check.
#[derive(Debug, Clone, Copy)]
enum State {
    /// It has not been asked.
    Idle,
    /// A ping has reached it, or had nothing in front of it.
    Pinged,
    /// It had so many bytes, and there were more for it. A ping is among them, unless it has still to
    /// be sent: then it has been taken when `ping_end` bytes have.
    Behind { acknowledged: u64, ping_end: Option<u64> },
}

/// Asks a client for signs of life.
pub struct Pulse {
    interval: Duration,
    last_check: Instant,
    state: State,
}

impl Pulse {
    /// Asks every `interval`; never, if that is zero.
    pub fn new(interval: Duration) -> Pulse {
        Pulse { interval, last_check: Instant::now(), state: State::Idle }
    }

    /// How long the session's thread may sleep; `None`: for ever.
    pub fn interval(&self) -> Option<Duration> {
        (!self.interval.is_zero()).then_some(self.interval)
    }

    /// Asks the client if it is time to. `last_read` is when something came from it last. Returns
    /// whether it is silent. Does not wait for it.
    pub fn is_silent(&mut self, outbox: &Arc<Outbox>, last_read: Instant) -> bool {
        // Read timeouts may come a little early; a whole interval more would be late.
        let due = self.interval - self.interval / 20;
        if self.interval.is_zero() || self.last_check.elapsed() < due {
            return false;
        }
        // Not simply when nothing came for two intervals: if this process was stopped meanwhile, nobody
        // has been asked.
        let has_spoken = last_read >= self.last_check;
        self.last_check = Instant::now();
        match self.state {
            State::Pinged if !has_spoken => return true,
            State::Behind { acknowledged, ping_end } if !has_spoken => {
                let taken = tcp::send_queue(outbox.link().stream()).map(|queue| queue.acknowledged);
                if taken == Some(acknowledged) {
                    return true;
                }
                if let (Some(taken), Some(end)) = (taken, ping_end) {
                    self.state = match taken >= end {
                        true => State::Pinged,
                        false => State::Behind { acknowledged: taken, ping_end },
                    };
                    return false;
                }
            }
            _ => {}
        }
        self.state = ask(outbox);
        false
    }
}

/// Pings a client, unless events wait for it: what it takes of them is the answer, too.
fn ask(outbox: &Arc<Outbox>) -> State {
    let ping = frame(Frame::ping(Vec::new()));
    let length = ping.len() as u64;
    let is_sent = outbox.offer_if_idle(&Payload::own(ping), Instant::now());
    match tcp::send_queue(outbox.link().stream()) {
        Some(queue) if !is_sent || queue.waiting > length => State::Behind {
            acknowledged: queue.acknowledged,
            ping_end: is_sent.then_some(queue.acknowledged + queue.waiting),
        },
        // Where the system does not tell, what the client's queue takes counts.
        None if !is_sent => State::Idle,
        _ => State::Pinged,
    }
}
