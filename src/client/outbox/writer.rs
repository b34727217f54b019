//! The writers of an outbox: threads that write what could not be written at once, waiting for the
//! peer. They are blocked in `poll`, which ends when the peer reads, or when the socket is shut down.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Drainer, Outbox};
use crate::client::reason::Reason;
use crate::config::Fanout;
use crate::event::payload::Payload;
use crate::listener::threads::STACK_BYTES;
use crate::os::send::{send_now, wait_writable};
use crate::os::tcp;

/// How often a writer that waits for its peer asks whether that is still there. As long as it is, it
/// may read as slowly as its queue allows.
const PEER_CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// The longest a blocked writer sleeps before it looks whether its client has been given up.
const SLICE: Duration = Duration::from_millis(100);

/// What the client's thread is woken for.
enum Work {
    Write(Payload, usize),
    Idle,
    Over,
}

impl Outbox {
    /// Wakes the writer, if it is a thread that sleeps in [`Outbox::run`]; returns whether it is.
    pub(super) fn unpark(&self) -> bool {
        let Some(Drainer::Parked(thread)) = self.drainer.get() else { return false };
        thread.unpark();
        true
    }

    /// Sleeps until there is something to write, writes it, and so on until the connection is
    /// over. The life of an SSE client's thread, and of a WebSocket's writer in handoff mode.
    pub fn run(&self) -> Reason {
        loop {
            self.drain();
            loop {
                {
                    let state = self.lock();
                    if let (true, Some(reason)) = (state.is_done, state.close_reason) {
                        return reason;
                    }
                    let work = state.partial.is_some()
                        || state.waiting > 0
                        || state.close_reason.is_some();
                    if work && !state.held {
                        break;
                    }
                }
                thread::park();
            }
        }
    }

    /// Writes what waits, in order, until nothing does; then gives the outbox back.
    pub(super) fn drain(&self) {
        loop {
            match self.next_work() {
                Work::Write(payload, offset) => {
                    let written = self.write_out(&payload, offset);
                    let mut state = self.lock();
                    // Less than the payload where it was cleared meanwhile, or was the close message.
                    let bytes = payload.bytes().len().min(state.waiting_bytes);
                    state.waiting = state.waiting.saturating_sub(1);
                    state.waiting_bytes -= bytes;
                    self.backlog.remove(bytes);
                    state.last_write = Instant::now();
                    if written {
                        state.sent += payload.events() as u64;
                    }
                    self.signal(state);
                }
                Work::Idle => return,
                Work::Over => return self.finish_writing(),
            }
        }
    }

    fn next_work(&self) -> Work {
        let mut state = self.lock();
        if state.held {
            return Work::Idle;
        }
        if let Some((payload, offset)) = state.partial.take() {
            return Work::Write(payload, offset);
        }
        if let Ok(payload) = self.receiver.try_recv() {
            state.waiting = state.waiting.saturating_sub(payload.messages() - 1);
            return Work::Write(payload, 0);
        }
        if state.close_reason.is_some() {
            return match state.close_message.take() {
                Some(words) => Work::Write(Payload::Own(words), 0),
                None => Work::Over,
            };
        }
        if state.wanted {
            state.wanted = false;
            state.held = true;
            self.signal(state);
        } else if self.fanout == Fanout::Direct {
            state.taken = false;
            self.signal(state);
        }
        Work::Idle
    }

    /// Writes all of a payload from `offset` on, waiting for the peer. Returns whether it was
    /// written; if not, the connection is over.
    pub(super) fn write_out(&self, payload: &Payload, offset: usize) -> bool {
        let mut left = &payload.bytes()[offset..];
        let mut check = Instant::now() + PEER_CHECK_INTERVAL;
        let mut last_told = tcp::Unacknowledged::default();
        while !left.is_empty() {
            match send_now(self.link.stream(), left) {
                Ok(sent) => left = &left[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = Instant::now();
                    let is_overdue = {
                        let state = self.lock();
                        state.close_reason.is_some() && now >= state.close_deadline
                    };
                    if is_overdue {
                        self.fail(Reason::Stuck);
                        return false;
                    }
                    let mut is_gone = false;
                    if now >= check {
                        check = now + PEER_CHECK_INTERVAL;
                        let told = tcp::unacknowledged(self.link.stream());
                        // Whoever has taken bytes since the last check is there: a moment in which
                        // data is sent again is the life of a bad line.
                        is_gone = told.is_overdue && told == last_told;
                        last_told = told;
                    }
                    if is_gone || wait_writable(self.link.stream(), now + SLICE).is_err() {
                        self.fail(Reason::Lost);
                        return false;
                    }
                }
                Err(_) => {
                    self.fail(Reason::Lost);
                    return false;
                }
            }
        }
        true
    }

    pub(super) fn wake(self: &Arc<Self>) {
        match self.drainer.get() {
            Some(Drainer::Parked(thread)) => thread.unpark(),
            Some(Drainer::Spawned) => {
                let outbox = Arc::clone(self);
                let name = format!("wsw {}", self.link.peer());
                let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES);
                if thread.spawn(move || outbox.drain()).is_err() {
                    self.fail(Reason::Internal);
                }
            }
            // The maker still holds the outbox, and will look.
            None => {}
        }
    }
}
