//! Deadlines for connections that tiny_http reads without any.
//!
//! tiny_http waits for ever for the end of a header and stores one of any length. This thread
//! looks at every accepted connection that no request has claimed: too old or too talkative, it is
//! shut down. While a handler reads a body, it watches that connection in the same way. It never
//! touches a connection whose request is being served.
//!
//! It also mends tiny_http's pool. A connection that is reset before its worker looks at it makes
//! the worker panic, and the pool counts on that worker for what it has queued: connections stay
//! there until some later one starts a new worker. So where connections stand still, the reaper
//! connects to the listener itself, and hangs up: each such kick brings one worker to the queue.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Counters;
use super::socket::{self, Sockets, Survey};
use crate::http::Answer;
use crate::memory::Cache;

/// The most that a connection may send without a complete request having come of it. tiny_http
/// has no such limit. (Linux tells the count; elsewhere only the deadline protects.)
pub const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// The most kicks at one look, and for how long one connection is a reason for them: each keeps an
/// idle worker of the pool from ending. A closed one that is still here then is so for ever: its
/// worker waits for itself, as on a request line of HTTP/2.0.
const MAX_KICKS: usize = 64;
const KICK_PATIENCE: Duration = Duration::from_secs(10);

/// How often the reaper looks; and how often while a connection is still here that had not asked
/// anything at the look before: an endless header grows by a hundred kilobytes a millisecond.
const INTERVAL: Duration = Duration::from_millis(50);
const CLOSE_INTERVAL: Duration = Duration::from_millis(10);

/// Looking takes longer the more connections there are: it may take one part in so many of the time.
const REST: u32 = 10;

/// Watches unclaimed connections and bodies.
pub struct Reaper {
    sockets: Arc<Sockets>,
    address: SocketAddr,
    header_timeout: Duration,
    bodies: Mutex<HashMap<u64, Arc<Body>>>,
    seen: Mutex<Seen>,
    next: AtomicU64,
    counters: Arc<Counters>,
}

/// What the latest look has found.
#[derive(Debug, Default)]
struct Seen {
    /// When it began.
    at: Option<Instant>,
    /// When the oldest connection was seen first of which a request may still come.
    oldest: Option<Instant>,
    /// When the pool was kicked last.
    kicked: Option<Instant>,
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
    /// A reaper for the connections in `sockets`, of the listener on `address`. It does nothing
    /// until [`Reaper::run`].
    pub fn new(
        sockets: Arc<Sockets>,
        address: SocketAddr,
        header_timeout: Duration,
        counters: Arc<Counters>,
    ) -> Arc<Reaper> {
        Arc::new(Reaper {
            sockets,
            address: reachable(address),
            header_timeout,
            bodies: Mutex::default(),
            seen: Mutex::default(),
            next: AtomicU64::new(0),
            counters,
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the latest complete look began: it has seen all that were here then.
    pub fn latest_look(&self) -> Option<Instant> {
        self.seen().at
    }

    /// Whether a connection is still here, reset or not, that was seen at `time` or before, and of
    /// which a request may still come.
    pub fn has_older(&self, time: Instant) -> bool {
        self.seen().oldest.is_some_and(|oldest| oldest <= time)
    }

    /// Whether for so long no connection has waited for its request, and the pool was not kicked:
    /// then its workers are where it believes them to be.
    pub fn is_calm(&self, long: Duration) -> bool {
        let is_past = |time: Option<Instant>| time.is_none_or(|time| time.elapsed() >= long);
        let seen = self.seen();
        seen.oldest.is_none_or(|oldest| oldest.elapsed() < long) && is_past(seen.kicked)
    }

    /// Looks at least twenty times a second until `stop` is set. The body of the reaper's own thread.
    pub fn run(&self, stop: &AtomicBool) {
        let mut first_seen: HashMap<u64, Instant> = HashMap::new();
        let mut interval = INTERVAL;
        let mut cache = Cache::new();
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(interval);
            let (at, start) = (Instant::now(), socket::cpu_time());
            let survey = self.sockets.survey();
            // In a crowd of good clients somebody is always on the way, but never for long.
            let closely = survey.inodes().any(|inode| first_seen.contains_key(&inode));
            interval = match closely {
                true => ((socket::cpu_time() - start) * REST).clamp(CLOSE_INTERVAL, INTERVAL),
                false => INTERVAL,
            };
            let kicked = self.kick(&survey, &first_seen);
            self.look(&survey, &mut first_seen, at);
            let stuck = self.count_stuck(&survey, &first_seen);
            let alive = first_seen.iter().filter(|(inode, _)| !stuck.contains(inode));
            let oldest = alive.map(|(_, since)| *since).min();
            {
                let mut seen = self.seen();
                let kicked = kicked.then_some(at).or(seen.kicked);
                *seen = Seen { at: Some(at), oldest, kicked };
            }
            self.look_at_bodies();
            cache.tend();
        }
        // Nobody will ever ask for the requests of what is left.
        for connection in self.sockets.survey().unclaimed {
            self.sockets.reap(&connection, &[], false);
        }
    }

    /// Wakes tiny_http's pool for connections that it has forgotten: those that were reset, or
    /// have sent something that nobody reads, and did so at the last look already. Returns whether
    /// there were any.
    fn kick(&self, survey: &Survey, first_seen: &HashMap<u64, Instant>) -> bool {
        let waiting = survey.unclaimed.iter().filter(|one| one.unread > 0).map(|one| one.inode);
        let forgotten = survey.dead.iter().copied().chain(waiting);
        let due = |inode: &u64| {
            first_seen.get(inode).is_some_and(|since| since.elapsed() < KICK_PATIENCE)
        };
        let kicks = forgotten.filter(due).take(MAX_KICKS).count();
        (0..kicks).for_each(|_| self.knock());
        self.counters.kicks.fetch_add(kicks as u64, Ordering::Relaxed);
        kicks > 0
    }

    /// Finds connections whose workers will never come back, counts them, and says so in the log at
    /// the first and whenever there are twice as many.
    fn count_stuck(&self, survey: &Survey, first_seen: &HashMap<u64, Instant>) -> HashSet<u64> {
        let is_stuck =
            |inode: &u64| first_seen.get(inode).is_some_and(|at| at.elapsed() >= KICK_PATIENCE);
        let stuck: HashSet<u64> = survey.dead.iter().copied().filter(is_stuck).collect();
        let now = stuck.len() as u64;
        let before = self.counters.stuck.swap(now, Ordering::Relaxed);
        if now > before && now.checked_ilog2() > before.checked_ilog2() {
            log::warn!(
                "{now} closed connections each keep a thread and two descriptors until the server \
                 is restarted: their request lines were of HTTP/2 or HTTP/3"
            );
        }
        stuck
    }

    /// Connects to the listener and hangs up, which wakes its accept loop.
    pub fn knock(&self) {
        let _ = TcpStream::connect_timeout(&self.address, INTERVAL);
    }

    fn look(&self, survey: &Survey, first_seen: &mut HashMap<u64, Instant>, now: Instant) {
        let here: HashSet<u64> = survey.inodes().collect();
        first_seen.retain(|inode, _| here.contains(inode));
        for inode in here {
            first_seen.entry(inode).or_insert(now);
        }
        for connection in &survey.unclaimed {
            let since = first_seen[&connection.inode];
            let late = now.duration_since(since) >= self.header_timeout;
            let long = connection.head() > MAX_HEAD_BYTES;
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

/// An address that a listener on `address` can be reached at from here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
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
