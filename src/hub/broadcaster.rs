//! A broadcaster: one thread that owns a share of the subscribers and hands each event to them.
//!
//! There are as many broadcasters as cores. All of them get the same messages in the same order, because
//! the hub sends under its lock. A subscription travels in the same channel as the events, so it takes
//! effect at one exact place between two of them.
//!
//! The thread is parked until a message comes or the next heartbeats are due. It never waits for a client:
//! see [`Outbox::offer`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::by_name::ByName;
use super::mailbox::{Mailbox, receive};
use crate::client::outbox::Outbox;
use crate::client::reason::Reason;
use crate::event::encoding::Encoding;
use crate::event::payload::{MAX_BYTES, MAX_EVENTS, Payload};
use crate::event::topics::Topics;
use crate::event::{Event, EventId};

/// Messages that may wait for a broadcaster before publishers do.
const CAPACITY: usize = 1024;

/// One client as its broadcaster knows it.
pub struct Subscriber {
    /// The client's number.
    pub client: u64,
    /// Where its events go.
    pub outbox: Arc<Outbox>,
    /// Which events, at first.
    pub topics: Topics,
    /// In which encoding.
    pub encoding: Encoding,
}

/// What a broadcaster is told.
pub(super) enum Message {
    Event(Arc<Event>),
    /// Events before this id may be lost, whatever their topic.
    Gap(EventId),
    Subscribe(Subscriber),
    /// The client's events change: no more on `leave`, from now on those on `join`.
    Change {
        client: u64,
        leave: Topics,
        join: Topics,
    },
    /// The end of a client that had these topics last.
    Unsubscribe {
        client: u64,
        topics: Topics,
    },
    /// Its sender is dropped when everything before it is done.
    Flush(Sender<()>),
    #[cfg(test)]
    Panic,
    Stop,
}

/// How long the fan-outs of one broadcaster took.
#[derive(Debug, Default)]
pub struct Timing {
    /// Events handed out.
    pub events: AtomicU64,
    /// Nanoseconds of all together.
    pub nanos: AtomicU64,
    /// Nanoseconds of the latest.
    pub last: AtomicU64,
    /// Nanoseconds of the longest.
    pub longest: AtomicU64,
}

/// The hub's end of a broadcaster.
pub(super) struct Broadcaster {
    pub mailbox: Mailbox<Message>,
    pub timing: Arc<Timing>,
    pub thread: JoinHandle<()>,
}

impl Broadcaster {
    /// Starts a broadcaster whose SSE subscribers get a heartbeat when nothing was sent for
    /// `heartbeat`.
    pub fn start(number: usize, heartbeat: Duration) -> io::Result<Broadcaster> {
        let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
        let timing = Arc::new(Timing::default());
        let shown = Arc::clone(&timing);
        let thread = thread::Builder::new()
            .name(format!("broadcaster {number}"))
            .spawn(move || run(&receiver, heartbeat, &shown))?;
        let mailbox = Mailbox::new(sender, thread.thread().clone());
        Ok(Broadcaster { mailbox, timing, thread })
    }
}

/// A broadcaster's thread. If it panics, its clients must not wait for ever: they are disconnected, come
/// back, and get what they missed. The thread goes on.
fn run(receiver: &Receiver<Message>, heartbeat: Duration, timing: &Arc<Timing>) {
    loop {
        let mut share = Share::new(heartbeat, Arc::clone(timing));
        if catch_unwind(AssertUnwindSafe(|| share.run(receiver))).is_ok() {
            return;
        }
        log::error!(
            "a broadcaster panicked; its {} clients must come back",
            share.subscribers.len()
        );
        for subscriber in share.subscribers.values() {
            subscriber.outbox.close(Reason::Internal, None);
            subscriber.outbox.abort();
        }
    }
}

/// The receivers of one kind of event, by client: in the order in which they came, which is about that
/// of their outboxes, and of the kernel's part of their connections, in memory.
type Group = BTreeMap<u64, Member>;
type Member = (Encoding, Arc<Outbox>);

/// Which events of a batch: bit n is the nth.
type EventMask = u64;

/// Events that go out together, in the encodings that were wanted so far: one payload for all clients of
/// an encoding.
struct EncodedBatch<'a> {
    events: &'a [Arc<Event>],
    // A few at the most: a search is cheaper than a hash.
    payloads: Vec<(Encoding, Payload)>,
}

