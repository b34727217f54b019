//! Gives memory back after a crowd of clients has left.

use std::time::{Duration, Instant};

use super::sys;
use crate::os::procfs;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(2);

/// A change in the number of threads that is a crowd's coming or going: each client has one.
const CROWD: u64 = 16;

/// A growth of resident memory that is worth a trim, in KiB.
const GROWTH_KIB: u64 = 4096;

/// Decides when the allocator is trimmed. Without that, glibc keeps what a crowd had: 20 MiB resident
/// instead of 6 after 3,000 clients have come and gone.
#[derive(Debug)]
pub struct Trimmer {
    next: Instant,
    threads: u64,
    resident_kib: u64,
}

impl Trimmer {
    /// For a process as it is now.
    pub fn new() -> Trimmer {
        let status = procfs::read();
        let number = |name| procfs::number(&status, name).unwrap_or(0);
        let next = Instant::now() + INTERVAL;
        Trimmer { next, threads: number("Threads:"), resident_kib: number("VmRSS:") }
    }

    /// Trims the allocator if much has changed since it was trimmed last. To be called often: it looks
    /// once in [`INTERVAL`], because a trim takes a millisecond or two, and the allocator's locks.
    pub fn tick(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        let now = Trimmer::new();
        self.next = now.next;
        let has_changed = now.threads.abs_diff(self.threads) >= CROWD;
        if has_changed || now.resident_kib > self.resident_kib + GROWTH_KIB {
            sys::trim_allocator();
            *self = Trimmer::new();
        }
    }
}
