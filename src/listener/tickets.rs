//! Connections whose heads are on their way through the pipe, each under the number of its ticket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::door::head::Head;
use crate::door::pending::Pending;

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

/// The tickets, the oldest first.
pub struct Tickets {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, (Instant, Box<Ticket>)>>,
    /// Signalled when there are no longer [`MANY_TICKETS`].
    fewer: Condvar,
}

impl Tickets {
    /// No tickets. The numbers begin at a random one: nobody else can name them.
    pub fn new() -> Tickets {
        let first = getrandom::u64().unwrap_or(0) >> 1;
        Tickets { next: AtomicU64::new(first), waiting: Mutex::default(), fewer: Condvar::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, Box<Ticket>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that is not used again.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a ticket under `number` until it is taken.
    ///
    /// # Errors
    /// The ticket, where [`MAX_TICKETS`] wait.
    pub fn keep(&self, number: u64, ticket: Box<Ticket>) -> Result<(), Box<Ticket>> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_TICKETS {
            return Err(ticket);
        }
        waiting.insert(number, (Instant::now(), ticket));
        Ok(())
    }

    /// Takes the ticket of this number out.
    pub fn take(&self, number: u64) -> Option<Box<Ticket>> {
        let mut waiting = self.waiting();
        let (_, ticket) = waiting.remove(&number)?;
        let is_change = waiting.len() + 1 == MANY_TICKETS;
        drop(waiting);
        if is_change {
            self.fewer.notify_one();
        }
        Some(ticket)
    }

    /// Waits while there are [`MANY_TICKETS`], for [`MAX_PAUSE`] at most.
    pub fn pause(&self) {
        let waiting = self.waiting();
        if waiting.len() >= MANY_TICKETS {
            let is_busy = |waiting: &mut BTreeMap<_, _>| waiting.len() >= MANY_TICKETS;
            drop(self.fewer.wait_timeout_while(waiting, MAX_PAUSE, is_busy));
        }
    }

    /// Takes all of them out.
    pub fn take_all(&self) -> Vec<Ticket> {
        let all = std::mem::take(&mut *self.waiting());
        all.into_values().map(|(_, ticket)| *ticket).collect()
    }

    /// How long the oldest one has been waiting.
    pub fn oldest(&self) -> Option<Duration> {
        self.waiting().first_key_value().map(|(_, (since, _))| since.elapsed())
    }
}