impl EncodedBatch<'_> {
    fn new(events: &[Arc<Event>]) -> EncodedBatch<'_> {
        EncodedBatch { events, payloads: Vec::new() }
    }

    /// Hands the events to a client. They are encoded before its outbox is locked.
    fn offer(&mut self, (encoding, outbox): &Member, now: Instant) {
        let known = self.payloads.iter().position(|(known, _)| known == encoding);
        let place = known.unwrap_or_else(|| {
            self.payloads.push((*encoding, Payload::of(self.events, *encoding)));
            self.payloads.len() - 1
        });
        // A client that is gone stays here until its own thread unsubscribes: it takes nothing.
        outbox.offer(&self.payloads[place].1, now);
    }
}

struct Share {
    subscribers: HashMap<u64, Subscriber>,
    /// The subscribers of all topics.
    to_all: Group,
    /// The subscribers of topics and patterns: an event costs nothing for clients that do not want it. A client
    /// is in one group at most of those that an event finds.
    to_some: ByName<Group>,
    heartbeat: Duration,
    timing: Arc<Timing>,
}

impl Share {
    fn new(heartbeat: Duration, timing: Arc<Timing>) -> Share {
        let (subscribers, to_some) = (HashMap::new(), ByName::default());
        Share { subscribers, to_all: Group::new(), to_some, heartbeat, timing }
    }

    fn run(&mut self, receiver: &Receiver<Message>) {
        let interval = match self.heartbeat {
            Duration::ZERO => Duration::from_secs(1),
            // A heartbeat is late by a quarter of its interval at most.
            beat => (beat / 4).clamp(Duration::from_millis(10), Duration::from_secs(1)),
        };
        let mut next = Instant::now() + interval;
        loop {
            let mut message = receive(receiver, next);
            if let Some(Message::Event(first)) = message {
                let (batch, behind) = collect(first, receiver);
                self.fan_out(&batch);
                message = behind;
            }
            match message {
                Some(Message::Event(_)) | None => {}
                Some(Message::Gap(id)) => self.tell_gap(id),
                Some(Message::Subscribe(subscriber)) => self.add(subscriber),
                Some(Message::Change { client, leave, join }) => {
                    self.leave(client, &leave);
                    self.join(client, &join);
                }
                Some(Message::Unsubscribe { client, topics }) => {
                    self.leave(client, &topics);
                    self.subscribers.remove(&client);
                }
                Some(Message::Stop) => return,
                Some(Message::Flush(done)) => drop(done),
                #[cfg(test)]
                Some(Message::Panic) => panic!("as the test wants it"),
            }
            // Also after messages: a flood of events must not delay the heartbeats of other clients.
            let now = Instant::now();
            if now >= next {
                self.tick(now);
                next = now + interval;
            }
        }
    }

    fn add(&mut self, subscriber: Subscriber) {
        let (client, topics) = (subscriber.client, subscriber.topics.clone());
        self.subscribers.insert(client, subscriber);
        self.join(client, &topics);
    }

    fn join(&mut self, client: u64, topics: &Topics) {
        let Some(subscriber) = self.subscribers.get(&client) else { return };
        let member = || (subscriber.encoding, Arc::clone(&subscriber.outbox));
        match topics {
            Topics::All => {
                self.to_all.insert(client, member());
            }
            Topics::Some(names) => {
                for name in names.iter() {
                    let add = |group: &mut Group| {
                        group.insert(client, member());
                    };
                    self.to_some.update(name, add, Group::is_empty);
                }
            }
        }
    }

    fn leave(&mut self, client: u64, topics: &Topics) {
        match topics {
            Topics::All => {
                self.to_all.remove(&client);
            }
            Topics::Some(names) => {
                for name in names.iter() {
                    let remove = |group: &mut Group| {
                        group.remove(&client);
                    };
                    self.to_some.update(name, remove, Group::is_empty);
                }
            }
        }
    }

    /// Tells everybody who is subscribed to something that events may be lost.
    fn tell_gap(&self, resumed: EventId) {
        let now = Instant::now();
        let gap = Event::gap(resumed);
        let groups = self.to_some.values().chain([&self.to_all]);
        let members: BTreeMap<&u64, &Member> = groups.flatten().collect();
        for (encoding, outbox) in members.into_values() {
            outbox.offer(&Payload::own(Arc::clone(gap.encoded(*encoding))), now);
        }
    }

    /// Hands events to all who want them.
    fn fan_out(&self, events: &[Arc<Event>]) {
        let start = Instant::now();
        let mut all = EncodedBatch::new(events);
        for member in self.to_all.values() {
            all.offer(member, start);
        }
        self.fan_out_by_topic(events, start);
        let nanos = start.elapsed().as_nanos() as u64;
        self.timing.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.timing.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.timing.last.store(nanos, Ordering::Relaxed);
        self.timing.longest.fetch_max(nanos, Ordering::Relaxed);
    }

