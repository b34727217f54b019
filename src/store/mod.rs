//! Where an event gets its place in the order, and where it is kept for clients that come back.
//!
//! A store gives an event its id, pushes it to the [`Window`] of the newest events, from which all replays are
//! read, and delivers it: to a closure, since the hub stands above. Everything is delivered in the order of
//! ids, one at a time.

pub mod delivery;
pub mod error;
pub mod keys;
pub mod local;
pub mod replay;
pub mod window;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::event::id::IdSource;
use crate::event::{Draft, EventId};
use delivery::Deliver;
use error::{OpenError, PublishError};
use local::Local;
use window::{TopicLimit, Window};

/// How a store is doing.
#[derive(Debug)]
pub struct Status {
    /// Which store it is.
    pub name: &'static str,
    /// What is wrong with it; then nothing can be published.
    pub problem: Option<String>,
    /// What it counts, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// See the module's documentation.
pub struct Store {
    window: Arc<Window>,
    backend: Backend,
}

enum Backend {
    Local(Local),
}

impl Store {
    /// Opens the store that is configured. `clock` tells milliseconds since 1970.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: &Config, clock: fn() -> u64, deliver: Deliver) -> Result<Store, OpenError> {
        let ids = IdSource::new(clock);
        let limits = config.topic_history.iter().cloned();
        let limits = limits.map(|(pattern, events)| TopicLimit { pattern, events }).collect();
        let window = Arc::new(Window::new(config.history, limits, ids.last()));
        let backend = Backend::Local(Local::new(ids, Arc::clone(&window), deliver));
        Ok(Store { window, backend })
    }

    /// Stores events, all or none, and delivers them. Returns an id for each: where its key was used before, the
    /// id of that time, and it is not stored again.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn append(&self, drafts: Vec<Draft>) -> Result<Vec<EventId>, PublishError> {
        match &self.backend {
            Backend::Local(local) => local.append(drafts),
        }
    }

    /// The newest events.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// How long an event may take to get here that a client has seen on another server. `None`: there is no
    /// other.
    pub fn max_lag(&self) -> Option<Duration> {
        match &self.backend {
            Backend::Local(_) => None,
        }
    }

    /// How the store is doing.
    pub fn status(&self) -> Status {
        match &self.backend {
            Backend::Local(_) => Status { name: "memory", problem: None, counters: Vec::new() },
        }
    }

    /// Takes no more events. When it returns, all those before have been delivered.
    pub fn close(&self) {
        match &self.backend {
            Backend::Local(local) => local.close(),
        }
    }
}
