//! The hub: where events get their place in the order, and from where they go to every broadcaster.
//!
//! One lock covers three steps: the next id, the history, and the broadcasters' channels. So the
//! order is the same everywhere, and a subscription falls between two events for certain: what
//! came before it is in the replay, what comes after it in the channel. No gap, no duplicate.

pub mod batch;
pub mod broadcaster;
pub mod event;
pub mod history;
pub mod mailbox;
pub mod outbox;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broadcaster::{Broadcaster, Message, Subscriber, Timing};
use event::{Draft, Event, EventId, IdSource};
use history::{History, Replay};

/// Which topics a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Every topic.
    All,
    /// These.
    Some(Arc<[Arc<str>]>),
}

impl Topics {
    /// The topics of these names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Topics {
        Topics::Some(names.into_iter().map(Arc::from).collect())
    }

    /// Whether an event on `topic` is wanted.
    pub fn match_topic(&self, topic: &str) -> bool {
        match self {
            Topics::All => true,
            Topics::Some(names) => names.iter().any(|name| **name == *topic),
        }
    }
}

/// What a publisher gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id.
    pub id: EventId,
    /// How many clients were subscribed to its topic.
    pub subscribers: usize,
}

/// The hub has been stopped: nothing is published any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

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

/// See the module's documentation.
pub struct Hub {
    order: Mutex<Order>,
    broadcasters: Vec<Broadcaster>,
}

struct Order {
    ids: IdSource,
    history: History,
    /// Subscribers of every topic, and of single ones.
    to_all: usize,
    to_topic: HashMap<Arc<str>, usize>,
    next_broadcaster: usize,
    stopped: bool,
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
    /// milliseconds come from: [`event::wall_clock`], but for tests.
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
        let broadcasters = (0..broadcasters.max(1))
            .map(|number| Broadcaster::start(number, heartbeat))
            .collect::<io::Result<_>>()?;
        let order = Order {
            ids,
            history,
            to_all: 0,
            to_topic: HashMap::new(),
            next_broadcaster: 0,
            stopped: false,
        };
        Ok(Arc::new(Hub { order: Mutex::new(order), broadcasters }))
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes: gives the event its id, keeps it, hands it to every broadcaster. Waits where a
    /// broadcaster is behind.
    ///
    /// # Errors
    /// [`Stopped`] once the server shuts down.
    pub fn publish(&self, draft: Draft) -> Result<Receipt, Stopped> {
        let mut order = self.order();
        if order.stopped {
            return Err(Stopped);
        }
        let subscribers = order.to_all + order.to_topic.get(&**draft.topic()).copied().unwrap_or(0);
        let event = Arc::new(Event::new(order.ids.next_id(), draft));
        let id = event.id;
        order.history.push(Arc::clone(&event));
        for broadcaster in &self.broadcasters {
            broadcaster.mailbox.send(Message::Event(Arc::clone(&event)));
        }
        Ok(Receipt { id, subscribers })
    }

    /// Makes `subscriber` get every event from now on, and returns those it missed. The caller
    /// holds its outbox and writes the replay first.
    pub fn subscribe(
        self: &Arc<Self>,
        subscriber: Subscriber,
        last: LastSeen,
    ) -> (Subscription, Replay) {
        let mut order = self.order();
        let newest = order.ids.last();
        let replay = match last {
            LastSeen::Nothing => Replay { gap: None, events: Vec::new() },
            LastSeen::Event(last) => order.history.after(last, newest, &subscriber.topics),
            LastSeen::Unknown => Replay { gap: Some(newest), events: Vec::new() },
        };
        order.count(&subscriber.topics, true);
        let broadcaster = order.next_broadcaster % self.broadcasters.len();
        order.next_broadcaster += 1;
        let subscription = Subscription {
            hub: Arc::clone(self),
            broadcaster,
            client: subscriber.client,
            topics: subscriber.topics.clone(),
        };
        self.broadcasters[broadcaster].mailbox.send(Message::Subscribe(subscriber));
        (subscription, replay)
    }

    /// The fan-out times of each broadcaster.
    pub fn timings(&self) -> impl Iterator<Item = &Timing> {
        self.broadcasters.iter().map(|broadcaster| &*broadcaster.timing)
    }

    /// Accepts no further events, and returns when every one before has been handed to all its
    /// subscribers: what was acknowledged is not lost by a shutdown.
    pub fn close(&self) {
        self.order().stopped = true;
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

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.order().count(&self.topics, false);
        let mailbox = &self.hub.broadcasters[self.broadcaster].mailbox;
        mailbox.send(Message::Unsubscribe(self.client));
    }
}
