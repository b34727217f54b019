//! The end of a client's connection: what is still written, and until when.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{CLOSE_TIMEOUT, Outbox, State};
use crate::client::reason::Reason;
use crate::event::payload::Payload;
use crate::os::send::send_now;

impl Outbox {
    /// Ends the connection. The first reason stays. What waits is still written where the server
    /// shuts down, or the client has said goodbye (the answer may be among it), else dropped; then
    /// the close message is written.
    /// Returns whether the reason is the first one.
    pub fn close(self: &Arc<Self>, reason: Reason, message: Option<&[u8]>) -> bool {
        let mut state = self.lock();
        if state.close_reason.is_some() {
            return false;
        }
        state.close_reason = Some(reason);
        state.close_deadline = Instant::now() + CLOSE_TIMEOUT;
        state.close_message = message.map(Into::into);
        if !matches!(reason, Reason::Shutdown | Reason::Closed) {
            self.clear(&mut state);
        }
        let was_taken = state.taken;
        state.taken = true;
        self.signal(state);
        // A writer that sleeps is woken; one that has taken the outbox is at work, and checks.
        if !self.unpark() && !was_taken {
            self.send_close_message_now();
        }
        true
    }

    /// Drops what waits in the channel.
    fn clear(&self, state: &mut State) {
        while self.receiver.try_recv().is_ok() {}
        self.backlog.remove(state.waiting_bytes);
        state.waiting = 0;
        state.waiting_bytes = 0;
    }

    /// For a WebSocket whose outbox was free: the close message fits into the socket's buffer, or a
    /// thread must wait for them.
    fn send_close_message_now(self: &Arc<Self>) {
        let mut state = self.lock();
        let words = state.close_message.take().unwrap_or_default();
        match send_now(self.link.stream(), &words) {
            Ok(sent) if sent < words.len() => {
                state.partial = Some((Payload::Own(words), sent));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !words.is_empty() => {
                state.partial = Some((Payload::Own(words), 0));
            }
            _ => {
                drop(state);
                return self.finish_writing();
            }
        }
        drop(state);
        self.wake();
    }

    /// Nothing more can be written.
    pub(super) fn fail(&self, reason: Reason) {
        let mut state = self.lock();
        state.close_reason.get_or_insert(reason);
        state.close_message = None;
        state.partial = None;
        self.clear(&mut state);
        let _ = self.link.stream().shutdown(std::net::Shutdown::Both);
        self.signal(state);
    }

    /// All has been said: tells the peer so, and whoever waits in [`Outbox::wait_done`].
    pub(super) fn finish_writing(&self) {
        // The end of a stream has to be told; a WebSocket's client has read the close frame, and its
        // session closes when it has been answered.
        if self.link.coding().is_some() {
            let _ = self.link.stream().shutdown(std::net::Shutdown::Write);
        }
        let mut state = self.lock();
        state.is_done = true;
        self.signal(state);
    }

    /// Waits until the close message is written, or given up; at most until `deadline`.
    pub fn wait_done(&self, deadline: Instant) {
        let mut state = self.lock();
        while !state.is_done {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state.waiters += 1;
            let waited = self.room.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiters -= 1;
        }
    }

    /// Gives a client that has been given up more time to hear why: its own thread is busy with it.
    pub fn postpone_abort(&self, until: Instant) {
        self.lock().close_deadline = until;
    }

    /// Cuts the connection of a client that has been given up and has had time enough to hear why.
    pub fn abort_overdue(&self, now: Instant) {
        let overdue = {
            let state = self.lock();
            state.close_reason.is_some() && now > state.close_deadline
        };
        if overdue {
            self.abort();
        }
    }

    /// Cuts the connection, whatever is still to be said: the drain time is over.
    pub fn abort(&self) {
        self.fail(Reason::Shutdown);
        self.finish_writing();
        self.unpark();
    }
}
