//! A client's outbox: the one place through which bytes reach its socket.
//!
//! With `--fanout direct` the thread that has bytes for a client which keeps up (mostly its broadcaster)
//! writes them to the socket itself, without waiting. What the socket does not take, and all that comes behind
//! it, goes into the client's channel, and a thread of the client's writes it, waiting for the peer. So nobody
//! waits for a slow client but its own thread. With `--fanout handoff` every event goes through the channel
//! and wakes the client's thread: the pure model, which shows what waking a thread costs. Here the two differ
//! in one place, in [`Outbox::offer`].
//!
//! # Phases
//!
//! At each moment one thread at most writes, and the outbox's phase says which:
//!
//! | phase | who writes | what else comes |
//! |---|---|---|
//! | idle | nobody: nothing waits | `direct`: is written at once; `handoff`: is queued |
//! | draining | the client's writer, until nothing waits | is queued |
//! | held | the thread that has taken it, until it releases it (at first its maker) | is queued; a close is noted |
//! | closing | the writer: what is left, then the close message | is dropped |
//! | closed | nobody | is dropped |
//!
//! After a close all that was queued is left where the server shuts down or the client has said goodbye,
//! otherwise only a message of which the peer has a part.
//!
//! `=` stands for no change; what never happens is left empty.
//!
//! | event | idle | draining | held | closing | closed |
//! |---|---|---|---|---|---|
//! | [`offer`](Outbox::offer) | written =; or queued: draining | queued =; beyond its limits: closing | queued =; beyond its limits: a close is noted; after that dropped = | dropped = | dropped = |
//! | [`offer_if_idle`](Outbox::offer_if_idle) | as an offer | refused = | refused = | refused = | refused = |
//! | [`take`](Outbox::take) | held | waits for the writer to hand over: held; or for a close: refused | | refused = | refused = |
//! | [`release`](Outbox::release) | | | idle, draining, or if a close is noted closing | | wakes the writer = |
//! | the writer has written all | | idle; held for a thread that waits in `take` | | closed | |
//! | [`close`](Outbox::close) | closing | closing | a close is noted; the first reason stays | the first reason stays = | the first reason stays = |
//! | the connection breaks | closing | closing | a close is noted | nothing more is written = | = |
//! | [`abort`](Outbox::abort), or the time to close is over | closed | closed | closed | closed | closed |
//!
//! # Writers
//!
//! An event stream's thread is its writer: it sleeps in [`Outbox::next_piece`] until a change from idle, or
//! a release, wakes it. A WebSocket's thread is blocked in `read`; so with `handoff` it has a second thread
//! as its writer. With `direct` it has none: the thread that changes the phase takes the writer's steps as far
//! as the socket takes the bytes at once (so draining may be idle again in the same moment), and starts a
//! thread for the rest, which ends when it has caught up.
//!
//! This file is for those who have something to write; `queue` is what waits, `writer` the threads that write
//! it, `closing` the end, and `presence` tells who is still there.

mod closing;
mod phase;
mod presence;
mod queue;
mod writer;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::client::backlog::{Backlog, Queued};
use crate::client::reason::Reason;
use crate::config::Fanout;
use crate::event::payload::Payload;
use crate::listener::connection::Link;
use crate::os::send::{is_writable, send_now};
use crate::os::tcp;
use phase::Phase;
use presence::Presence;
pub use queue::{Limits, Piece};

/// How long a client that has been given up may take to accept the message it is in the middle
/// of, and the close message.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Outbox {
    state: Mutex<State>,
    link: Link,
    fanout: Fanout,
    /// What is said last before the connection ends because the client is slow.
    slow_message: &'static [u8],
    /// The thread that sleeps until something waits. Without it one is started when the socket does not
    /// take everything, and ends when nothing waits any more.
    writer: OnceLock<Thread>,
    /// Signalled when the outbox is handed over to who waits for it, and when it is closed.
    changed: Condvar,
    /// What waits for all clients together. It is updated under the lock, and asked to relieve after it.
    backlog: Arc<Backlog>,
}

struct State {
    phase: Phase,
    queue: queue::Queue,
    /// Events written.
    sent: u64,
    last_write: Instant,
    presence: Presence,
}

impl State {
    fn count_written(&mut self, payload: &Payload, now: Instant) {
        self.sent += payload.events() as u64;
        self.last_write = now;
    }
}

impl Outbox {
    /// An outbox that is held by its maker, who writes the first bytes and then releases it.
    pub fn new(
        link: Link,
        fanout: Fanout,
        limits: Limits,
        slow_message: &'static [u8],
        backlog: Arc<Backlog>,
    ) -> Arc<Outbox> {
        let now = Instant::now();
        Arc::new(Outbox {
            state: Mutex::new(State {
                phase: Phase::Held { close: None },
                queue: queue::Queue::new(limits, Arc::clone(&backlog)),
                sent: 0,
                last_write: now,
                presence: Presence::new(now),
            }),
            link,
            fanout,
            slow_message,
            writer: OnceLock::new(),
            changed: Condvar::new(),
            backlog,
        })
    }

    /// Makes `thread` the one that writes what waits: it calls [`Outbox::next_piece`] until the end.
    pub fn set_writer(&self, thread: Thread) {
        let _ = self.writer.set(thread);
    }

