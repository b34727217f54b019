//! The hub: events go from publishers to the store, and from there to every broadcaster.
//!
//! The [store](crate::store) gives an event its place in the order and delivers it to the
//! [`Subscribers`], in the publisher's thread where the store is this process's own. A client that subscribes
//! gets what it missed from the store's window, and everything from then on from its broadcaster.

pub mod broadcaster;
mod by_name;
pub mod mailbox;
pub mod reader;
pub mod subscribers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Fanout};
use crate::event::last_seen::LastSeen;
use crate::event::topics::Topics;
use crate::event::{Draft, EventId};
use crate::store::Store;
use crate::store::error::{OpenError, PublishError};
use crate::store::replay::Replay;
use crate::store::status::Status;
use crate::store::window::{TopicLimit, Window};
use broadcaster::{Subscriber, Timing};
use subscribers::{Subscribers, Subscription};

/// How long a client that has seen more than this server waits while the store is away. Proxies give up after
/// a minute.
const MAX_AWAY: Duration = Duration::from_secs(30);

/// What a publisher gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id.
    pub id: EventId,
    /// How many of this server's clients are subscribed to its topic.
    pub subscribers: usize,
}

/// See the module's documentation.
pub struct Hub {
    store: Store,
    subscribers: Arc<Subscribers>,
    fanout: Fanout,
}

impl Hub {
    /// A hub with its store and `broadcasters` threads. `clock` is where the ids' milliseconds come from:
    /// [`wall_clock`](crate::os::clock::wall_clock), but for tests.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn start(
        config: &Config,
        broadcasters: usize,
        clock: fn() -> u64,
    ) -> Result<Arc<Hub>, OpenError> {
        let limits = config.topic_history.iter().cloned();
        let limits = limits.map(|(pattern, events)| TopicLimit { pattern, events }).collect();
        let window = Arc::new(Window::new(config.history, limits));
        let subscribers = Subscribers::start(&window, broadcasters, config.heartbeat);
        let subscribers = Arc::new(subscribers.map_err(OpenError::Threads)?);
        let to = Arc::clone(&subscribers);
        let deliver = Arc::new(move |delivery| to.deliver(&delivery));
        let store = Store::open(config, clock, &window, deliver)?;
        Ok(Arc::new(Hub { store, subscribers, fanout: config.fanout }))
    }

    /// Publishes: the store gives the event its id, keeps it, and it goes to every broadcaster. Waits where a
    /// broadcaster is behind.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(&self, draft: Draft) -> Result<Receipt, PublishError> {
        let receipt = self.publish_all(vec![draft])?;
        Ok(receipt.expect("one draft has one id"))
    }

    /// Publishes several events, all or none. Returns the receipt of the last one; `None` where there is none.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish_all(&self, drafts: Vec<Draft>) -> Result<Option<Receipt>, PublishError> {
        let Some(topic) = drafts.last().map(|draft| Arc::clone(draft.topic())) else {
            return Ok(None);
        };
        let ids = self.store.append(drafts)?;
        let subscribers = self.subscribers.count_of(&topic);
        Ok(ids.last().map(|id| Receipt { id: *id, subscribers }))
    }

    /// Publishes `data` on `topic`, with an event name or without.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish_text(
        &self,
        topic: &str,
        name: Option<&str>,
        data: &str,
    ) -> Result<Receipt, PublishError> {
        self.publish(Draft::new(topic, name, data)?)
    }

    /// Waits for an event after `last`, and returns what was published since then on `topics`; perhaps
    /// nothing, but then on other topics. `None` when nothing will be published any more. The id of the
    /// newest event is returned, too. For readers inside the process.
    pub fn wait_after(&self, last: EventId, topics: &Topics) -> Option<(Replay, EventId)> {
        let is_there = self.subscribers.wait_for(last.successor(), None);
        is_there.then(|| self.subscribers.replay(LastSeen::Event(last), topics))
    }

    /// What is kept of these topics after `last`, as a client gets it that subscribes now, and the newest id: what
    /// is published after that is not in it.
    pub fn read(&self, last: LastSeen, topics: &Topics) -> (Replay, EventId) {
        self.wait_until_known(last);
        self.subscribers.replay(last, topics)
    }

    /// Makes `subscriber` get every event from now on, and returns those it missed. The caller
    /// holds its outbox and writes the replay first.
    pub fn subscribe(&self, subscriber: Subscriber, last: LastSeen) -> (Subscription, Replay) {
        self.wait_until_known(last);
        self.subscribers.add(subscriber, last)
    }

    /// Changes a client's topics: see [`Subscription::change`].
    pub fn change(
        &self,
        subscription: &mut Subscription,
        topics: Topics,
        last: LastSeen,
    ) -> Replay {
        self.wait_until_known(last);
        subscription.change(topics, last)
    }

    /// Where there are several servers, a client may have seen on another one what has not come here yet. It
    /// waits for that: told of a gap, it would get those events a second time.
    fn wait_until_known(&self, last: LastSeen) {
        let LastSeen::Event(id) = last else { return };
        let deadline = Instant::now() + MAX_AWAY;
        while let Some(max_lag) = self.store.max_lag()
            && !self.subscribers.wait_for(id, Some(max_lag))
            && !self.subscribers.is_stopped()
        {
            // While the store is away nobody knows what it will deliver.
            if self.store.status().problem.is_none() || Instant::now() >= deadline {
                return;
            }
        }
    }

    /// The id delivered last, or the one that stands for 'before the first event'.
    pub fn newest(&self) -> EventId {
        self.subscribers.newest()
    }

    /// How many of this server's clients are subscribed to each name (see [`Subscribers::counts`]).
    pub fn counts(&self) -> Vec<(String, usize)> {
        self.subscribers.counts()
    }

    /// See [`Subscribers::wait_counts`].
    pub fn wait_counts(&self, earliest: Instant, most: usize) -> Option<Vec<(String, usize)>> {
        self.subscribers.wait_counts(earliest, most)
    }

    /// Who writes an event to the clients that are subscribed here.
    pub fn fanout(&self) -> Fanout {
        self.fanout
    }

    /// How the store is doing.
    pub fn store_status(&self) -> Status {
        self.store.status()
    }

    /// The fan-out times of each broadcaster.
    pub fn timings(&self) -> impl Iterator<Item = &Timing> {
        self.subscribers.timings()
    }

    /// Accepts no further events, and returns when every one before has been handed to all its
    /// subscribers: what was acknowledged is not lost by a shutdown.
    pub fn close(&self) {
        self.store.close();
        self.subscribers.close();
    }

    /// Ends the broadcasters' threads and waits for them.
    pub fn stop(&self) {
        self.subscribers.stop();
    }
}

#[cfg(test)]
mod tests;
