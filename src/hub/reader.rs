//! A subscription inside the process: an iterator over events, in the thread of whoever reads it.
//!
//! It has no queue. It reads the history, like a client that comes back after each event, so it is bounded by
//! the history, and what is lost there is announced as it is to clients: by an event `gap`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Hub;
use crate::event::topics::Topics;
use crate::event::{Event, EventId};

/// The events on some topics, from now on. [`Iterator::next`] waits for the next one; it returns `None` when
/// the server shuts down. A reader that falls behind by more than the history gets an event of the name `gap`,
/// from whose id on nothing is missing.
pub struct Events {
    hub: Arc<Hub>,
    topics: Topics,
    last: EventId,
    ready: VecDeque<Arc<Event>>,
}

impl Events {
    /// Those on `topics` that are published from now on.
    pub(crate) fn new(hub: &Arc<Hub>, topics: Topics) -> Events {
        Events { hub: Arc::clone(hub), topics, last: hub.newest(), ready: VecDeque::new() }
    }
}

impl Iterator for Events {
    type Item = Arc<Event>;

    fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let (mut replay, newest) = self.hub.wait_after(self.last, &self.topics)?;
            self.last = newest;
            self.ready.extend(std::iter::from_fn(|| replay.next_batch()).flatten());
        }
    }
}
