//! The threads that serve requests, each one alone from its first byte to its last.
//!
//! A thread is cheap to keep and dear to make: that was half of what a plain request cost. So one that
//! is done waits a while for another request, and one more is made in advance, while nobody waits
//! for it. How many are busy has no limit but the clients': an event stream keeps its thread.

use std::ffi::CString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::connection::{Connection, Unanswered};
use super::{Handler, STACK};

/// The most threads that wait for a request.
const MOST_IDLE: usize = 8;

/// How long one waits. The last one always does.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a thread is called that waits.
const IDLE: &str = "idle";

/// See the module's documentation.
pub struct Threads {
    handler: Box<Handler>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    ended: bool,
}

/// In a box: each copy of a connection on a thread's stack would stay there as long as its client.
type Hand = Mutex<Option<Box<Connection>>>;

/// A thread that waits, and where it finds its next connection. Filled under the lock only.
struct Idle {
    thread: Thread,
    hand: Arc<Hand>,
}

impl Threads {
    /// None yet. `handler` is called with each connection, in its thread.
    pub fn new(handler: Box<Handler>) -> Arc<Threads> {
        Arc::new(Threads { handler, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection in a thread of its own, without waiting for anything. Where none waits and
    /// none can be started, the client is told so.
    pub fn serve(self: &Arc<Self>, connection: Connection) {
        let mut state = self.state();
        // The one that came last: what it needs is still in the caches, and the others may leave.
        if let Some(idle) = state.idle.pop() {
            *lock(&idle.hand) = Some(Box::new(connection));
            drop(state);
            return idle.thread.unpark();
        }
        drop(state);
        let hand = Arc::new(Mutex::new(Some(Box::new(connection))));
        if let Err(error) = self.start(Arc::clone(&hand)) {
            log::debug!("no thread for a request: {error}");
            if let Some(connection) = lock(&hand).take() {
                connection.refuse(Unanswered::NoThread);
            }
        }
    }

    /// Makes the thread for the next request, where none waits. Where that fails, the next request
    /// will tell.
    pub fn prepare(self: &Arc<Self>) {
        if self.state().idle.is_empty() {
            let _ = self.start(Arc::default());
        }
    }

    fn start(self: &Arc<Self>, hand: Arc<Hand>) -> io::Result<()> {
        let threads = Arc::clone(self);
        let thread = thread::Builder::new().name(IDLE.into()).stack_size(STACK);
        thread.spawn(move || threads.work(&hand)).map(drop)
    }

    /// A thread's whole life.
    fn work(&self, hand: &Arc<Hand>) {
        loop {
            let connection = lock(hand).take();
            if let Some(connection) = connection {
                call_this_thread(&connection.thread_name());
                (self.handler)(*connection);
                call_this_thread(IDLE);
            } else if !self.wait(hand) {
                return;
            }
        }
    }

    /// Waits for a connection in `hand`; returns whether one came.
    fn wait(&self, hand: &Arc<Hand>) -> bool {
        {
            let mut state = self.state();
            if state.ended || state.idle.len() >= MOST_IDLE {
                return false;
            }
            state.idle.push(Idle { thread: thread::current(), hand: Arc::clone(hand) });
        }
        let mut until = Instant::now() + PATIENCE;
        loop {
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
            let mut state = self.state();
            if lock(hand).is_some() {
                return true;
            }
            if !state.idle.iter().any(|idle| Arc::ptr_eq(&idle.hand, hand)) {
                return false;
            }
            if Instant::now() >= until {
                if state.idle.len() > 1 {
                    state.idle.retain(|idle| !Arc::ptr_eq(&idle.hand, hand));
                    return false;
                }
                until = Instant::now() + PATIENCE;
            }
        }
    }

    /// Ends those that wait; the others end when they are done.
    pub fn end(&self) {
        self.state().ended = true;
        self.renew();
    }

    /// Ends those that wait, for others to take their place: what a thread's requests had stays in
    /// part with its allocator's cache.
    pub fn renew(&self) {
        for idle in self.state().idle.drain(..) {
            idle.thread.unpark();
        }
    }
}

fn lock(hand: &Hand) -> MutexGuard<'_, Option<Box<Connection>>> {
    hand.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the calling thread for `top -H` and debuggers; the system may keep only a beginning.
fn call_this_thread(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
