//! The Redis store: several servers share one history, a Redis stream. The ids of events are those of the
//! stream's entries.
//!
//! **Publishing** runs a script on Redis (`publish.lua`), in the publisher's thread, on a connection of the
//! [pool]. The event does not come from there to this server's clients, but as all others do: the **reader**,
//! a thread named `redis` with a connection of its own, waits for new entries (`XREAD BLOCK`) and delivers
//! them. So the order is the same on every server.
//!
//! Entries have the fields `t` (topic), `e` (event name, if any), `d` (data) and `p`, the id of the entry before:
//! see [`Chain`](entry::Chain). A marker has `reset` instead of data. It is written where the stream ends below
//! an id that a server has seen: Redis came back without its newest entries, or the stream was deleted. Its id
//! is above that one, so ids never fall, and it tells all servers of the loss. A server also writes one that
//! finds other entries where it has read, or published, some that are gone: the others may not know of those.
//!
//! | who waits | on what | what wakes it |
//! |---|---|---|
//! | publisher | a connection of the pool, and Redis' answer | each after two seconds |
//! | reader | an entry | `XREAD` returns after a second; a silent Redis is given up two seconds later |
//! | reader | to connect again | at most two seconds; unparked at the end |
//! | [`Redis::close`] | the reader's end | two seconds |

pub mod connect;
pub mod entry;
pub mod pool;
pub mod reader;
pub mod shared;
pub mod stream;

use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::delivery::Deliver;
use super::error::{OpenError, PublishError};
use super::status::Status;
use super::window::Window;
use crate::event::{Draft, EventId};
use connect::{Address, describe};
use pool::PoolError;
use reader::Reader;
use shared::Shared;
use stream::Stream;

/// How many times the events that a server replays stay in the stream, and how many entries at least: a server
/// that was paused must find there what it missed.
const RETENTION_FACTOR: usize = 10;
const MIN_RETENTION: usize = 10_000;

/// How long an event may take to get here that a client has seen on another server. Longer than it takes to notice
/// that Redis is silent.
pub const MAX_LAG: Duration = Duration::from_secs(4);

/// How long the reader may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Which stream is used, and how.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Where Redis is: `redis://[[user]:password@]host[:port][/database]`.
    pub url: String,
    /// The stream's key.
    pub stream: String,
    /// How many of the newest events the window keeps.
    pub history: usize,
    /// Whether it keeps events of some topics for longer.
    pub has_topic_history: bool,
}

/// See the module's documentation.
pub struct Redis {
    shared: Arc<Shared>,
    thread: Thread,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Redis {
    /// Connects, checks the server, loads the newest events into the window, and starts the reader.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        options: &RedisOptions,
        window: &Window,
        deliver: Deliver,
    ) -> Result<Redis, OpenError> {
        let refuse = |address: &str, problem: String| OpenError::Redis {
            address: address.to_owned(),
            problem,
        };
        let address = Address::parse(&options.url).map_err(|why| refuse("the address", why))?;
        let name = address.name.clone();
        let mut connection = address
            .connect(reader::BLOCK)
            .map_err(|error| refuse(&name, format!("cannot connect: {}", describe(&error))))?;
        let retention = options.history.saturating_mul(RETENTION_FACTOR).max(MIN_RETENTION);
        let stream = Stream::open(&mut connection, &options.stream, retention)
            .map_err(|why| refuse(&name, why))?;
        // Writes nothing, but shows whether the script may be run.
        let probe = stream.publish(&mut connection, EventId::default(), &[]);
        probe.map_err(|error| refuse(&name, describe(&error)))?;
        let shared = Arc::new(Shared::new(address, stream));
        let (alive, ended) = bounded(0);
        let mut reader = Reader::new(Arc::clone(&shared), deliver);
        // What a topic keeps for itself may be among the oldest.
        let count = if options.has_topic_history { retention } else { options.history };
        reader
            .load(&mut connection, count, window)
            .map_err(|error| refuse(&name, describe(&error)))?;
        let thread = std::thread::Builder::new()
            .name("redis".into())
            .spawn(move || {
                reader.run(connection);
                drop(alive);
            })
            .map_err(OpenError::Threads)?;
        Ok(Redis { shared, thread: thread.thread().clone(), ended })
    }

    /// Publishes drafts, all or none. Returns an id for each. Many threads may call this at once.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn append(&self, drafts: Vec<Draft>) -> Result<Vec<EventId>, PublishError> {
        if self.shared.is_stopped() {
            return Err(PublishError::Stopped);
        }
        // Not after two seconds, if the reader has found that out already.
        let result = match self.shared.problem() {
            Some(problem) => Err(PublishError::Unavailable(problem)),
            None => self.publish(&drafts),
        };
        match &result {
            Ok(ids) => self.shared.acknowledged(ids),
            Err(_) => self.shared.counters.publishes_failed.add(1),
        }
        result
    }

    fn publish(&self, drafts: &[Draft]) -> Result<Vec<EventId>, PublishError> {
        let Shared { address, stream, pool, .. } = &*self.shared;
        let seen = self.shared.seen();
        let run = || pool.run(address, |one| stream.publish(one, seen, drafts));
        let result = match run() {
            // The connection had ended. With a key nothing is published twice.
            Err(PoolError::Failed(error))
                if error.is_connection_dropped()
                    && drafts.iter().all(|one| one.key().is_some()) =>
            {
                run()
            }
            other => other,
        };
        result.map_err(|error| match error {
            PoolError::NotSent(why) => PublishError::Unavailable(format!("Redis: {why}")),
            PoolError::Failed(error) => {
                let why = format!("Redis: {}", describe(&error));
                match error.code() {
                    // Up to Redis 6 the error of a command is only a part of the script's.
                    Some(code) if code == "OOM" || why.contains("-OOM ") => PublishError::Full(why),
                    Some(_) => PublishError::Unavailable(why),
                    None => PublishError::Unavailable(format!(
                        "{why}; the event may be published all the same: publish it again with the same Idempotency-Key"
                    )),
                }
            }
        })
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let counters = &self.shared.counters;
        Status {
            name: "redis",
            problem: self.shared.problem(),
            counters: vec![
                ("reconnects", counters.reconnects.get()),
                ("gaps", counters.gaps.get()),
                ("publishes_failed", counters.publishes_failed.get()),
                ("events_read", counters.events_read.get()),
            ],
        }
    }

    /// Takes no more events, delivers those before, and ends the reader, which takes up to a second. If Redis
    /// does not answer, this gives up after two; the thread then ends on its own.
    pub fn close(&self) {
        self.shared.stop();
        self.thread.unpark();
        // Nothing is sent: it is disconnected, or the time is over.
        let _ = self.ended.recv_timeout(CLOSE_TIMEOUT);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.close();
    }
}