    /// The client's socket, for reading and for its options.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Events written so far.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Messages and bytes that wait.
    pub fn queued(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.messages(), state.queue.bytes())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The only place where the phase changes. Wakes who waits for that.
    fn enter(&self, state: &mut State, phase: Phase) {
        let before = std::mem::replace(&mut state.phase, phase);
        // To signal without need would be a system call for each client that falls behind.
        let is_awaited = matches!(before, Phase::Draining { wanted: true });
        if is_awaited || matches!(state.phase, Phase::Closed(_)) {
            self.changed.notify_all();
        }
    }

    /// Hands a message over without waiting for the client. It is cloned only where it must wait: a
    /// fan-out in which all clients keep up touches nothing that is shared between them.
    pub fn offer(self: &Arc<Self>, payload: &Payload, now: Instant) {
        self.offer_locked(self.lock(), payload, now);
    }

    /// The same, if nothing waits for the client. Returns whether that was so.
    pub fn offer_if_idle(self: &Arc<Self>, payload: &Payload, now: Instant) -> bool {
        let state = self.lock();
        let is_idle = matches!(state.phase, Phase::Idle);
        if is_idle {
            self.offer_locked(state, payload, now);
        }
        is_idle
    }

    // A fan-out's innermost step.
    #[inline]
    fn offer_locked(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        payload: &Payload,
        now: Instant,
    ) {
        match &state.phase {
            Phase::Idle => {
                // The two ways of a fan-out: who writes, the caller or the client's thread.
                let sent = match self.fanout {
                    Fanout::Direct => send_now(self.link.stream(), payload.bytes()),
                    Fanout::Handoff => Ok(0),
                };
                let sent = match sent {
                    Ok(sent) if sent == payload.bytes().len() => {
                        return state.count_written(payload, now);
                    }
                    Ok(sent) => sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(_) => {
                        drop(state);
                        self.close(Reason::Lost, None);
                        return;
                    }
                };
                state.queue.push(Piece::begun(payload.clone(), sent));
                self.enter(&mut state, Phase::Draining { wanted: false });
                self.dispatch(state);
            }
            // The writer is awake, or the holder will see to it.
            Phase::Draining { .. } | Phase::Held { close: None } => {
                if !state.queue.has_room(payload, || is_writable(self.link.stream())) {
                    drop(state);
                    self.close(Reason::Slow, Some(self.slow_message));
                    return;
                }
                state.queue.push(Piece::new(payload.clone()));
                drop(state);
            }
            Phase::Held { close: Some(_) } | Phase::Closing(_) | Phase::Closed(_) => return,
        }
        self.backlog.relieve();
    }

    /// Takes the outbox for the calling thread, one of the client's own, when all that was handed
    /// over before is written. What comes from now on waits until [`Outbox::release`], behind what
    /// the caller writes. Returns `false`, and takes nothing, where the connection is over.
    pub fn take(&self) -> bool {
        let mut state = self.lock();
        match &mut state.phase {
            Phase::Idle => self.enter(&mut state, Phase::Held { close: None }),
            // To wait for idle could fail for ever, with events one after the other. So the writer hands the
            // outbox over when its queue is empty.
            Phase::Draining { wanted } => *wanted = true,
            _ => {}
        }
        while matches!(state.phase, Phase::Draining { .. }) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        matches!(state.phase, Phase::Held { .. })
    }

    /// Writes a payload from the thread that holds the outbox, waiting for the peer.
    pub fn write_held(&self, payload: &Payload) {
        if self.write_out(payload.bytes()) {
            self.lock().count_written(payload, Instant::now());
        }
    }

    /// Gives the outbox back. What came meanwhile is written by its writer.
    pub fn release(self: &Arc<Self>) {
        let mut state = self.lock();
        let next = match &mut state.phase {
            Phase::Held { close } => match close.take() {
                Some(close) => Phase::Closing(close),
                None if state.queue.is_empty() => Phase::Idle,
                None => Phase::Draining { wanted: false },
            },
            // The connection was cut meanwhile. A writer that was set since then must see it.
            _ => return self.dispatch(state),
        };
        let is_idle = matches!(next, Phase::Idle);
        self.enter(&mut state, next);
        if !is_idle {
            self.dispatch(state);
        }
    }

    /// Writes a message of the client's own thread, when it is its turn, and waits for the peer. After
    /// the end it is dropped.
    pub fn write(self: &Arc<Self>, bytes: &[u8]) {
        if self.take() {
            self.write_out(bytes);
            self.release();
        }
    }

    /// What the broadcaster does each second for a client that only listens: sends `heartbeat` when nothing
    /// was written for `interval`, and ends the connection of a client that has vanished. With an interval of
    /// zero it does nothing.
    pub fn tick(self: &Arc<Self>, heartbeat: &'static [u8], interval: Duration, now: Instant) {
        if interval.is_zero() {
            return;
        }
        let mut state = self.lock();
        if state.presence.is_due(now) {
            let told = tcp::unacknowledged(self.link.stream());
            if state.presence.has_vanished(told, interval, now) {
                drop(state);
                self.close(Reason::Lost, None);
                return;
            }
        }
        let is_due = now.saturating_duration_since(state.last_write) >= interval;
        drop(state);
        if is_due && self.offer_if_idle(&Payload::own(heartbeat), now) {
            // A heartbeat is acknowledged within a round trip: ask about that one soon.
            self.lock().presence.next_check = now + Duration::from_secs(1);
        }
    }
}

impl Queued for Outbox {
    fn bytes(&self) -> usize {
        self.queued().1
    }

    fn disconnect(self: Arc<Self>) -> bool {
        self.close(Reason::Crowded, Some(self.slow_message))
    }
}

#[cfg(test)]
mod tests;
