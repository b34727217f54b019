//! Memory that the allocator keeps, but nobody uses, goes back to the system.
//!
//! After a crowd of clients has left, or a flood of bytes, the allocator holds what they had, in
//! pieces with holes between them. A server that lives for months should not show for ever what its
//! worst minute took.

use std::time::{Duration, Instant};

use super::socket;
use crate::stats::ProcessInfo;

/// How often is looked, and the growth in bytes that makes a collection worth the while.
const INTERVAL: Duration = Duration::from_secs(5);
const GROWTH: u64 = 4 << 20;

/// By how many threads, and by which part of all, a crowd must have shrunk.
const LEFT: u64 = 16;
const PART: u64 = 8;

/// At how many looks in a row is collected: what a flood took may be in use still at the first.
const LOOKS: u32 = 3;

/// What was seen last. Looked at by the reaper's thread.
pub struct Memory {
    next: Instant,
    /// The most threads since a collection was due for the last time. Each client has one, and
    /// tiny_http's idle workers, whose memory it is in part, go seconds after their clients.
    threads: u64,
    /// Resident bytes after the last collection.
    resident: u64,
    due: u32,
}

impl Memory {
    /// Begins with what is there now.
    pub fn new() -> Memory {
        let now = ProcessInfo::read();
        Memory {
            next: Instant::now() + INTERVAL,
            threads: now.threads,
            resident: now.resident_bytes,
            due: 0,
        }
    }

    /// Collects where threads have gone or memory has grown. Called often; acts every few seconds.
    pub fn look(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        let now = ProcessInfo::read();
        self.threads = self.threads.max(now.threads);
        let left = self.threads - now.threads;
        if left >= LEFT.max(self.threads / PART) || now.resident_bytes > self.resident + GROWTH {
            self.due = LOOKS;
            self.threads = now.threads;
        }
        if self.due > 0 {
            self.due -= 1;
            socket::return_free_memory();
            self.resident = ProcessInfo::read().resident_bytes;
        }
    }
}
