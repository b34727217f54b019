//! What is to be sent when, and what became of it.

use std::thread;
use std::time::Duration;

use crate::error::Result;
use crate::ledger::Summary;
use crate::sys::monotonic_ns;

/// A stretch of events at a fixed rate.
///
/// The schedule is fixed before the first event: a server that falls behind makes later events
/// late, it does not slow the schedule down. That is what makes the load open loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// The number in every stamp of this phase.
    pub run: u32,
    /// Planned time of the first event.
    pub start: u64,
    /// How many events.
    pub count: u64,
    /// Events per second.
    pub rate: f64,
    /// Payload bytes.
    pub size: usize,
    /// Events that are due together and published in one request.
    pub batch: u64,
}

impl Phase {
    /// When event `n` is due.
    pub fn planned(&self, n: u64) -> u64 {
        let first_of_batch = n - n % self.batch.max(1);
        self.start + (first_of_batch as f64 * 1e9 / self.rate) as u64
    }

    /// The end of patience: half as long again as planned, and five seconds.
    pub fn deadline(&self) -> u64 {
        let planned = (self.count as f64 * 1e9 / self.rate) as u64;
        self.start + planned + planned / 2 + 5_000_000_000
    }
}

/// What a feeder did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedReport {
    /// Events the server took.
    pub accepted: u64,
    /// Events it refused, or whose answer did not come.
    pub failed: u64,
    /// Events that were not even tried, because the deadline had passed.
    pub unsent: u64,
    /// The first reason for a failure.
    pub first_error: Option<String>,
    /// Start of each sending minus its planned time.
    pub late: Summary,
    /// The part of that which the feeder itself caused, by waking too late, as opposed to waiting
    /// for the server's answer to the event before.
    pub own_late: Summary,
    /// Time from sending to the answer, or until the last client's `send` returned.
    pub answer: Summary,
    /// Publish requests, and the connections they took: as many where the server closes each.
    pub requests: u64,
    /// See `requests`.
    pub connections: u64,
    /// The smallest and largest number of subscribers the server reported.
    pub subscribers: Option<(u64, u64)>,
}

/// Something that makes events reach the clients at their times.
pub trait Feeder: Send {
    /// Sends a whole phase; returns when the last event is out.
    fn feed(&mut self, phase: &Phase) -> Result<FeedReport>;
}

/// Sleeps until `at`.
pub fn sleep_until(at: u64) {
    let now = monotonic_ns();
    if at > now {
        thread::sleep(Duration::from_nanos(at - now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_fixed() {
        let phase = Phase { run: 1, start: 1_000, count: 100, rate: 1000.0, size: 40, batch: 1 };
        assert_eq!(phase.planned(0), 1_000);
        assert_eq!(phase.planned(7), 7_001_000);
        let batches = Phase { batch: 5, ..phase };
        assert_eq!(batches.planned(4), 1_000);
        assert_eq!(batches.planned(9), 5_001_000);
    }
}
