//! Connections whose heads are on their way through the pipe, each under the number of its ticket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::door::head::Head;
use crate::door::pending::Pending;

/// The most tickets that wait. tiny_http reads ahead without a limit of its own.
const MAX_TICKETS: usize = 2048;

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
}

impl Tickets {
    /// No tickets. The numbers begin at a random one: nobody else can name them.
    pub fn new() -> Tickets {
        let first = getrandom::u64().unwrap_or(0) >> 1;
        Tickets { next: AtomicU64::new(first), waiting: Mutex::default() }
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
        self.waiting().remove(&number).map(|(_, ticket)| ticket)
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
