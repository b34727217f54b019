//! What publishers and the reader share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::connect::Address;
use super::pool::Pool;
use super::stream::Stream;
use crate::event::EventId;

/// What publishers and the reader share.
pub struct Shared {
    /// Where Redis is.
    pub address: Address,
    /// The stream there.
    pub stream: Stream,
    /// The publishers' connections.
    pub pool: Pool,
    /// What is counted.
    pub counters: Counters,
    state: Mutex<State>,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The newest id that was read or published here.
    seen: EventId,
    /// The id that was read last.
    read: EventId,
    /// What was published here and has not been read.
    unread: BTreeSet<EventId>,
    /// Why the reader is not connected.
    problem: Option<String>,
}

/// What is counted since the start.
#[derive(Default)]
pub struct Counters {
    /// How often the reader has connected again.
    pub reconnects: Counter,
    /// How often events were lost.
    pub gaps: Counter,
    /// How often publishing has failed.
    pub publishes_failed: Counter,
    /// Events that were read.
    pub events_read: Counter,
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Nothing has been seen yet.
    pub fn new(address: Address, stream: Stream) -> Shared {
        Shared {
            address,
            stream,
            pool: Pool::default(),
            counters: Counters::default(),
            state: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest id that was read or published here.
    pub fn seen(&self) -> EventId {
        self.state().seen
    }

    /// These were published here.
    pub fn acknowledged(&self, ids: &[EventId]) {
        let mut state = self.state();
        for id in ids {
            state.seen = state.seen.max(*id);
            if *id > state.read {
                state.unread.insert(*id);
            }
        }
    }

    /// The entry with this id is read. Returns the newest one before it that was published here and did not
    /// come: Redis has lost it.
    pub fn was_read(&self, id: EventId) -> Option<EventId> {
        let mut state = self.state();
        state.seen = state.seen.max(id);
        state.read = id;
        let behind = state.unread.split_off(&id.successor());
        let mut before = std::mem::replace(&mut state.unread, behind);
        before.remove(&id);
        before.pop_last()
    }

    /// Tells why the reader is not connected, or that it is.
    pub fn set_problem(&self, problem: Option<String>) {
        self.state().problem = problem;
    }

    /// Why the reader is not connected.
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// Whether it is closed.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Nothing is published any more, and the reader ends.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }
}
