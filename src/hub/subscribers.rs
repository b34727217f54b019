//! Who is subscribed to what, and the broadcasters that own them.
//!
//! One lock covers an event's way into all broadcasters' channels, so the order is the same everywhere, and a
//! subscription falls between two events for certain: what came before it is in its replay, what comes after it
//! in the channel. No gap, no duplicate.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::broadcaster::{Broadcaster, Message, Subscriber, Timing};
use super::by_name::ByName;
use super::mailbox::Mailbox;
use crate::event::EventId;
use crate::event::last_seen::LastSeen;
use crate::event::topics::{ALL_TOPICS, Topics};
use crate::store::delivery::Delivery;
use crate::store::replay::Replay;
use crate::store::window::Window;

/// The topic on which counts of subscribers are published. While nobody has named it, nothing is noted.
pub const COUNTS_TOPIC: &str = "subscribers";

/// See the module's documentation.
pub struct Subscribers {
    order: Mutex<Order>,
    /// Signalled when a count has changed that somebody wants to know, and at the end.
    counted: Condvar,
    /// Signalled when something is delivered and somebody waits for it, and at the end.
    delivered: Condvar,
    broadcasters: Vec<Broadcaster>,
    /// Events are pushed with `order` locked, so that a client misses exactly what is here when it comes.
    window: Arc<Window>,
}