    fn fan_out_by_topic(&self, events: &[Arc<Event>], start: Instant) {
        let mut groups: Vec<(&Group, EventMask)> = Vec::new();
        for (place, event) in events.iter().enumerate() {
            for group in self.to_some.matching(&event.topic) {
                match groups.iter_mut().find(|(known, _)| std::ptr::eq(*known, group)) {
                    Some((_, mask)) => *mask |= 1 << place,
                    None => groups.push((group, 1 << place)),
                }
            }
        }
        // The usual case: events of one topic. Its group is gone through as it is.
        if let [(group, mask)] = groups[..] {
            let part = select(events, mask);
            let mut part = EncodedBatch::new(&part);
            return group.values().for_each(|member| part.offer(member, start));
        }
        // A client that wants several of the topics gets their events in order. So find out first who wants
        // which of the events, and then encode each combination once.
        let mut wanted: HashMap<u64, (EventMask, &Member)> = HashMap::new();
        for (group, mask) in groups {
            for (client, member) in group {
                wanted.entry(*client).or_insert((0, member)).0 |= mask;
            }
        }
        let mut by_part: HashMap<EventMask, Vec<&Member>> = HashMap::new();
        for (mask, member) in wanted.into_values() {
            by_part.entry(mask).or_default().push(member);
        }
        for (mask, members) in by_part {
            let part = select(events, mask);
            let mut part = EncodedBatch::new(&part);
            members.into_iter().for_each(|member| part.offer(member, start));
        }
    }

    fn tick(&self, now: Instant) {
        for subscriber in self.subscribers.values() {
            subscriber.outbox.abort_overdue(now);
            if let Encoding::Sse(coding) = subscriber.encoding {
                subscriber.outbox.tick(coding.heartbeat(), self.heartbeat, now);
            }
        }
    }
}

fn select(events: &[Arc<Event>], mask: EventMask) -> Vec<Arc<Event>> {
    let is_in = |place: &usize| mask & (1 << place) != 0;
    (0..events.len()).filter(is_in).map(|place| Arc::clone(&events[place])).collect()
}

/// Takes what else is there already behind an event, as far as it is events, and as many as may go out
/// together: under load a client costs one system call for many events. Nobody waits for more to come.
/// Returns the events and the message behind them, if that was taken.
fn collect(first: Arc<Event>, receiver: &Receiver<Message>) -> (Vec<Arc<Event>>, Option<Message>) {
    let mut bytes = first.data().len();
    let mut events = vec![first];
    while events.len() < MAX_EVENTS && bytes < MAX_BYTES {
        match receiver.try_recv() {
            Ok(Message::Event(event)) => {
                bytes += event.data().len();
                events.push(event);
            }
            Ok(other) => return (events, Some(other)),
            Err(_) => break,
        }
    }
    (events, None)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::client::backlog::Backlog;
    use crate::client::outbox::Limits;
    use crate::config::Fanout;
    use crate::event::Draft;
    use crate::http::coding::Coding;
    use crate::listener::connection::Link;

    #[test]
    fn a_panic_disconnects_its_clients_and_ends_nothing_else() {
        let broadcaster = Broadcaster::start(0, Duration::ZERO).unwrap();
        let subscriber = |client| {
            let (link, peer) = Link::pair();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let limits = Limits { events: 10, bytes: 1 << 20 };
            let backlog = Backlog::new(usize::MAX, Vec::new);
            let outbox = Outbox::new(link, Fanout::Direct, limits, &[], backlog);
            outbox.release();
            let (topics, encoding) = (Topics::All, Encoding::Sse(Coding::Identity));
            let subscribe = Subscriber { client, outbox: Arc::clone(&outbox), topics, encoding };
            broadcaster.mailbox.send(Message::Subscribe(subscribe));
            (outbox, peer)
        };
        let (first, mut peer) = subscriber(1);
        broadcaster.mailbox.send(Message::Panic);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it is disconnected");
        assert_eq!(first.close_reason(), Some(Reason::Internal));
        let (_second, mut peer) = subscriber(2);
        let event = Event::new("1-1".parse().unwrap(), Draft::new("t", None, "there").unwrap());
        broadcaster.mailbox.send(Message::Event(Arc::new(event)));
        let mut start = [0; 8];
        peer.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"id: 1-1\n");
        broadcaster.mailbox.send(Message::Stop);
        broadcaster.thread.join().unwrap();
    }
}
