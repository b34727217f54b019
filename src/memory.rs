//! Memory that the allocator keeps, but nobody uses, goes back to the system.
//!
//! After a crowd of clients has left, or a flood of bytes, the C library holds what they had: in pieces
//! with holes between them, in each thread's cache, in stacks for the next threads. A server that
//! lives for months should not show for ever what its worst minute took.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::listener::{STACK, socket};
use crate::stats::ProcessInfo;

/// How often is decided, and the growth in bytes that makes a collection worth the while.
const INTERVAL: Duration = Duration::from_secs(5);
const GROWTH: u64 = 4 << 20;

/// By how many threads, and by which part of all, a crowd must have shrunk.
const LEFT: u64 = 16;
const PART: u64 = 8;

/// At how many looks in a row is collected: what a flood took may be in use still at the first, and
/// the threads that are replaced at the second need five seconds to go.
const LOOKS: u32 = 4;

/// How often long-lived threads were asked to empty their caches. The allocator is one for the whole
/// process, and so is this.
static CLEARINGS: AtomicU32 = AtomicU32::new(0);

/// What was seen last. Looked at by the supervisor's thread.
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

    /// Collects where threads have gone or memory has grown. Called often; decides every few seconds.
    /// Returns whether this is the time to replace threads that live long and cannot empty their
    /// caches themselves, as [`Cache`] does.
    pub fn look(&mut self) -> bool {
        // A crowd may come and go between two decisions.
        let now = ProcessInfo::read();
        self.threads = self.threads.max(now.threads);
        if Instant::now() < self.next {
            return false;
        }
        self.next = Instant::now() + INTERVAL;
        let left = self.threads - now.threads;
        if left >= LEFT.max(self.threads / PART) || now.resident_bytes > self.resident + GROWTH {
            self.due = LOOKS;
            self.threads = now.threads;
        }
        if self.due == 0 {
            return false;
        }
        self.due -= 1;
        return_stacks();
        socket::return_free_memory();
        self.resident = ProcessInfo::read().resident_bytes;
        // Not at the first look: then the crowd may still be leaving.
        let calm = self.due == LOOKS - 2;
        if calm {
            CLEARINGS.fetch_add(1, Ordering::Relaxed);
        }
        calm
    }

    /// Long-lived threads have been replaced: what they kept is collected when they are gone.
    pub fn renewed(&mut self) {
        self.due = self.due.max(LOOKS - 2);
    }
}

/// Gives the stacks of ended threads back to the system. glibc keeps up to 40 MiB of them, counted
/// with what was never touched, for the next threads: the oldest go when a thread ends whose stack
/// is one too many, and with a stack above that all do.
fn return_stacks() {
    const MORE_THAN_IS_KEPT: usize = 48 << 20;
    if let Some(thread) = run_aside(MORE_THAN_IS_KEPT, || {}) {
        let _ = thread.join();
    }
}

/// What the allocator keeps for one thread that lives as long as the server. glibc gives each thread
/// a cache of what it has freed, and empties it only when the thread ends: up to seven pieces of every
/// size, each of which may be all that still holds a page.
pub struct Cache {
    clearings: u32,
}

impl Cache {
    /// For the calling thread.
    pub fn new() -> Cache {
        Cache { clearings: CLEARINGS.load(Ordering::Relaxed) }
    }

    /// Empties it, where a crowd has left since the last call. To be called now and then.
    pub fn tend(&mut self) {
        let clearings = CLEARINGS.load(Ordering::Relaxed);
        if self.clearings == clearings {
            return;
        }
        self.clearings = clearings;
        // glibc's sizes, and how many it keeps of each: taken here, and freed by a thread that ends.
        const SIZES: usize = 64;
        const OF_EACH: usize = 7;
        let sizes = (0..SIZES * OF_EACH).map(|number| 24 + 16 * (number / OF_EACH));
        let pieces: Vec<Vec<u8>> = sizes.map(Vec::with_capacity).collect();
        let _ = run_aside(STACK, || drop(pieces));
    }
}

/// Runs `task` in a thread of its own; or not at all, where none can be had.
fn run_aside(stack: usize, task: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    thread::Builder::new().name("memory".into()).stack_size(stack).spawn(task).ok()
}
