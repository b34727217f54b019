//! Deadlines for connections that tiny_http reads without any.
//!
//! tiny_http waits for ever for the end of a header and stores one of any length. This thread
//! looks at every accepted connection that no request has claimed: too old or too talkative, it is
//! shut down. While a handler reads a body, it watches that connection in the same way. It never
//! touches a connection whose request is being served.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Counters;
use super::socket::{self, Sockets};
use crate::http::Answer;

/// The most that a connection may send without a complete request having come of it. tiny_http
/// has no such limit. (Linux tells the count; elsewhere only the deadline protects.)
pub const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// How often the reaper looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Watches unclaimed connections and bodies.
pub struct Reaper {
    sockets: Arc<Sockets>,
    header_timeout: Duration,
    bodies: Mutex<HashMap<u64, Arc<Body>>>,
    next: AtomicU64,
    counters: Arc<Counters>,
}

struct Body {
    stream: TcpStream,
    deadline: Instant,
    most: u64,
    verdict: Mutex<Option<Verdict>>,
}

/// Why a watched body was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not complete in time.
    Late,
    /// More bytes on the wire than the body's limit and a generous frame allow.
    Long,
}

/// A body being read. Dropping it ends the watch.
pub struct Watch<'a> {
    reaper: &'a Reaper,
    number: u64,
    body: Arc<Body>,
}

impl Reaper {
    /// A reaper for the connections in `sockets`. It does nothing until [`Reaper::run`].
    pub fn new(
        sockets: Arc<Sockets>,
        header_timeout: Duration,
        counters: Arc<Counters>,
    ) -> Arc<Reaper> {
        Arc::new(Reaper {
            sockets,
            header_timeout,
            bodies: Mutex::default(),
            next: AtomicU64::new(0),
            counters,
        })
    }

    /// Looks every tenth of a second until `stop` is set. The body of the reaper's own thread.
    pub fn run(&self, stop: &AtomicBool) {
        let mut first_seen: HashMap<u64, Instant> = HashMap::new();
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(INTERVAL);
            self.look(&mut first_seen);
            self.look_at_bodies();
        }
        // Nobody will ever ask for the requests of what is left.
        for connection in self.sockets.unclaimed() {
            self.sockets.reap(&connection, &[], false);
        }
    }

    fn look(&self, first_seen: &mut HashMap<u64, Instant>) {
        let now = Instant::now();
        let unclaimed = self.sockets.unclaimed();
        first_seen.retain(|inode, _| unclaimed.iter().any(|one| one.inode == *inode));
        for connection in &unclaimed {
            let since = *first_seen.entry(connection.inode).or_insert(now);
            let late = now.duration_since(since) >= self.header_timeout;
            let long = connection.received > MAX_HEAD_BYTES;
            let (answer, abort) = match (long, late, connection.received) {
                (true, ..) => (Some(too_long()), true),
                // A browser may open a connection before it has something to ask.
                (false, true, 0) => (None, false),
                (false, true, _) => (Some(too_late()), false),
                (false, false, _) => continue,
            };
            let words = answer.map(|answer| answer.to_bytes(false)).unwrap_or_default();
            if self.sockets.reap(connection, &words, abort) {
                self.counters.reaped.fetch_add(1, Ordering::Relaxed);
                first_seen.remove(&connection.inode);
                log::debug!(
                    "closed a connection without a request after {} bytes",
                    connection.received
                );
            }
        }
    }

    fn look_at_bodies(&self) {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        for body in bodies.values() {
            let verdict = if Instant::now() >= body.deadline {
                Verdict::Late
            } else if socket::received(&body.stream) > body.most {
                Verdict::Long
            } else {
                continue;
            };
            body.verdict.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(verdict);
            // Wakes the reader with an end of stream; the answer can still be written.
            let _ = body.stream.shutdown(Shutdown::Read);
        }
    }

    /// Starts to watch `stream` while a body of at most `limit` bytes is read from it.
    ///
    /// # Errors
    /// Where the descriptor cannot be duplicated.
    pub fn watch(&self, stream: &TcpStream, limit: usize) -> std::io::Result<Watch<'_>> {
        let stream = stream.try_clone()?;
        let most = socket::received(&stream) + limit as u64 + MAX_HEAD_BYTES;
        let deadline = Instant::now() + self.header_timeout;
        let body = Arc::new(Body { stream, deadline, most, verdict: Mutex::new(None) });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.insert(number, Arc::clone(&body));
        Ok(Watch { reaper: self, number, body })
    }
}

fn too_long() -> Answer {
    let message = format!("the header is longer than {MAX_HEAD_BYTES} bytes");
    Answer::error(431, "header_too_large", message)
}

fn too_late() -> Answer {
    Answer::error(408, "timeout", "the request did not arrive in time")
}

impl Watch<'_> {
    /// Whether the reaper has cut the body off, and why.
    pub fn verdict(&self) -> Option<Verdict> {
        *self.body.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut bodies = self.reaper.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.remove(&self.number);
    }
}
