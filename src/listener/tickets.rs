//! Connections whose heads are on their way through the pipe, each under the number of its ticket.
//!
//! The thread that submits a head adds its ticket; the listener thread takes it out. Only the accept
//! thread waits here, in [`Tickets::pause`], until fewer tickets wait, or [`MAX_PAUSE`] is over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pipe;
use crate::door::pending::Pending;
use crate::http::head::Head;

/// The most tickets that may wait. tiny_http reads ahead without a limit of its own.
const MAX_TICKETS: usize = 2048;

/// The accept thread pauses while this many tickets wait, for at most this long. Clients that come faster
/// than they are served stay in the kernel's listen queue. A client cannot delay its own ticket.
const MANY_TICKETS: usize = 128;
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// A connection, and the head that was read from it. It is passed on in a box: what is copied onto the
/// stack of a client's thread stays resident for as long as the client is connected.
pub struct Ticket {
    pub pending: Pending,
    pub head: Head,
}

/// The tickets that wait, the oldest first.
type Waiting = BTreeMap<u64, (Instant, Box<Ticket>)>;

pub struct Tickets {
    next: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Signalled when fewer than [`MANY_TICKETS`] wait.
    fewer: Condvar,
}

impl Tickets {
    /// No tickets. The numbers begin at a random one, so that nobody else can guess them.
    pub fn new() -> Tickets {
        let first = getrandom::u64().unwrap_or(0) >> 1;
        Tickets { next: AtomicU64::new(first), waiting: Mutex::default(), fewer: Condvar::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a ticket until it is taken. Returns its number, which is never used again, and its head in
    /// the form for the pipe.
    ///
    /// # Errors
    /// The ticket itself, where [`MAX_TICKETS`] wait.
    pub fn keep(&self, ticket: Box<Ticket>) -> Result<(u64, String), Box<Ticket>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let line = pipe::encode(&ticket.head, number);
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_TICKETS {
            return Err(ticket);
        }
        waiting.insert(number, (Instant::now(), ticket));
        Ok((number, line))
    }

    /// Takes the ticket of this number out, if it is still here.
    pub fn take(&self, number: u64) -> Option<Box<Ticket>> {
        let mut waiting = self.waiting();
        let (_, ticket) = waiting.remove(&number)?;
        // At the step across the limit only, not for each ticket.
        if waiting.len() + 1 == MANY_TICKETS {
            self.fewer.notify_one();
        }
        Some(ticket)
    }

    /// Waits while [`MANY_TICKETS`] wait, for at most [`MAX_PAUSE`].
    pub fn pause(&self) {
        let are_many = |waiting: &mut Waiting| waiting.len() >= MANY_TICKETS;
        drop(self.fewer.wait_timeout_while(self.waiting(), MAX_PAUSE, are_many));
    }

    /// Takes all tickets out.
    pub fn take_all(&self) -> impl Iterator<Item = Box<Ticket>> {
        std::mem::take(&mut *self.waiting()).into_values().map(|(_, ticket)| ticket)
    }

    /// How long the oldest ticket has been waiting.
    pub fn oldest(&self) -> Option<Duration> {
        self.waiting().first_key_value().map(|(_, (since, _))| since.elapsed())
    }
}
