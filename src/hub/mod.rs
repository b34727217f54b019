//! The hub: where events get their place in the order, and from where they go to every broadcaster.
//!
//! One lock covers three steps: the next id, the history, and the broadcasters' channels. So the
//! order is the same everywhere, and a subscription falls between two events for certain: what
//! came before it is in the replay, what comes after it in the channel. No gap, no duplicate.

pub mod broadcaster;
pub mod error;
pub mod history;
pub mod mailbox;
pub mod reader;
pub mod topics;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::event::id::IdSource;
use crate::event::{Draft, Event, EventId};
use broadcaster::{Broadcaster, Message, Subscriber, Timing};
use error::PublishError;
use history::{History, Replay};
use mailbox::Mailbox;
use topics::Topics;

/// What a publisher gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id.
    pub id: EventId,
    /// How many clients were subscribed to its topic.
    pub subscribers: usize,
}

/// What a returning client says it has seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastSeen {
    /// It is new: nothing is replayed.
    Nothing,
    /// Everything up to this id.
    Event(EventId),
    /// Something that is no id of ours: a gap.
    Unknown,
}

impl LastSeen {
    /// What a client means by `text`: the id of the last event it has seen, if it has seen any.
    pub fn parse(text: Option<&str>) -> LastSeen {
        match text {
            None | Some("") => LastSeen::Nothing,
            Some(text) => text.parse().map_or(LastSeen::Unknown, LastSeen::Event),
        }
    }
}

/// See the module's documentation.
pub struct Hub {
    order: Mutex<Order>,
    /// Signalled when something is published and somebody waits for it, and at the end.
    published: Condvar,
    broadcasters: Vec<Broadcaster>,
}

struct Order {
    ids: IdSource,
    history: History,
    /// Subscribers of every topic, and of single ones.
    to_all: usize,
    to_topic: HashMap<Arc<str>, usize>,
    next_broadcaster: usize,
    /// How many subscribers each broadcaster has.
    members: Vec<usize>,
    stopped: bool,
    /// Threads in [`Hub::wait_after`]. To signal without need is a system call each time.
    waiting: usize,
}

/// A client's place among the subscribers; given up when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    broadcaster: usize,
    client: u64,
    topics: Topics,
}

