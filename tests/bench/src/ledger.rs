//! The books: which event reached which client, and how late.

use hdrhistogram::Histogram;

use crate::stamp::Stamp;

/// Latencies beyond this are all the same kind of broken.
const LONGEST: u64 = 600_000_000_000;

/// A distribution of times, exact to three digits.
pub struct Times(Histogram<u64>);

impl Times {
    /// An empty one.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        Self(histogram.expect("the bounds are constants that the crate accepts"))
    }

    /// Adds one time in nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.clamp(1, LONGEST));
    }

    /// Adds `count` equal times.
    pub fn record_many(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns.clamp(1, LONGEST), count);
    }

    /// The figures for a report.
    pub fn summary(&self) -> Summary {
        if self.0.is_empty() {
            return Summary::default();
        }
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Summary {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1000.0,
        }
    }
}

/// Quantiles in microseconds; zeros for an empty distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// The median.
    pub p50: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// 99.9 % are at most this.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// Who got what in one phase of a fan-out run.
pub struct Ledger {
    run: u32,
    events: u64,
    words: usize,
    /// One bit per client and event: has it arrived?
    seen: Vec<u64>,
    /// Per client, one more than the highest sequence number so far.
    newest: Vec<u32>,
    /// Arrival minus planned time of every first delivery.
    pub latency: Times,
    /// The same one by one, with the planned time first, where it is wanted.
    pub log: Option<Vec<(u64, u64)>>,
    /// First deliveries.
    pub delivered: u64,
    /// Deliveries of what had already arrived.
    pub duplicates: u64,
    /// First deliveries after a later event had arrived.
    pub out_of_order: u64,
    /// Arrival of the latest delivery.
    pub last: u64,
}

impl Ledger {
    /// Books for `clients` clients and `events` events of run `run`.
    pub fn new(run: u32, clients: usize, events: u64) -> Self {
        let words = events.div_ceil(64) as usize;
        Self {
            run,
            events,
            words,
            seen: vec![0; words * clients],
            newest: vec![0; clients],
            latency: Times::new(),
            log: None,
            delivered: 0,
            duplicates: 0,
            out_of_order: 0,
            last: 0,
        }
    }

    /// Books one arrival. Events of other runs do not count.
    pub fn arrived(&mut self, client: usize, stamp: Stamp, at: u64) {
        if stamp.run != self.run || u64::from(stamp.sequence) >= self.events {
            return;
        }
        let sequence = stamp.sequence as usize;
        let word = &mut self.seen[client * self.words + sequence / 64];
        let bit = 1 << (sequence % 64);
        if *word & bit != 0 {
            self.duplicates += 1;
            return;
        }
        *word |= bit;
        let newest = &mut self.newest[client];
        if stamp.sequence < *newest {
            self.out_of_order += 1;
        } else {
            *newest = stamp.sequence + 1;
        }
        self.delivered += 1;
        self.last = at;
        let late = at.saturating_sub(stamp.planned);
        self.latency.record(late);
        if let Some(log) = &mut self.log {
            log.push((stamp.planned, late));
        }
    }
}

impl crate::connection::Sink for Ledger {
    fn message(&mut self, client: usize, payload: &[u8], at: u64, _: &mut Vec<u8>) {
        if let Some(stamp) = Stamp::find(payload) {
            self.arrived(client, stamp, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u32) -> Stamp {
        Stamp { planned: 1_000, sequence, run: 7 }
    }

    #[test]
    fn counts_duplicates_and_order_apart() {
        let mut ledger = Ledger::new(7, 2, 100);
        for sequence in [0, 1, 3, 2, 2, 70, 0] {
            ledger.arrived(0, stamp(sequence), 2_000);
        }
        ledger.arrived(1, stamp(2), 5_000);
        assert_eq!(ledger.delivered, 6);
        assert_eq!(ledger.duplicates, 2);
        assert_eq!(ledger.out_of_order, 1);
        assert_eq!(ledger.last, 5_000);
    }

    #[test]
    fn other_runs_do_not_count() {
        let mut ledger = Ledger::new(7, 1, 10);
        ledger.arrived(0, Stamp { run: 8, ..stamp(0) }, 2_000);
        ledger.arrived(0, stamp(10), 2_000);
        assert_eq!((ledger.delivered, ledger.duplicates), (0, 0));
    }

    #[test]
    fn latency_counts_from_the_planned_time() {
        let mut ledger = Ledger::new(7, 1, 1_000);
        for sequence in 0..1_000 {
            // 1 µs, 2 µs, … 1 ms late.
            let at = 1_000 + 1_000 * (u64::from(sequence) + 1);
            ledger.arrived(0, stamp(sequence), at);
        }
        let summary = ledger.latency.summary();
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.002;
        assert!(near(summary.p50, 500.0), "{summary:?}");
        assert!(near(summary.p99, 990.0), "{summary:?}");
        assert!(near(summary.max, 1_000.0), "{summary:?}");
    }

    #[test]
    fn an_arrival_before_its_time_is_not_an_overflow() {
        let mut ledger = Ledger::new(7, 1, 1);
        ledger.arrived(0, stamp(0), 10);
        assert_eq!(ledger.delivered, 1);
        assert!(ledger.latency.summary().max < 0.01);
    }

    #[test]
    fn an_empty_distribution_has_zeros() {
        assert_eq!(Times::new().summary(), Summary::default());
    }
}
