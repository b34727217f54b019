//! The store of a server on its own: ids from the clock, events in the window, and nothing else.
//!
//! One lock covers an event's way from its id to the broadcasters' channels, so the order is the same
//! everywhere. A publisher holds it while a broadcaster is behind: others wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::delivery::{Deliver, Delivery};
use super::error::PublishError;
use super::keys::Keys;
use super::window::Window;
use crate::event::id::IdSource;
use crate::event::{Draft, Event, EventId};

/// See the module's documentation.
pub struct Local {
    state: Mutex<State>,
    window: Arc<Window>,
    deliver: Deliver,
}

struct State {
    ids: IdSource,
    keys: Keys,
    is_closed: bool,
}

impl Local {
    /// A store that gives ids from `ids` on.
    pub fn new(ids: IdSource, window: Arc<Window>, deliver: Deliver) -> Local {
        let state = Mutex::new(State { ids, keys: Keys::default(), is_closed: false });
        Local { state, window, deliver }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Store::append`](super::Store::append).
    ///
    /// # Errors
    /// [`PublishError::Stopped`] once the store is closed.
    pub fn append(&self, drafts: Vec<Draft>) -> Result<Vec<EventId>, PublishError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(PublishError::Stopped);
        }
        let (mut ids, mut events) = (Vec::with_capacity(drafts.len()), Vec::new());
        for mut draft in drafts {
            let key = draft.take_key();
            // Also one of a line before in the same body.
            if let Some(known) = key.as_ref().and_then(|key| state.keys.get(key)) {
                ids.push(known);
                continue;
            }
            let id = state.ids.next_id();
            ids.push(id);
            if let Some(key) = &key {
                let now = Instant::now();
                state.keys.insert(key, id, now);
                state.keys.expire(now);
            }
            events.push((Arc::new(Event::new(id, draft)), key));
        }
        for (event, _) in events {
            // First into the window: a client that subscribes in between finds there what it will not get live.
            self.window.push(Arc::clone(&event));
            (self.deliver)(Delivery::Event(event));
        }
        Ok(ids)
    }

    /// Takes no more events. Returns when those before have been delivered.
    pub fn close(&self) {
        self.state().is_closed = true;
    }
}
