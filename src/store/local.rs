//! The store of a server on its own: ids from the clock, and events in the journal if there is one.
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
    has_journal: bool,
    /// What the journal needs to keep.
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
    /// Opens the journal, if one is configured, and puts what it holds into the window. `clock` tells
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// [`OpenError::Journal`].
    pub fn open(
        config: &Config,
        clock: fn() -> u64,
        window: &Arc<Window>,
        deliver: Deliver,
    ) -> Result<Local, OpenError> {
        let mut keys = Keys::default();
        let (ids, journal) = match &config.journal {
            None => {
                let ids = IdSource::new(clock);
                window.gap(ids.last());
                (ids, None)
            }
            Some(folder) => {
                let (now, millis) = (Instant::now(), clock());
                let mut take = |entry: Entry<'_>| match entry {
                    Entry::Gap(id) => window.gap(id),
                    Entry::Event(event, key) => {
                        if let Some(key) = key {
                            let age = Duration::from_millis(millis.saturating_sub(event.id.millis));
                            // Where the clock does not go back that far: the safe side.
                            keys.insert(key, event.id, now.checked_sub(age).unwrap_or(now));
                            keys.expire(now);
                        }
                        window.push(event);
                    }
                };
                let (journal, last) = Journal::open(folder, config.journal_sync, clock, &mut take)?;
                (IdSource::after(last, clock), Some(journal))
            }
        };
        let has_journal = journal.is_some();
        let state = Mutex::new(State { ids, keys, journal, problem: None, is_closed: false });
        Ok(Local { state, has_journal, window: Arc::clone(window), deliver })
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
            (self.deliver)(Delivery::Event(event));
        }
        Ok(ids)
    }

    /// See [`Store::status`](super::Store::status).
    pub fn status(&self) -> Status {
        let memory = Status { name: "memory", problem: None, counters: Vec::new() };
        // A publisher may hold the lock for as long as a broadcaster is behind: a health check must not wait.
        if !self.has_journal {
            return memory;
        }
        let state = self.state();
        state.journal.as_ref().map_or(memory, |journal| Status {
            name: "journal",
            problem: state.problem.clone().or_else(|| journal.problem()),
            counters: vec![("journal_bytes", journal.bytes())],
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::last_seen::LastSeen;
    use crate::event::topics::Topics;
    use crate::store::replay::Replay;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A store on the journal in this folder, and its window.
    fn open(folder: &std::path::Path, clock: fn() -> u64) -> (Local, Arc<Window>) {
        let mut config = Config::default();
        config.set_journal(folder).unwrap();
        let window = Arc::new(Window::new(10, Vec::new()));
        let to = Arc::clone(&window);
        let deliver = Arc::new(move |delivery| to.take_in(&delivery));
        let local = Local::open(&config, clock, &window, deliver).unwrap();
        (local, window)
    }

    #[test]
    fn a_journal_brings_back_events_and_keys_and_ids_rise_whatever_the_clock_says() {
        static CLOCK: AtomicU64 = AtomicU64::new(10_000_000);
        let clock = || CLOCK.load(Ordering::Relaxed);
        let name = format!("threadcast-local-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let draft = |data| Draft::new("topic", None, data).unwrap();
        let with_key = |key| draft("x").with_key(key).unwrap();

        let (local, _) = open(&folder, clock);
        let first = local.append(vec![with_key("old"), draft("one")]).unwrap();
        CLOCK.fetch_add(200_000, Ordering::Relaxed);
        let young = local.append(vec![with_key("young")]).unwrap();
        local.close();
        assert_eq!(local.append(vec![draft("late")]), Err(PublishError::Stopped));

        // Six minutes after the old key was used, not three after the young one.
        CLOCK.fetch_add(160_000, Ordering::Relaxed);
        let (local, window) = open(&folder, clock);
        let mut replay =
            Replay::new(&window, LastSeen::Event(first[0]), &Topics::All, Topics::named([]));
        let ids: Vec<_> = replay.next_batch().unwrap().iter().map(|event| event.id).collect();
        assert_eq!(ids, [first[1], young[0]]);
        assert_eq!(local.append(vec![with_key("young")]).unwrap(), young);
        assert!(local.append(vec![with_key("old")]).unwrap() > young);
        assert_eq!(local.status().name, "journal");
        let newest = local.append(vec![draft("two")]).unwrap();
        local.close();

        CLOCK.store(5, Ordering::Relaxed);
        let (local, window) = open(&folder, clock);
        assert_eq!(window.newest(), newest[0]);
        let next = local.append(vec![draft("three")]).unwrap();
        assert!(next > newest, "{next:?} after {newest:?}");
        local.close();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
