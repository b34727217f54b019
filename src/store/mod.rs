//! Where an event gets its place in the order, and where it is kept for clients that come back.
//!
//! A store gives an event its id, keeps it, and delivers it: to a closure, since the hub stands above. Everything
//! is delivered in the order of ids, one at a time. The hub puts it into the [`Window`] of the newest events, from
//! which all replays are read.

pub mod delivery;
pub mod error;
pub mod journal;
pub mod keys;
pub mod local;
#[cfg(feature = "redis")]
pub mod redis;
pub mod replay;
pub mod status;
pub mod window;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::event::{Draft, EventId};
use delivery::Deliver;
use error::{OpenError, PublishError};
use local::Local;
use status::Status;
use window::Window;

/// See the module's documentation.
pub struct Store {
    backend: Backend,
}

enum Backend {
    Local(Box<Local>),
    #[cfg(feature = "redis")]
    Redis(redis::Redis),
}

impl Store {
    /// Opens the store that is configured, and puts what it has kept into the window. `clock` tells milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        config: &Config,
        clock: fn() -> u64,
        window: &Arc<Window>,
        deliver: Deliver,
    ) -> Result<Store, OpenError> {
        #[cfg(feature = "redis")]
        if let Some(url) = &config.redis {
            let (url, stream) = (url.clone(), config.redis_stream.clone());
            let has_topic_history = !config.topic_history.is_empty();
            let options =
                redis::RedisOptions { url, stream, history: config.history, has_topic_history };
            let redis = redis::Redis::open(&options, window, deliver)?;
            return Ok(Store { backend: Backend::Redis(redis) });
        }
        let local = Local::open(config, clock, window, deliver)?;
        Ok(Store { backend: Backend::Local(Box::new(local)) })
    }

    /// Stores events, all or none, and delivers them. Returns an id for each: where its key was used before, the
    /// id of that time, and it is not stored again.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn append(&self, drafts: Vec<Draft>) -> Result<Vec<EventId>, PublishError> {
        match &self.backend {
            Backend::Local(local) => local.append(drafts),
            #[cfg(feature = "redis")]
            Backend::Redis(redis) => redis.append(drafts),
        }
    }

    /// How long an event may take to get here that a client has seen on another server. `None`: there is no
    /// other.
    pub fn max_lag(&self) -> Option<Duration> {
        match &self.backend {
            Backend::Local(_) => None,
            #[cfg(feature = "redis")]
            Backend::Redis(_) => Some(redis::MAX_LAG),
        }
    }

    /// How the store is doing.
    pub fn status(&self) -> Status {
        match &self.backend {
            Backend::Local(local) => local.status(),
            #[cfg(feature = "redis")]
            Backend::Redis(redis) => redis.status(),
        }
    }

    /// Takes no more events. When it returns, all those before have been delivered.
    pub fn close(&self) {
        match &self.backend {
            Backend::Local(local) => local.close(),
            #[cfg(feature = "redis")]
            Backend::Redis(redis) => redis.close(),
        }
    }
}
