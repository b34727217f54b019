//! The store of a server on its own: ids from the clock, events in the window, and in the journal if there is
//! one.
//!
//! One lock covers an event's way from its id to the broadcasters' channels, so the order is the same
//! everywhere. A publisher holds it while a broadcaster is behind: others wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::delivery::{Deliver, Delivery};
use super::error::{OpenError, PublishError};
use super::journal::Journal;
use super::journal::frame::Record;
use super::journal::recovery::Entry;
use super::keys::Keys;
use super::status::Status;
use super::window::Window;
use crate::config::Config;
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
    journal: Option<Journal>,
    /// Why the last event was not stored, if it was not.
    problem: Option<String>,
    is_closed: bool,
}

impl Local {
    /// Opens the journal, if one is configured, and fills the window from it. `clock` tells milliseconds since
    /// 1970.
    ///
    /// # Errors
    /// [`OpenError::Journal`].
    pub fn open(config: &Config, clock: fn() -> u64, deliver: Deliver) -> Result<Local, OpenError> {
        let mut ids = IdSource::new(clock);
        let mut keys = Keys::default();
        let window = Window::new(config.history, Vec::new(), ids.last());
        let mut journal = None;
        if let Some(folder) = &config.journal {
            let (now, millis) = (Instant::now(), clock());
            let window = &window;
            let (opened, last) = Journal::open(folder, config.journal_sync, clock, &mut |entry| {
                let (event, key) = match entry {
                    Entry::Gap(id) => return window.gap(id),
                    Entry::Event(event, key) => (event, key),
                };
                if let Some(key) = key {
                    let age = Duration::from_millis(millis.saturating_sub(event.id.millis));
                    // Where the clock that counts is younger than the key: the safe side.
                    keys.insert(key, event.id, now.checked_sub(age).unwrap_or(now));
                    keys.expire(now);
                }
                window.push(event);
            })?;
            ids = IdSource::after(last, clock);
            journal = Some(opened);
        }
        let state = State { ids, keys, journal, problem: None, is_closed: false };
        Ok(Local { state: Mutex::new(state), window: Arc::new(window), deliver })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Store::append`](super::Store::append).
    ///
    /// # Errors
    /// [`PublishError::Stopped`] once the store is closed; what the journal says.
    pub fn append(&self, drafts: Vec<Draft>) -> Result<Vec<EventId>, PublishError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(PublishError::Stopped);
        }
        // Each draft gets its id, or that of an earlier event with its key.
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
        // The journal before anybody sees them. Ids that are not stored are not given again.
        if let Err(error) = state.write(&events, &self.window) {
            for _ in events.iter().filter(|(_, key)| key.is_some()) {
                state.keys.take_back();
            }
            return Err(error);
        }
        for (event, _) in events {
            // First into the window: a client that subscribes in between finds there what it will not get live.
            self.window.push(Arc::clone(&event));
            (self.deliver)(Delivery::Event(event));
        }
        Ok(ids)
    }

    /// The newest events.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// See [`Store::status`](super::Store::status).
    pub fn status(&self) -> Status {
        let state = self.state();
        match &state.journal {
            None => Status { name: "memory", problem: None, counters: Vec::new() },
            Some(journal) => Status {
                name: "journal",
                problem: state.problem.clone().or_else(|| journal.problem()),
                counters: vec![("journal_bytes", journal.bytes())],
            },
        }
    }

    /// Takes no more events. Returns when those before have been delivered, and are on the disk.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        if let Some(journal) = &mut state.journal {
            journal.close();
        }
    }
}

impl State {
    /// Writes events to the journal, which needs to keep what is in the window.
    fn write(
        &mut self,
        events: &[(Arc<Event>, Option<Box<str>>)],
        window: &Window,
    ) -> Result<(), PublishError> {
        let Some(journal) = self.journal.as_mut().filter(|_| !events.is_empty()) else {
            return Ok(());
        };
        let records: Vec<_> =
            events.iter().map(|(event, key)| Record { event, key: key.as_deref() }).collect();
        let result = journal.append(&records, window.oldest());
        let problem = result.as_ref().err().map(ToString::to_string);
        // Once, not for every event.
        match (&self.problem, &problem) {
            (None, Some(problem)) => log::error!("journal: {problem}"),
            (Some(_), None) => log::info!("journal: events are stored again"),
            _ => {}
        }
        self.problem = problem;
        result
    }
}