impl Hub {
    /// A hub that keeps `history` events, with `broadcasters` threads. `clock` is where the ids'
    /// milliseconds come from: [`wall_clock`](crate::os::clock::wall_clock), but for tests.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(
        history: usize,
        broadcasters: usize,
        heartbeat: Duration,
        clock: fn() -> u64,
    ) -> io::Result<Arc<Hub>> {
        let ids = IdSource::new(clock);
        let history = History::new(history, ids.last());
        let broadcasters: Vec<Broadcaster> = (0..broadcasters.max(1))
            .map(|number| Broadcaster::start(number, heartbeat))
            .collect::<io::Result<_>>()?;
        let order = Order {
            ids,
            history,
            to_all: 0,
            to_topic: HashMap::new(),
            next_broadcaster: 0,
            members: vec![0; broadcasters.len()],
            stopped: false,
            waiting: 0,
        };
        Ok(Arc::new(Hub { order: Mutex::new(order), published: Condvar::new(), broadcasters }))
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes: gives the event its id, keeps it, hands it to every broadcaster. Waits where a
    /// broadcaster is behind.
    ///
    /// # Errors
    /// [`PublishError::Stopped`] once the server shuts down.
    pub fn publish(&self, draft: Draft) -> Result<Receipt, PublishError> {
        let mut order = self.order();
        if order.stopped {
            return Err(PublishError::Stopped);
        }
        let subscribers = order.to_all + order.to_topic.get(&**draft.topic()).copied().unwrap_or(0);
        let event = Arc::new(Event::new(order.ids.next_id(), draft));
        let id = event.id;
        order.history.push(Arc::clone(&event));
        for (broadcaster, members) in self.broadcasters.iter().zip(&order.members) {
            let message = Message::Event(Arc::clone(&event));
            match members {
                // Nobody waits for it, so it is not worth a wake-up: that is a fifth of what a request to
                // publish costs.
                0 => broadcaster.mailbox.send_without_wake(message),
                _ => broadcaster.mailbox.send(message),
            }
        }
        if order.waiting > 0 {
            self.published.notify_all();
        }
        Ok(Receipt { id, subscribers })
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
        let mut order = self.order();
        while order.ids.last() <= last {
            if order.stopped {
                return None;
            }
            order.waiting += 1;
            order = self.published.wait(order).unwrap_or_else(PoisonError::into_inner);
            order.waiting -= 1;
        }
        let newest = order.ids.last();
        Some((order.replay(LastSeen::Event(last), topics), newest))
    }

    /// Makes `subscriber` get every event from now on, and returns those it missed. The caller
    /// holds its outbox and writes the replay first.
    pub fn subscribe(
        self: &Arc<Self>,
        subscriber: Subscriber,
        last: LastSeen,
    ) -> (Subscription, Replay) {
        let mut order = self.order();
        let replay = order.replay(last, &subscriber.topics);
        order.count(&subscriber.topics, true);
        let broadcaster = order.next_broadcaster % self.broadcasters.len();
        order.next_broadcaster += 1;
        let subscription = Subscription {
            hub: Arc::clone(self),
            broadcaster,
            client: subscriber.client,
            topics: subscriber.topics.clone(),
        };
        // A broadcaster with subscribers wakes every second at least, and finds the new one then, or before
        // the next event. To wake it for each of a thousand clients that connect would be a sixth of what
        // they cost.
        let mailbox = &self.broadcasters[broadcaster].mailbox;
        let message = Message::Subscribe(subscriber);
        match order.members[broadcaster] {
            0 => mailbox.send(message),
            _ => mailbox.send_without_wake(message),
        }
        order.members[broadcaster] += 1;
        (subscription, replay)
    }

    /// The id given out last, or the one that stands for 'before the first event'.
    pub fn newest(&self) -> EventId {
        self.order().ids.last()
    }

    /// The fan-out times of each broadcaster.
    pub fn timings(&self) -> impl Iterator<Item = &Timing> {
        self.broadcasters.iter().map(|broadcaster| &*broadcaster.timing)
    }

    /// Accepts no further events, and returns when every one before has been handed to all its
    /// subscribers: what was acknowledged is not lost by a shutdown.
    pub fn close(&self) {
        self.order().stopped = true;
        self.published.notify_all();
        let (done, all_done) = crossbeam_channel::bounded(0);
        for broadcaster in &self.broadcasters {
            broadcaster.mailbox.send(Message::Flush(done.clone()));
        }
        drop(done);
        // Ends when the last broadcaster has dropped its end; nothing is ever sent.
        let _ = all_done.recv();
    }

    /// Ends the broadcasters' threads and waits for them.
    pub fn stop(&self) {
        for broadcaster in &self.broadcasters {
            broadcaster.mailbox.send(Message::Stop);
        }
        while self.broadcasters.iter().any(|broadcaster| !broadcaster.thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Order {
    fn replay(&self, last: LastSeen, topics: &Topics) -> Replay {
        let newest = self.ids.last();
        match last {
            // A client that begins here comes back with the newest id, and misses nothing in between.
            LastSeen::Nothing => Replay { seen: Some(newest), gap: None, events: Vec::new() },
            LastSeen::Event(last) => self.history.after(last, newest, topics),
            LastSeen::Unknown => Replay { seen: None, gap: Some(newest), events: Vec::new() },
        }
    }

    fn count(&mut self, topics: &Topics, more: bool) {
        let change = |count: usize| {
            if more { count + 1 } else { count.saturating_sub(1) }
        };
        match topics {
            Topics::All => self.to_all = change(self.to_all),
            Topics::Some(names) => {
                for name in names.iter() {
                    let count = change(self.to_topic.get(name).copied().unwrap_or(0));
                    if count > 0 {
                        self.to_topic.insert(Arc::clone(name), count);
                    } else {
                        self.to_topic.remove(name);
                    }
                }
            }
        }
    }
}

impl Subscription {
    fn mailbox(&self) -> &Mailbox<Message> {
        &self.hub.broadcasters[self.broadcaster].mailbox
    }

    /// Makes the client get events on `topics` from now on, and on no others; returns those it
    /// missed on topics that are new to it, as [`Hub::subscribe`] does. On the others it has missed
    /// nothing, and gets nothing twice.
    ///
    /// Where topics are added, the caller holds the client's outbox and writes the replay first.
    /// What was published before on topics that are given up may still be on its way: see
    /// [`Subscription::wait_applied`].
    pub fn change(&mut self, topics: Topics, last: LastSeen) -> Replay {
        let leave = self.topics.without(&topics);
        let join = topics.without(&self.topics);
        let before = std::mem::replace(&mut self.topics, topics);
        if leave.is_empty() && join.is_empty() {
            return Replay { seen: None, gap: None, events: Vec::new() };
        }
        let mut order = self.hub.order();
        // Nothing can be missing on no topics, not even after a stranger's id.
        let last = if join.is_empty() { LastSeen::Nothing } else { last };
        let mut replay = order.replay(last, &join);
        order.count(&leave, false);
        order.count(&join, true);
        self.mailbox().send(Message::Change { client: self.client, leave, join });
        drop(order);
        // Only where `All` is new: what came on single topics before came already.
        replay.events.retain(|event| !before.match_topic(&event.topic));
        replay
    }

    /// Returns when the latest change is in effect: no event that it excludes will be put into the
    /// client's outbox any more.
    pub fn wait_applied(&self) {
        let (done, all_done) = crossbeam_channel::bounded(0);
        self.mailbox().send(Message::Flush(done));
        let _ = all_done.recv();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        {
            let mut order = self.hub.order();
            order.count(&self.topics, false);
            order.members[self.broadcaster] -= 1;
        }
        let topics = std::mem::replace(&mut self.topics, Topics::named([]));
        // The client's thread is free at once. What is left, an outbox and its descriptor, goes when the
        // broadcaster wakes: within a second, or with the next few. To wake it for each would be a
        // tenth of what a short visit costs.
        self.mailbox().send_without_wake(Message::Unsubscribe { client: self.client, topics });
    }
}
