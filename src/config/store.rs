//! Where events are kept, and how many.

use std::path::Path;

use super::checks::built_in;
use super::error::ConfigError;
use super::{Config, JournalSync};
use crate::event::draft::check_name;

/// The setters of the store, which are like the others.
///
/// # Errors
/// See [`ConfigError`].
impl Config {
    /// How many events are kept for clients that come back with the id of the last one they saw: 1000
    /// by default. Refuses nothing.
    pub fn set_history(&mut self, events: usize) -> Result<(), ConfigError> {
        self.history = events;
        Ok(())
    }

    /// The folder in which events are kept over a restart; it is made if it does not exist. By default they are
    /// kept in memory alone.
    pub fn set_journal(&mut self, folder: impl AsRef<Path>) -> Result<(), ConfigError> {
        let folder = folder.as_ref();
        if folder.as_os_str().is_empty() {
            return Err(ConfigError::new("journal", "name a folder"));
        }
        self.check_store("journal", self.redis.is_none())?;
        self.journal = Some(folder.to_owned());
        Ok(())
    }

    /// When an event in the journal is on the disk: [`JournalSync::Interval`] by default. Refuses nothing.
    pub fn set_journal_sync(&mut self, sync: JournalSync) -> Result<(), ConfigError> {
        self.journal_sync = sync;
        Ok(())
    }

    /// How many events each topic keeps that `pattern` stands for (a topic's name, `prefix/*`, or `*` for each),
    /// apart from [`Config::set_history`]: a gauge's last value is not lost because others publish more. Of several
    /// patterns the longest counts, of the same one the last.
    pub fn add_topic_history(&mut self, pattern: &str, events: usize) -> Result<(), ConfigError> {
        check_name("topic", pattern)
            .map_err(|error| ConfigError::new("topic_history", error.to_string()))?;
        self.topic_history.retain(|(known, _)| known != pattern);
        self.topic_history.push((pattern.to_owned(), events));
        Ok(())
    }

    /// The Redis server through which several servers share their events and history, as in
    /// `redis://:password@example.org:6379/0`; `rediss://` with the cargo feature `redis-tls`. It is read when
    /// the server starts. By default a server is on its own.
    pub fn set_redis(&mut self, url: &str) -> Result<(), ConfigError> {
        built_in("redis", "redis", cfg!(feature = "redis"))?;
        self.check_store("redis", self.journal.is_none())?;
        self.redis = Some(url.to_owned());
        Ok(())
    }

    /// The key of the Redis stream, `threadcast` by default. Servers that use the same one share everything.
    pub fn set_redis_stream(&mut self, key: &str) -> Result<(), ConfigError> {
        built_in("redis_stream", "redis", cfg!(feature = "redis"))?;
        check_name("redis_stream", key)
            .map_err(|error| ConfigError::new("redis_stream", error.to_string()))?;
        self.redis_stream = key.to_owned();
        Ok(())
    }

    /// Events have one place where they are kept.
    fn check_store(&self, setting: &'static str, is_only: bool) -> Result<(), ConfigError> {
        let problem = "a journal and Redis both keep the events; choose one of them";
        if is_only { Ok(()) } else { Err(ConfigError::new(setting, problem)) }
    }
}
