//! What the kernel tells about the whole machine.

use std::fs;

use crate::procfs::field;
use crate::sys::{monotonic_ns, tick_ns};

/// What the kernel itself holds, machine-wide, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelMemory {
    /// One stack per thread, 16 KiB each on x86-64.
    pub stacks: u64,
    /// Sockets, files, epoll entries, task structures.
    pub slab: u64,
    /// Page tables of all processes.
    pub page_tables: u64,
}

impl KernelMemory {
    /// From `/proc/meminfo`; zeros where that cannot be read.
    pub fn now() -> Self {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let read = |name| field(&info, name).unwrap_or(0);
        Self { stacks: read("KernelStack:"), slab: read("Slab:"), page_tables: read("PageTables:") }
    }
}

/// The whole machine at one moment.
///
/// Only idle time is used: the kernel measures it, while it guesses the busy kinds by looking 250
/// times a second at who is running, and misses most of what runs in short bursts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    at: u64,
    cpus: u64,
    idle: u64,
    steal: u64,
}

impl Machine {
    /// From `/proc/stat`; zeros where that cannot be read.
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::parse(&stat, monotonic_ns(), tick_ns())
    }

    fn parse(stat: &str, at: u64, tick: u64) -> Self {
        // cpu user nice system idle iowait irq softirq steal …
        let sums: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or("")
            .split_whitespace()
            .skip(1)
            .map(|n| n.parse().unwrap_or(0))
            .collect();
        let ns = |field: usize| sums.get(field).copied().unwrap_or(0) * tick;
        let is_cpu = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let cpus = stat.lines().filter(is_cpu).count() as u64;
        Self { at, cpus, idle: ns(3) + ns(4), steal: ns(7) }
    }

    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Elapsed {
        let total = self.at.saturating_sub(earlier.at) * self.cpus;
        Elapsed {
            total,
            busy: total.saturating_sub(self.idle.saturating_sub(earlier.idle)),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }
}

/// CPU time of a stretch, over all CPUs, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    /// All there was.
    pub total: u64,
    /// What was not idle.
    pub busy: u64,
    /// What the hypervisor gave to others.
    pub steal: u64,
}

impl Elapsed {
    /// A part of the total, in percent.
    pub fn percent(&self, part: u64) -> f64 {
        100.0 * part as f64 / self.total.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine() {
        assert!(KernelMemory::now().slab > 0);
        let now = Machine::now();
        assert!(now.cpus > 0 && now.idle > 0);
    }

    #[test]
    fn machine_shares() {
        let before = Machine::parse("cpu  0 0 0 0 0 0 0 0\ncpu0 0\ncpu1 0\nctxt 9\n", 0, 10);
        let after = Machine::parse("cpu  1 0 1 50 10 0 0 5\ncpu0 0\ncpu1 0\n", 500, 10);
        let elapsed = after.since(&before);
        assert_eq!(elapsed, Elapsed { total: 1000, busy: 400, steal: 50 });
        assert_eq!(elapsed.percent(elapsed.busy), 40.0);
    }
}
