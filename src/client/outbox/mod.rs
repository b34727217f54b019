//! A client's outbox: the one place through which bytes reach its socket.
//!
//! The outbox is *free* or *taken*. Free: whoever has bytes (a broadcaster, an echo, a heartbeat)
//! writes them under the lock, without waiting. What the socket does not take, and all that comes
//! later, goes into the client's channel, and the outbox is taken: one of the client's own threads
//! now writes, waiting for the peer but without the lock, until the channel is empty under the
//! lock. So nobody waits for a slow client but its own thread, and order holds across both ways.
//!
//! In `handoff` mode the outbox is always taken: everything goes through the channel and wakes the
//! client's thread. That is the pure model, and shows what waking a thread costs.
//!
//! | | free | taken, open | closing | done |
//! |---|---|---|---|---|
//! | [`offer`](Outbox::offer) | written; what does not fit: taken | queued; beyond the limits: closing | dropped | dropped |
//! | [`write`](Outbox::write) by the client's thread | the same | waits for its turn | dropped | dropped |
//! | [`take`](Outbox::take) | taken | waits until all before is written | refused | refused |
//! | the queue is written ([`run`](Outbox::run)) | | free | the close message, then done | |
//! | [`close`](Outbox::close) | the close message, then done | closing | nothing: the first reason stays | nothing |
//! | the peer is gone, or its time is over | done | done | done | |
//! | [`abort`](Outbox::abort) | done | done | done | nothing |
//!
//! This file is the queue; `writer` has the threads that write it, `closing` the end, `presence` who is
//! still there.

mod closing;
mod presence;
mod writer;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::client::backlog::{Backlog, Queue};
use crate::client::reason::Reason;
use crate::config::Fanout;
use crate::event::payload::Payload;
use crate::listener::connection::Link;
use crate::os::send::send_now;

/// How long a client that has been given up may take to accept the message it is in the middle
/// of, and the close message.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How much may wait for one client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages.
    pub events: usize,
    /// Bytes; one message always fits.
    pub bytes: usize,
}

/// Who writes what could not be written at once.
enum Drainer {
    /// A thread of the client's that sleeps in [`Outbox::run`].
    Parked(Thread),
    /// A thread that is started for the purpose, and ends when it has caught up. For a WebSocket,
    /// whose own thread is blocked in `read`.
    Spawned,
}

/// See the module's documentation.
// What a fan-out touches stands in front, side by side: with thousands of clients it is reading
// their outboxes from memory that costs, not the few instructions in between.
#[repr(C)]
pub struct Outbox {
    state: Mutex<State>,
    link: Link,
    fanout: Fanout,
    limits: Limits,
    /// What is said last before the connection ends because the client is slow.
    slow_message: &'static [u8],
    drainer: OnceLock<Drainer>,
    sender: Sender<Payload>,
    receiver: Receiver<Payload>,
    /// Signalled when room appears, when the outbox becomes free, and when it is over.
    room: Condvar,
    /// Where what waits is counted for all clients together. Each change of `waiting_bytes` is
    /// made there too, under the lock; it is asked to relieve without.
    backlog: Arc<Backlog>,
}

#[repr(C)]
struct State {
    taken: bool,
    close_reason: Option<Reason>,
    /// Events written.
    sent: u64,
    last_write: Instant,
    /// A message that the socket has taken up to the offset. It goes before the channel.
    partial: Option<(Payload, usize)>,
    /// Messages in the channel, and one more for the payload that is being written, however many that
    /// holds: the peer may have them all before its writer can cross them off.
    waiting: usize,
    /// The bytes of all of these, until they are written.
    waiting_bytes: usize,
    /// Once it is over: until when what still waits, and the close message, may be written.
    close_deadline: Instant,
    close_message: Option<Box<[u8]>>,
    is_done: bool,
    /// The client's own thread has the outbox between [`Outbox::take`] and [`Outbox::release`], or
    /// wants it: whoever writes hands it over when nothing waits.
    held: bool,
    wanted: bool,
    /// Threads that wait for `room`. To signal it without need is a system call each time.
    waiters: usize,
    /// When the kernel is asked next whether the peer acknowledges what was sent, and since when it
    /// has not: then with the count of bytes that it had acknowledged.
    next_check: Instant,
    silent_since: Option<(Instant, u64)>,
}

