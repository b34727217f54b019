//! The threads that serve connections, each one alone from the first byte of its job to the last.
//!
//! A thread that has done its job is used again: starting one costs more than a plain request
//! does. It waits, parked, for five seconds; a job or the end of that time wakes it. How many
//! are busy is bounded by the connections: each has one at most.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

/// Stack of a thread. Only touched pages count as memory; this is address space.
pub const STACK_BYTES: usize = 256 * 1024;

/// The most threads that wait for a job. With 8, clients that come and go cost a quarter more.
const MAX_IDLE: usize = 256;

/// How long one waits. The last one always does, so that a lone request starts no thread.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of a thread that waits.
const IDLE: &str = "idle";

/// What a thread does.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads that do jobs.
#[derive(Default)]
pub struct Threads(Mutex<State>);

#[derive(Default)]
struct State {
    /// The threads that wait, in the order in which they began to.
    idle: Vec<Thread>,
    /// Jobs of threads that are about to wake, and are not among the idle ones any more.
    jobs: HashMap<ThreadId, Job>,
    is_ended: bool,
}

impl Threads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a job in a thread of its own. Never blocks. Fails where no thread waits and none can be
    /// started; the job is dropped.
    pub fn start(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.state();
        // The one that came last: what it needs is still in the caches, and the others may leave.
        if let Some(thread) = state.idle.pop() {
            state.jobs.insert(thread.id(), job);
            drop(state);
            thread.unpark();
            return Ok(());
        }
        drop(state);
        let threads = Arc::clone(self);
        let thread = thread::Builder::new().name(IDLE.into()).stack_size(STACK_BYTES);
        thread.spawn(move || threads.run(job)).map(drop)
    }

    /// A thread's whole life.
    fn run(&self, mut job: Job) {
        loop {
            job();
            name_this_thread(IDLE);
            let Some(next) = self.wait() else { return };
            job = next;
        }
    }

    /// Waits for a job; `None` means that the thread may end.
    fn wait(&self) -> Option<Job> {
        let this = thread::current();
        let mut state = self.state();
        if state.is_ended || state.idle.len() >= MAX_IDLE {
            return None;
        }
        state.idle.push(this.clone());
        let mut deadline = Instant::now() + IDLE_TIMEOUT;
        loop {
            drop(state);
            thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            state = self.state();
            // First of all: whoever gave it relies on this thread.
            if let Some(job) = state.jobs.remove(&this.id()) {
                return Some(job);
            }
            if state.is_ended {
                return None;
            }
            if Instant::now() >= deadline {
                if state.idle.len() > 1 {
                    state.idle.retain(|idle| idle.id() != this.id());
                    return None;
                }
                deadline = Instant::now() + IDLE_TIMEOUT;
            }
        }
    }

    /// Ends those that wait; the others end when they have done their jobs.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_ended = true;
        for thread in state.idle.drain(..) {
            thread.unpark();
        }
    }
}

/// Names the calling thread for `top -H` and debuggers; the system may keep only a beginning.
pub fn name_this_thread(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
