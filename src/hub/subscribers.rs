//! Who is subscribed to what, and the broadcasters that own them.
//!
//! One lock covers an event's way into all broadcasters' channels, so the order is the same everywhere, and a
//! subscription falls between two events for certain: what came before it is in its replay, what comes after it
//! in the channel. No gap, no duplicate.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::broadcaster::{Broadcaster, Message, Subscriber, Timing};
use super::by_name::ByName;
use super::mailbox::Mailbox;
use crate::event::EventId;
use crate::event::topics::{ALL_TOPICS, Topics};
use crate::store::delivery::Delivery;

/// See the module's documentation.
pub struct Subscribers {
    order: Mutex<Order>,
    /// Signalled when something is delivered and somebody waits for it, and at the end.
    delivered: Condvar,
    broadcasters: Vec<Broadcaster>,
}

struct Order {
    /// The id delivered last.
    newest: EventId,
    /// Subscribers of every topic, and of topics and patterns.
    to_all: usize,
    to_some: ByName<usize>,
    next_broadcaster: usize,
    /// How many subscribers each broadcaster has.
    members: Vec<usize>,
    is_stopped: bool,
    /// Threads in [`Subscribers::wait_for`]. To signal without need is a system call each time.
    waiting: usize,
}

impl Subscribers {
    /// Starts the threads of `broadcasters` broadcasters.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(broadcasters: usize, heartbeat: Duration) -> io::Result<Subscribers> {
        let broadcasters: Vec<Broadcaster> = (0..broadcasters.max(1))
            .map(|number| Broadcaster::start(number, heartbeat))
            .collect::<io::Result<_>>()?;
        let order = Order {
            newest: EventId::default(),
            to_all: 0,
            to_some: ByName::default(),
            next_broadcaster: 0,
            members: vec![0; broadcasters.len()],
            is_stopped: false,
            waiting: 0,
        };
        Ok(Subscribers { order: Mutex::new(order), delivered: Condvar::new(), broadcasters })
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to every broadcaster. Waits where one is behind.
    pub fn deliver(&self, delivery: &Delivery) {
        let mut order = self.order();
        order.newest = match delivery {
            Delivery::Event(event) => event.id,
            Delivery::Gap(id) => *id,
        };
        for (broadcaster, members) in self.broadcasters.iter().zip(&order.members) {
            let message = match delivery {
                Delivery::Event(event) => Message::Event(Arc::clone(event)),
                Delivery::Gap(id) => Message::Gap(*id),
            };
            match members {
                // Nobody waits for it, so it is not worth a wake-up: that is a fifth of what a request to
                // publish costs.
                0 => broadcaster.mailbox.send_without_wake(message),
                _ => broadcaster.mailbox.send(message),
            }
        }
        if order.waiting > 0 {
            self.delivered.notify_all();
        }
    }

    /// Nothing was delivered up to `id`, but what is delivered comes after it.
    pub fn begin_after(&self, id: EventId) {
        let mut order = self.order();
        order.newest = order.newest.max(id);
    }

    /// The id delivered last, or the one that stands for 'before the first event'.
    pub fn newest(&self) -> EventId {
        self.order().newest
    }

    /// Waits until an id of at least `id` is delivered, or for `limit`; without one, until the shutdown.
    /// Returns the newest id, or `None` where it is below `id`.
    pub fn wait_for(&self, id: EventId, limit: Option<Duration>) -> Option<EventId> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut order = self.order();
        while order.newest < id {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if order.is_stopped || left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            order.waiting += 1;
            order = match left {
                Some(left) => {
                    let waited = self.delivered.wait_timeout(order, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.delivered.wait(order).unwrap_or_else(PoisonError::into_inner),
            };
            order.waiting -= 1;
        }
        Some(order.newest)
    }

    /// Makes `subscriber` get every event from now on. Returns its place, and the id of the last event that it
    /// does not get.
    pub fn add(self: &Arc<Self>, subscriber: Subscriber) -> (Subscription, EventId) {
        let mut order = self.order();
        order.count(&subscriber.topics, true);
        let broadcaster = order.next_broadcaster % self.broadcasters.len();
        order.next_broadcaster += 1;
        let subscription = Subscription {
            subscribers: Arc::clone(self),
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
        (subscription, order.newest)
    }

    /// How many clients are subscribed to `topic`.
    pub fn count(&self, topic: &str) -> usize {
        let order = self.order();
        order.to_all + order.to_some.matching(topic).sum::<usize>()
    }

    /// How many clients are subscribed to each name: a topic, a pattern, or [`ALL_TOPICS`]. Names without a
    /// client are left out.
    pub fn counts(&self) -> Vec<(String, usize)> {
        let order = self.order();
        let all = (order.to_all > 0).then(|| (ALL_TOPICS.to_owned(), order.to_all));
        all.into_iter().chain(order.to_some.iter().map(|(name, count)| (name, *count))).collect()
    }

    /// The fan-out times of each broadcaster.
    pub fn timings(&self) -> impl Iterator<Item = &Timing> {
        self.broadcasters.iter().map(|broadcaster| &*broadcaster.timing)
    }

    /// Ends every [`Subscribers::wait_for`], and returns when every event that was delivered has been handed to
    /// all its subscribers.
    pub fn close(&self) {
        self.order().is_stopped = true;
        self.delivered.notify_all();
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
    fn count(&mut self, topics: &Topics, more: bool) {
        let change = |count: &mut usize| {
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
        };
        match topics {
            Topics::All => change(&mut self.to_all),
            Topics::Some(names) => {
                for name in names.iter() {
                    self.to_some.update(name, change, |count| *count == 0);
                }
            }
        }
    }
}

/// A client's place among the subscribers; given up when dropped.
pub struct Subscription {
    subscribers: Arc<Subscribers>,
    broadcaster: usize,
    client: u64,
    topics: Topics,
}

impl Subscription {
    fn mailbox(&self) -> &Mailbox<Message> {
        &self.subscribers.broadcasters[self.broadcaster].mailbox
    }

    /// Makes the client get events on `topics` from now on, and on no others. Returns the topics that are new to
    /// it, those that it had before, and the id of the last event before the change.
    pub(super) fn change(&mut self, topics: Topics) -> (Topics, Topics, EventId) {
        let leave = self.topics.without(&topics);
        let join = topics.without(&self.topics);
        let before = std::mem::replace(&mut self.topics, topics);
        let mut order = self.subscribers.order();
        if !leave.is_empty() || !join.is_empty() {
            order.count(&leave, false);
            order.count(&join, true);
            let change = Message::Change { client: self.client, leave, join: join.clone() };
            self.mailbox().send(change);
        }
        (join, before, order.newest)
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
            let mut order = self.subscribers.order();
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