/// What became of bytes in [`Outbox::send_free`].
enum Sent {
    Whole,
    Partly,
    Lost,
}
impl Outbox {
    /// An outbox that is taken by its maker, who writes the first bytes and then calls
    /// [`Outbox::release`] or [`Outbox::run`].
    pub fn new(
        link: Link,
        fanout: Fanout,
        limits: Limits,
        slow_message: &'static [u8],
        backlog: Arc<Backlog>,
    ) -> Arc<Outbox> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let now = Instant::now();
        Arc::new(Outbox {
            link,
            fanout,
            limits,
            slow_message,
            drainer: OnceLock::new(),
            sender,
            receiver,
            state: Mutex::new(State {
                taken: true,
                partial: None,
                waiting: 0,
                waiting_bytes: 0,
                last_write: now,
                close_reason: None,
                close_deadline: now,
                close_message: None,
                is_done: false,
                held: false,
                wanted: false,
                waiters: 0,
                sent: 0,
                next_check: now,
                silent_since: None,
            }),
            room: Condvar::new(),
            backlog,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's socket, for reading and for its options.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Which way its events go.
    pub fn fanout(&self) -> Fanout {
        self.fanout
    }

    /// Events written so far.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Messages and bytes that wait.
    pub fn queued(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting, state.waiting_bytes)
    }

    /// Why the connection ends, if it does.
    pub fn close_reason(&self) -> Option<Reason> {
        self.lock().close_reason
    }

    /// The calling thread will write what cannot be written at once: it calls [`Outbox::run`].
    pub fn drained_by_this_thread(&self) {
        let _ = self.drainer.set(Drainer::Parked(thread::current()));
    }

    /// A thread will be started to write what cannot be written at once.
    pub fn drained_by_new_threads(&self) {
        let _ = self.drainer.set(Drainer::Spawned);
    }

    /// Reads what [`Outbox::offer`] is going to read, and makes nothing of it: a processor waits for
    /// memory less often where it knows early what will be wanted.
    #[inline]
    pub fn fetch(&self) {
        std::hint::black_box((self.state.is_poisoned(), self.link.stream().as_raw_fd()));
    }

    /// Hands a message over without waiting. It is cloned only where it must wait: a fan-out in
    /// which all clients keep up touches nothing that is shared between them.
    pub fn offer(self: &Arc<Self>, payload: &Payload, now: Instant) {
        let mut state = self.lock();
        if state.close_reason.is_some() {
            return;
        }
        if !state.taken {
            match self.send_free(&mut state, payload.bytes(), || payload.clone()) {
                Sent::Whole => {
                    state.last_write = now;
                    state.sent += payload.events() as u64;
                }
                Sent::Partly => {
                    drop(state);
                    self.wake();
                    self.backlog.relieve();
                }
                Sent::Lost => {
                    drop(state);
                    self.close(Reason::Lost, None);
                }
            }
            return;
        }
        let length = payload.bytes().len();
        let full = state.waiting + payload.messages() > self.limits.events
            || state.waiting_bytes + length > self.limits.bytes;
        if state.waiting > 0 && full {
            drop(state);
            self.close(Reason::Slow, Some(self.slow_message));
            return;
        }
        self.enqueue(&mut state, payload.clone());
        drop(state);
        // In direct mode the thread that has taken the outbox is awake already.
        if self.fanout == Fanout::Handoff {
            self.wake();
        }
        self.backlog.relieve();
    }

    fn enqueue(&self, state: &mut State, payload: Payload) {
        self.count_waiting(state, payload.messages(), payload.bytes().len());
        let _ = self.sender.send(payload);
    }

    /// This waits as well. The caller asks the backlog to relieve, when it holds no lock.
    fn count_waiting(&self, state: &mut State, messages: usize, bytes: usize) {
        state.waiting += messages;
        state.waiting_bytes += bytes;
        self.backlog.add(bytes);
    }

    /// Writes a whole message from the client's own thread, waiting for the peer and for whoever
    /// is writing. After the end bytes are accepted and dropped.
    pub fn write(self: &Arc<Self>, bytes: &[u8]) {
        let mut state = self.lock();
        // While the client is behind, its own messages leave half of the queue to events.
        let room = (self.limits.events / 2).max(1);
        loop {
            if state.close_reason.is_some() {
                return;
            }
            if !state.taken {
                break;
            }
            if self.fanout == Fanout::Handoff && state.waiting < room {
                self.enqueue(&mut state, Payload::Own(bytes.into()));
                drop(state);
                self.wake();
                return self.backlog.relieve();
            }
            state.waiters += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiters -= 1;
        }
        let sent = self.send_free(&mut state, bytes, || Payload::Own(bytes.into()));
        drop(state);
        match sent {
            Sent::Whole => {}
            Sent::Partly => {
                self.backlog.relieve();
                self.drain();
            }
            Sent::Lost => {
                self.close(Reason::Lost, None);
            }
        }
    }

    /// Writes a whole message if nothing waits for the client, and does not wait for it either.
    /// Returns whether it was written, or will be before anything else.
    pub fn write_if_idle(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.close_reason.is_some() || state.held || state.waiting > 0 {
            return false;
        }
        if state.taken {
            // Only in handoff mode: there the client's thread sleeps.
            self.enqueue(&mut state, Payload::Own(bytes.into()));
            drop(state);
            self.wake();
            return true;
        }
        let sent = self.send_free(&mut state, bytes, || Payload::Own(bytes.into()));
        drop(state);
        match sent {
            Sent::Whole => {}
            Sent::Partly => self.wake(),
            Sent::Lost => {
                self.close(Reason::Lost, None);
            }
        }
        true
    }

    /// Writes into a free outbox what the socket takes at once. What it does not take is kept, as
    /// the `payload` that it belongs to, and the outbox is taken: the caller sees to its writer.
    // A fan-out's innermost step.
    #[inline(always)]
    fn send_free(
        &self,
        state: &mut State,
        bytes: &[u8],
        payload: impl FnOnce() -> Payload,
    ) -> Sent {
        let sent = match send_now(self.link.stream(), bytes) {
            Ok(sent) if sent == bytes.len() => return Sent::Whole,
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Sent::Lost,
        };
        let payload = payload();
        self.count_waiting(state, 1, payload.bytes().len());
        state.partial = Some((payload, sent));
        state.taken = true;
        Sent::Partly
    }

    /// Takes the outbox for the calling thread, one of the client's own, when all that was handed
    /// over before is written. What comes from now on waits until [`Outbox::release`], behind what
    /// the caller writes. Returns `false`, and takes nothing, where the connection is over.
    pub fn take(&self) -> bool {
        let mut state = self.lock();
        let idle = match self.fanout {
            Fanout::Direct => !state.taken,
            // What waits is counted until it is written.
            Fanout::Handoff => state.waiting == 0,
        };
        if idle && state.close_reason.is_none() {
            state.taken = true;
            state.held = true;
        }
        // To wait for a free moment could be for ever, with events coming one after another.
        state.wanted = !state.held;
        while !state.held {
            if state.close_reason.is_some() {
                state.wanted = false;
                return false;
            }
            state.waiters += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiters -= 1;
        }
        true
    }

    /// Writes a payload while the outbox is taken by the calling thread and nothing is in front of
    /// it: the beginning of the stream, or a replay.
    pub fn write_taken(&self, payload: Payload) {
        let written = self.write_out(&payload, 0);
        if written {
            self.lock().sent += payload.events() as u64;
        }
    }

    /// Gives the outbox that this thread has taken back, after what came meanwhile is written.
    pub fn release(&self) {
        self.lock().held = false;
        // In handoff mode there is a thread to write it.
        if !self.unpark() {
            self.drain();
        }
    }

    /// The same for a thread that must not wait for the peer: a thread is started for what came
    /// meanwhile (see [`Outbox::drained_by_new_threads`]).
    pub fn release_to_new_thread(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.waiting > 0 || state.close_reason.is_some() {
            drop(state);
            return self.wake();
        }
        state.taken = false;
        self.signal(state);
    }

    /// Lets those look again who wait for room, for the outbox to be free, or for its end.
    fn signal(&self, state: MutexGuard<'_, State>) {
        let waiters = state.waiters;
        drop(state);
        if waiters > 0 {
            self.room.notify_all();
        }
    }
}

impl Queue for Outbox {
    fn bytes(&self) -> usize {
        self.queued().1
    }

