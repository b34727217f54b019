//! The threads that serve connections. A thread does one job at a time, from its first step to its last.
//!
//! A thread that has done its job waits for another one, because starting a thread costs more than a
//! plain request. It waits parked, for `IDLE_TIMEOUT`. Three things wake it: a job, the end of this
//! time, and the shutdown. The number of busy threads has no limit of its own: each connection has one
//! at most.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

/// Stack of a thread. Only pages that were touched count as memory; this is address space.
pub const STACK_BYTES: usize = 256 * 1024;

/// The most threads that wait for a job. With 8, clients that come and go cost a quarter more.
const MAX_IDLE: usize = 256;

/// How long a thread waits for a job. The last one that waits stays, so that single requests which come
/// now and then start no threads.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of a thread that waits.
const IDLE_NAME: &str = "idle";

/// Threads that do jobs.
pub struct Threads<J> {
    run: fn(J),
    state: Mutex<State<J>>,
}

struct State<J> {
    /// The threads that wait. The last one has waited for the shortest time.
    idle: Vec<Thread>,
    /// The jobs of threads that have been woken for them, and are not in `idle` any more.
    jobs: HashMap<ThreadId, J>,
    is_ended: bool,
}

impl<J: Send + 'static> Threads<J> {
    /// No threads yet. They do a job by `run`.
    pub fn new(run: fn(J)) -> Arc<Threads<J>> {
        let state = State { idle: Vec::new(), jobs: HashMap::new(), is_ended: false };
        Arc::new(Threads { run, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do a job. Never blocks.
    ///
    /// # Errors
    /// The job and the reason, where no thread waits and none can be started.
    pub fn start(self: &Arc<Self>, job: J) -> Result<(), (J, io::Error)> {
        let mut state = self.state();
        // The one that has waited for the shortest time: the processor's caches still hold what it needs,
        // and the others may end.
        if let Some(thread) = state.idle.pop() {
            state.jobs.insert(thread.id(), job);
            // Unlocked first, or the thread would wake up only to wait for the lock.
            drop(state);
            thread.unpark();
            return Ok(());
        }
        drop(state);
        // If `spawn` fails it drops its closure, and with it the job; so the job waits outside.
        let job = Arc::new(Mutex::new(Some(job)));
        let (threads, job_of_thread) = (Arc::clone(self), Arc::clone(&job));
        let thread = thread::Builder::new().name(IDLE_NAME.into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let job = take(&job_of_thread);
            drop(job_of_thread);
            if let Some(job) = job {
                threads.run(job);
            }
        });
        match spawned {
            Ok(_) => Ok(()),
            Err(error) => Err((take(&job).expect("no thread has taken it"), error)),
        }
    }

    /// What a thread does from its start to its end.
    fn run(&self, mut job: J) {
        loop {
            (self.run)(job);
            name_this_thread(IDLE_NAME);
            let Some(next) = self.wait() else { return };
            job = next;
        }
    }

    /// Waits for a job. `None` means that the thread is to end.
    // Not inlined: `run` is below every client's frames, so its own must be small.
    #[inline(never)]
    fn wait(&self) -> Option<J> {
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
            // Before everything else: the job has been given to this thread, and no other will do it.
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

    /// Ends the threads that wait. The others end when they have done their jobs.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_ended = true;
        for thread in state.idle.drain(..) {
            thread.unpark();
        }
    }
}

fn take<J>(job: &Mutex<Option<J>>) -> Option<J> {
    job.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Names the calling thread for `top -H` and debuggers. The system may keep only the beginning.
pub fn name_this_thread(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
