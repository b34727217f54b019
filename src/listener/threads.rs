//! The threads that serve connections, each one alone from the first byte of its job to the last.
//!
//! A thread that has done its job is used again: starting one costs more than a plain request
//! does. It waits, parked, for five seconds; a job or the end of that time wakes it. How many
//! are busy is bounded by the connections: each has one at most.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Stack of a thread. Only touched pages count as memory; this is address space.
pub const STACK_BYTES: usize = 256 * 1024;

/// The most threads that wait for a job. With 8, clients that come and go cost a quarter more.
const MAX_IDLE: usize = 256;

/// How long one waits. The last one always does, so that a lone request starts no thread.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of a thread that waits.
const IDLE: &str = "idle";

/// Threads that do jobs of one kind.
pub struct Threads<J> {
    work: Box<dyn Fn(J) + Send + Sync>,
    state: Mutex<State<J>>,
}

struct State<J> {
    idle: Vec<Idle<J>>,
    is_ended: bool,
}

/// Where a waiting thread finds its next job; filled under the lock of the state only. The job is
/// boxed: a copy on the thread's stack would stay there as long as its client does.
type Slot<J> = Arc<Mutex<Option<Box<J>>>>;

struct Idle<J> {
    thread: Thread,
    slot: Slot<J>,
}

impl<J: Send + 'static> Threads<J> {
    /// No threads yet. Each job is given to `work`, in its thread.
    pub fn new(work: Box<dyn Fn(J) + Send + Sync>) -> Arc<Threads<J>> {
        Arc::new(Threads { work, state: Mutex::new(State { idle: Vec::new(), is_ended: false }) })
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a job in a thread of its own. Never blocks.
    ///
    /// # Errors
    /// The job, where no thread waits and none can be started.
    pub fn start(self: &Arc<Self>, job: J) -> Result<(), J> {
        let mut state = self.state();
        // The one that came last: what it needs is still in the caches, and the others may leave.
        if let Some(idle) = state.idle.pop() {
            *lock(&idle.slot) = Some(Box::new(job));
            drop(state);
            idle.thread.unpark();
            return Ok(());
        }
        drop(state);
        let slot = Arc::new(Mutex::new(Some(Box::new(job))));
        match self.start_thread(Arc::clone(&slot)) {
            Ok(()) => Ok(()),
            Err(error) => {
                log::debug!("no thread for a connection: {error}");
                let job = lock(&slot).take();
                job.map_or(Ok(()), |job| Err(*job))
            }
        }
    }

    fn start_thread(self: &Arc<Self>, slot: Slot<J>) -> io::Result<()> {
        let threads = Arc::clone(self);
        let thread = thread::Builder::new().name(IDLE.into()).stack_size(STACK_BYTES);
        thread.spawn(move || threads.run(&slot)).map(drop)
    }

    /// A thread's whole life.
    fn run(&self, slot: &Slot<J>) {
        loop {
            let job = lock(slot).take();
            if let Some(job) = job {
                (self.work)(*job);
                name_this_thread(IDLE);
            } else if !self.wait(slot) {
                return;
            }
        }
    }

    /// Waits for a job; returns whether one came.
    fn wait(&self, slot: &Slot<J>) -> bool {
        {
            let mut state = self.state();
            if state.is_ended || state.idle.len() >= MAX_IDLE {
                return false;
            }
            state.idle.push(Idle { thread: thread::current(), slot: Arc::clone(slot) });
        }
        let mut deadline = Instant::now() + IDLE_TIMEOUT;
        loop {
            thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            let mut state = self.state();
            if lock(slot).is_some() {
                return true;
            }
            if state.is_ended {
                return false;
            }
            if Instant::now() >= deadline {
                if state.idle.len() > 1 {
                    state.idle.retain(|idle| !Arc::ptr_eq(&idle.slot, slot));
                    return false;
                }
                deadline = Instant::now() + IDLE_TIMEOUT;
            }
        }
    }

    /// Ends those that wait; the others end when they have done their jobs.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_ended = true;
        for idle in state.idle.drain(..) {
            idle.thread.unpark();
        }
    }
}

fn lock<J>(slot: &Slot<J>) -> MutexGuard<'_, Option<Box<J>>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
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