    fn shed(self: Arc<Self>) -> bool {
        self.close(Reason::Crowded, Some(self.slow_message))
    }
}

impl Drop for Outbox {
    /// Nothing waits any more, whatever the client's threads came to.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.backlog.remove(state.waiting_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::event::batch::Batch;
    use crate::event::{Draft, Event};
    use crate::http::coding::Coding;

    /// So many events, one behind the other, as one payload.
    fn payload(events: usize, size: usize) -> Payload {
        let data = "x".repeat(size);
        let event = |n| {
            let id = format!("1-{n}").parse().unwrap();
            Arc::new(Event::new(id, Draft::new("t", None, &data).unwrap()))
        };
        let batch = Batch::new((0..events).map(event).collect::<Vec<_>>());
        Payload::Sse(Arc::new(batch), Coding::Identity)
    }

    /// A batch larger than the queue is on its way: the queue behind it is there for what comes
    /// next, however little the peer has taken of it.
    #[test]
    fn what_is_being_written_counts_as_one_message() {
        for fanout in [Fanout::Direct, Fanout::Handoff] {
            let (link, mut peer) = Link::pair();
            let limits = Limits { events: 4, bytes: usize::MAX };
            let backlog = Backlog::new(usize::MAX, Vec::new);
            let outbox = Outbox::new(link, fanout, limits, &[], backlog);
            let large = payload(10, 2 << 20);
            outbox.offer(&large, Instant::now());
            assert_eq!(outbox.queued().0, 10, "nobody writes it yet");
            std::thread::scope(|scope| {
                scope.spawn(|| outbox.drain());
                peer.read_exact(&mut [0; 4096]).unwrap();
                assert_eq!(outbox.queued(), (1, large.bytes().len()));
                for more in 1..=3 {
                    outbox.offer(&payload(1, 1), Instant::now());
                    assert_eq!((outbox.close_reason(), outbox.queued().0), (None, 1 + more));
                }
                outbox.offer(&payload(1, 1), Instant::now());
                assert_eq!(outbox.close_reason(), Some(Reason::Slow));
                drop(peer);
            });
        }
    }
}
