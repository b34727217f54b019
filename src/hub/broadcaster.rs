//! A broadcaster: one thread that owns a share of the subscribers and hands each event to them.
//!
//! There are as many as cores. All of them get the same messages in the same order, because the
//! hub sends under its lock; a subscription travels in the same channel as the events, so it takes
//! effect at one exact place between two of them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::Topics;
use super::event::Event;
use super::mailbox::{Mailbox, receive};
use super::outbox::{Chunk, Outbox};
use crate::websocket::deflate::Window;

/// Messages that may wait for a broadcaster before publishers do.
const CAPACITY: usize = 1024;

/// A comment line: what the standard suggests to keep a silent connection open (WHATWG HTML,
/// section 9.2.7).
const HEARTBEAT: &[u8] = b":\n\n";

/// The form in which a subscriber gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An event stream. The broadcaster also sends its heartbeats and looks whether it is gone.
    Sse,
    /// WebSocket frames. The client's own thread does the rest.
    WebSocket,
    /// WebSocket frames, compressed.
    Deflate(Window),
}

impl Form {
    /// `event` in this form.
    pub fn chunk(self, event: Arc<Event>) -> Chunk {
        match self {
            Form::Sse => Chunk::Sse(event),
            Form::WebSocket => Chunk::WebSocket(event),
            Form::Deflate(window) => Chunk::Deflated(event, window),
        }
    }
}

/// One client as its broadcaster knows it.
pub struct Subscriber {
    /// The client's number.
    pub client: u64,
    /// Where its events go.
    pub outbox: Arc<Outbox>,
    /// Which events.
    pub topics: Topics,
    /// In which form.
    pub form: Form,
}

/// What a broadcaster is told.
pub(super) enum Message {
    Event(Arc<Event>),
    Subscribe(Subscriber),
    Unsubscribe(u64),
    /// Dropped when its turn has come.
    Flush(Sender<()>),
    Stop,
}

/// How long fan-outs took. All counts are for one broadcaster.
#[derive(Debug, Default)]
pub struct Timing {
    /// Events handed out.
    pub events: AtomicU64,
    /// Nanoseconds spent in it.
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
        let share = Share {
            subscribers: HashMap::new(),
            to_all: Group::new(),
            to_topic: HashMap::new(),
            heartbeat,
            timing: Arc::clone(&timing),
        };
        let thread = thread::Builder::new()
            .name(format!("broadcaster {number}"))
            .spawn(move || share.run(&receiver))?;
        let mailbox = Mailbox::new(sender, thread.thread().clone());
        Ok(Broadcaster { mailbox, timing, thread })
    }
}

/// The receivers of one kind of event, by client.
type Group = HashMap<u64, (Form, Arc<Outbox>)>;

struct Share {
    subscribers: HashMap<u64, Subscriber>,
    /// Those who want everything.
    to_all: Group,
    /// Those who want this topic: an event costs nothing for clients that do not want it.
    to_topic: HashMap<Arc<str>, Group>,
    heartbeat: Duration,
    timing: Arc<Timing>,
}

impl Share {
    fn run(mut self, receiver: &Receiver<Message>) {
        let interval = match self.heartbeat {
            Duration::ZERO => Duration::from_secs(1),
            // Often enough that a heartbeat is late by a quarter at the most.
            beat => (beat / 4).clamp(Duration::from_millis(10), Duration::from_secs(1)),
        };
        let mut next = Instant::now() + interval;
        loop {
            // Without subscribers nothing is due, and the thread need not wake.
            let deadline = (!self.subscribers.is_empty()).then_some(next);
            match receive(receiver, deadline) {
                Some(Message::Event(event)) => self.fan_out(&event),
                Some(Message::Subscribe(subscriber)) => self.add(subscriber),
                Some(Message::Unsubscribe(client)) => self.remove(client),
                Some(Message::Stop) => return,
                Some(Message::Flush(turn)) => drop(turn),
                None => {}
            }
            // After messages too: a flood of events must not keep the heartbeat from others.
            let now = Instant::now();
            if now >= next {
                self.tend(now);
                next = now + interval;
            }
        }
    }

    fn add(&mut self, subscriber: Subscriber) {
        let member = || (subscriber.form, Arc::clone(&subscriber.outbox));
        match &subscriber.topics {
            Topics::All => {
                self.to_all.insert(subscriber.client, member());
            }
            Topics::Some(names) => {
                for name in names.iter() {
                    let group = self.to_topic.entry(Arc::clone(name)).or_default();
                    group.insert(subscriber.client, member());
                }
            }
        }
        self.subscribers.insert(subscriber.client, subscriber);
    }

    fn remove(&mut self, client: u64) {
        let Some(subscriber) = self.subscribers.remove(&client) else { return };
        match &subscriber.topics {
            Topics::All => {
                self.to_all.remove(&client);
            }
            Topics::Some(names) => {
                for name in names.iter() {
                    let Some(group) = self.to_topic.get_mut(name) else { continue };
                    group.remove(&client);
                    if group.is_empty() {
                        self.to_topic.remove(name);
                    }
                }
            }
        }
    }

    fn fan_out(&self, event: &Arc<Event>) {
        let start = Instant::now();
        // One chunk for all of a form, so that nothing shared is touched for each of them.
        let sse = Form::Sse.chunk(Arc::clone(event));
        let websocket = Form::WebSocket.chunk(Arc::clone(event));
        let mut deflated: Option<(Form, Chunk)> = None;
        let to_topic = self.to_topic.get(&event.topic).into_iter().flatten();
        for (_, (form, outbox)) in to_topic.chain(&self.to_all) {
            let chunk = match form {
                Form::Sse => &sse,
                Form::WebSocket => &websocket,
                // Nearly all have the same window.
                Form::Deflate(_) => match &mut deflated {
                    Some((same, chunk)) if same == form => chunk,
                    other => &other.insert((*form, form.chunk(Arc::clone(event)))).1,
                },
            };
            // One that is gone is taken out when its own thread unsubscribes.
            outbox.offer(chunk, start);
        }
        let nanos = start.elapsed().as_nanos() as u64;
        self.timing.events.fetch_add(1, Ordering::Relaxed);
        self.timing.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.timing.last.store(nanos, Ordering::Relaxed);
        self.timing.longest.fetch_max(nanos, Ordering::Relaxed);
    }

    fn tend(&self, now: Instant) {
        for subscriber in self.subscribers.values() {
            subscriber.outbox.enforce_end(now);
            if subscriber.form == Form::Sse {
                subscriber.outbox.tend(HEARTBEAT, self.heartbeat, now);
            }
        }
    }
}
