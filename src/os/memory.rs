//! Gives memory back to the system after a crowd of clients has left.
//!
//! Without that, glibc keeps what the crowd had: 20 MiB resident instead of 6 after 3,000 clients
//! have come and gone. Whichever thread calls [`Trimmer::tick`] does the work. It waits for nothing
//! but the allocator's locks.

use std::time::{Duration, Instant};

use super::{procfs, sys};

/// How often memory is checked. A trim takes a millisecond or two, and the allocator's locks.
const INTERVAL: Duration = Duration::from_secs(2);

/// A change in the number of threads that is a crowd's coming or going: each client has one.
const CROWD_THREADS: u64 = 16;

/// A growth of resident memory that is worth a trim.
const GROWTH_BYTES: u64 = 4 << 20;

/// Decides when the allocator is trimmed.
#[derive(Debug)]
pub struct Trimmer {
    next_check: Instant,
    /// After the last trim.
    process: procfs::ProcessInfo,
}

impl Trimmer {
    /// For a process as it is at this moment.
    pub fn new() -> Trimmer {
        let process = procfs::ProcessInfo::read();
        Trimmer { next_check: Instant::now() + INTERVAL, process }
    }

    /// Trims the allocator if much has changed since the last trim. Cheap enough to be called often:
    /// it checks once in [`INTERVAL`].
    pub fn tick(&mut self) {
        if Instant::now() < self.next_check {
            return;
        }
        let Trimmer { next_check, process } = Trimmer::new();
        self.next_check = next_check;
        let is_crowd = process.threads.abs_diff(self.process.threads) >= CROWD_THREADS;
        if is_crowd || process.resident_bytes > self.process.resident_bytes + GROWTH_BYTES {
            sys::trim_allocator();
            // What is resident after the trim is what the next growth is measured from.
            *self = Trimmer::new();
        }
    }
}