struct Order {
    /// Subscribers of every topic, and of topics and patterns.
    to_all: usize,
    to_some: ByName<usize>,
    /// The names whose counts have changed, while somebody wants to know.
    changed: Option<BTreeSet<Arc<str>>>,
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
    pub fn start(
        window: &Arc<Window>,
        broadcasters: usize,
        heartbeat: Duration,
    ) -> io::Result<Subscribers> {
        let broadcasters: Vec<Broadcaster> = (0..broadcasters.max(1))
            .map(|number| Broadcaster::start(number, heartbeat))
            .collect::<io::Result<_>>()?;
        let order = Order {
            to_all: 0,
            to_some: ByName::default(),
            changed: None,
            next_broadcaster: 0,
            members: vec![0; broadcasters.len()],
            is_stopped: false,
            waiting: 0,
        };
        let (order, window) = (Mutex::new(order), Arc::clone(window));
        let (counted, delivered) = (Condvar::new(), Condvar::new());
        Ok(Subscribers { order, counted, delivered, broadcasters, window })
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event into the window and hands it to every broadcaster. Waits where one is behind.
    pub fn deliver(&self, delivery: &Delivery) {
        let order = self.order();
        match delivery {
            Delivery::Event(event) => self.window.push(Arc::clone(event)),
            Delivery::Gap(id) => self.window.gap(*id),
        }
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

    /// Waits until an id of at least `id` is delivered, or for `limit`; without one, until the shutdown.
    /// Returns whether it is.
    pub fn wait_for(&self, id: EventId, limit: Option<Duration>) -> bool {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut order = self.order();
        while self.window.newest() < id {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if order.is_stopped || left.is_some_and(|left| left.is_zero()) {
                return false;
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
        true
    }

    /// Whether it is closed: nothing is waited for any more.
    pub fn is_stopped(&self) -> bool {
        self.order().is_stopped
    }

    /// What a client with these topics missed that comes now, and the newest id.
    pub fn replay(&self, last: LastSeen, topics: &Topics) -> (Replay, EventId) {
        let _order = self.order();
        (Replay::new(&self.window, last, topics, Topics::named([])), self.window.newest())
    }

    /// Makes `subscriber` get every event from now on. Returns its place, and what it missed.
    pub fn add(self: &Arc<Self>, subscriber: Subscriber, last: LastSeen) -> (Subscription, Replay) {
        let mut order = self.order();
        let replay = Replay::new(&self.window, last, &subscriber.topics, Topics::named([]));
        self.count(&mut order, &subscriber.topics, true);
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
        (subscription, replay)
    }

    /// Counts a subscriber more, or less.
    fn count(&self, order: &mut Order, topics: &Topics, more: bool) {
        order.count(topics, more);
        if order.changed.is_some() {
            self.counted.notify_one();
        }
    }

    /// How many clients are subscribed to `topic`.
    pub fn count_of(&self, topic: &str) -> usize {
        let order = self.order();
        order.to_all + order.to_some.matching(topic).sum::<usize>()
    }

    /// How many clients are subscribed to each name: a topic, a pattern, or [`ALL_TOPICS`]. Names without a
    /// client are left out.
    pub fn counts(&self) -> Vec<(String, usize)> {
        self.order().counts().collect()
    }

    /// Waits until counts have changed while somebody is subscribed to [`COUNTS_TOPIC`], and until `earliest`.
    /// Returns names and counts, at most so many of them; `None` at the end. For one thread.
    pub fn wait_counts(&self, earliest: Instant, most: usize) -> Option<Vec<(String, usize)>> {
        let mut order = self.order();
        loop {
            let left = earliest.saturating_duration_since(Instant::now());
            let is_changed = order.changed.as_ref().is_some_and(|changed| !changed.is_empty());
            order = match is_changed {
                _ if order.is_stopped => return None,
                true if left.is_zero() => return Some(order.take_counts(most)),
                true => {
                    let waited = self.counted.wait_timeout(order, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                false => self.counted.wait(order).unwrap_or_else(PoisonError::into_inner),
            };
        }
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
        self.counted.notify_all();
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
        self.note_change(topics, more);
    }

    /// Notes that the counts of `topics` have changed, if somebody wants to know.
    fn note_change(&mut self, topics: &Topics, more: bool) {
        let names = match topics {
            Topics::All => &[Arc::from(ALL_TOPICS)][..],
            Topics::Some(names) => names,
        };
        if names.iter().any(|name| **name == *COUNTS_TOPIC) {
            let is_wanted = self.to_some.get(COUNTS_TOPIC).is_some();
            self.changed = match (is_wanted, more) {
                (false, _) => None,
                // Who is new has seen no count yet.
                (true, true) => Some(self.counts().map(|(name, _)| name.into()).collect()),
                (true, false) => self.changed.take(),
            };
        }
        if let Some(changed) = &mut self.changed {
            changed.extend(names.iter().cloned());
        }
    }

    /// The counts of all names that have a subscriber.
    fn counts(&self) -> impl Iterator<Item = (String, usize)> {
        let all = (self.to_all > 0).then(|| (ALL_TOPICS.to_owned(), self.to_all));
        all.into_iter().chain(self.to_some.iter().map(|(name, count)| (name, *count)))
    }

    /// Takes at most so many of the names whose counts have changed, with their counts.
    fn take_counts(&mut self, most: usize) -> Vec<(String, usize)> {
        let Some(changed) = &mut self.changed else { return Vec::new() };
        let rest = changed.iter().nth(most).cloned();
        let rest = rest.map(|name| changed.split_off(&name)).unwrap_or_default();
        let taken = std::mem::replace(changed, rest);
        let count = |name: &str| match name {
            ALL_TOPICS => self.to_all,
            name => self.to_some.get(name).copied().unwrap_or(0),
        };
        taken.iter().map(|name| (name.to_string(), count(name))).collect()
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

    /// Makes the client get events on `topics` from now on, and on no others; returns those it missed on topics
    /// that are new to it. On the others it has missed nothing, and gets nothing twice.
    ///
    /// Where topics are added, the caller holds the client's outbox and writes the replay first.
    /// What was published before on topics that are given up may still be on its way: see
    /// [`Subscription::wait_applied`].
    pub fn change(&mut self, topics: Topics, last: LastSeen) -> Replay {
        let leave = self.topics.without(&topics);
        let join = topics.without(&self.topics);
        let before = std::mem::replace(&mut self.topics, topics);
        if leave.is_empty() && join.is_empty() {
            return Replay::nothing();
        }
        let mut order = self.subscribers.order();
        // Nothing can be missing on no topics, not even after a stranger's id.
        let replay = match join.is_empty() {
            true => Replay::nothing(),
            // A topic that the client had already is among the new ones where these are all topics.
            false => Replay::new(&self.subscribers.window, last, &join, before),
        };
        self.subscribers.count(&mut order, &leave, false);
        self.subscribers.count(&mut order, &join, true);
        self.mailbox().send(Message::Change { client: self.client, leave, join });
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
            let mut order = self.subscribers.order();
            self.subscribers.count(&mut order, &self.topics, false);
            order.members[self.broadcaster] -= 1;
        }
        let topics = std::mem::replace(&mut self.topics, Topics::named([]));
        // The client's thread is free at once. What is left, an outbox and its descriptor, goes when the
        // broadcaster wakes: within a second, or with the next few. To wake it for each would be a
        // tenth of what a short visit costs.
        self.mailbox().send_without_wake(Message::Unsubscribe { client: self.client, topics });
    }
}
