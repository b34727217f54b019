//! Connections whose heads are on their way through the pipe, each under the number of its ticket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pipe;
use crate::door::pending::Pending;
use crate::http::head::Head;

/// The most tickets that wait. tiny_http reads ahead without a limit of its own.
const MAX_TICKETS: usize = 2048;

/// How many tickets keep the accept thread waiting, and for how long at most: a crowd that comes faster
/// than it is served stays in the kernel's queue. No client can keep a ticket waiting.
const MANY_TICKETS: usize = 128;
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// A connection, and the head that was read from it. Boxed wherever it goes: what is copied onto the
/// stack of a client's thread stays resident as long as the client.
pub struct Ticket {
    pub pending: Pending,
    pub head: Head,
}

/// The tickets that wait, the oldest first.
type Waiting = BTreeMap<u64, (Instant, Box<Ticket>)>;

pub struct Tickets {
    next: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Signalled when there are no longer [`MANY_TICKETS`].
    fewer: Condvar,
}

impl Tickets {
    /// No tickets. The numbers begin at a random one: nobody else can name them.
    pub fn new() -> Tickets {
        let first = getrandom::u64().unwrap_or(0) >> 1;
        Tickets { next: AtomicU64::new(first), waiting: Mutex::default(), fewer: Condvar::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a ticket until it is taken. Returns its number, which is not used again, and its head as
    /// the pipe takes it; the ticket itself where [`MAX_TICKETS`] wait.
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

    /// Takes the ticket of this number out.
    pub fn take(&self, number: u64) -> Option<Box<Ticket>> {
        let mut waiting = self.waiting();
        let (_, ticket) = waiting.remove(&number)?;
        if waiting.len() + 1 == MANY_TICKETS {
            self.fewer.notify_one();
        }
        Some(ticket)
    }

    /// Waits while there are [`MANY_TICKETS`], for [`MAX_PAUSE`] at most.
    pub fn pause(&self) {
        let are_many = |waiting: &mut Waiting| waiting.len() >= MANY_TICKETS;
        drop(self.fewer.wait_timeout_while(self.waiting(), MAX_PAUSE, are_many));
    }

    /// Takes all of them out.
    pub fn take_all(&self) -> impl Iterator<Item = Box<Ticket>> {
        std::mem::take(&mut *self.waiting()).into_values().map(|(_, ticket)| ticket)
    }

    /// How long the oldest one has been waiting.
    pub fn oldest(&self) -> Option<Duration> {
        self.waiting().first_key_value().map(|(_, (since, _))| since.elapsed())
    }
}
