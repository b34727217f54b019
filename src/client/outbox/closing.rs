//! The end of a client's connection: what is still written, and until when.

use std::net::Shutdown;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::phase::{Close, Phase};
use super::{CLOSE_TIMEOUT, Outbox, State};
use crate::client::reason::Reason;

impl Outbox {
    /// Ends the connection. The first reason stays. What waits is still written where the server
    /// shuts down, or the client has said goodbye (the answer may be among it), else dropped; then
    /// the close message is written.
    /// Returns whether the reason is the first one.
    pub fn close(self: &Arc<Self>, reason: Reason, message: Option<&[u8]>) -> bool {
        let mut state = self.lock();
        if state.phase.close_reason().is_some() {
            return false;
        }
        if !matches!(reason, Reason::Shutdown | Reason::Closed | Reason::Finished) {
            state.queue.clear();
        }
        let is_idle = matches!(state.phase, Phase::Idle);
        let message = message.map(Into::into);
        self.begin(&mut state, Close { reason, message, deadline: Instant::now() + CLOSE_TIMEOUT });
        // Otherwise somebody writes, and goes on with this.
        if is_idle {
            self.dispatch(state);
        }
        true
    }

    fn begin(&self, state: &mut State, close: Close) {
        match &mut state.phase {
            Phase::Held { close: noted } => *noted = Some(close),
            _ => self.enter(state, Phase::Closing(close)),
        }
    }

    /// The connection is broken: nothing more can be written. The thread that writes finds the closing
    /// phase, and closes.
    pub(super) fn lose(&self, state: &mut State, reason: Reason) {
        state.queue.clear();
        if let Some(close) = state.phase.close() {
            close.message = None;
        } else {
            self.begin(state, Close { reason, message: None, deadline: Instant::now() });
        }
        let _ = self.link.stream().shutdown(Shutdown::Both);
    }

    /// Why the connection ends, if it does.
    pub fn close_reason(&self) -> Option<Reason> {
        self.lock().phase.close_reason()
    }

    /// Waits until the close message is written, or given up; at most until `deadline`.
    pub fn wait_closed(&self, deadline: Instant) {
        let mut state = self.lock();
        while !matches!(state.phase, Phase::Closed(_)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives a client that has been given up more time to hear why: its own thread is busy with it.
    pub fn postpone_abort(&self, until: Instant) {
        if let Some(close) = self.lock().phase.close() {
            close.deadline = until;
        }
    }

    /// Whether a client that has been given up has had time enough to hear why.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.lock().phase.close().is_some_and(|close| now >= close.deadline)
    }

    /// Cuts the connection of such a client. (It may have read all, and not close its side.)
    pub fn abort_overdue(&self, now: Instant) {
        if self.is_overdue(now) {
            self.abort();
        }
    }

    /// Cuts the connection, whatever is still to be said: the drain time is over.
    pub fn abort(&self) {
        self.abort_for(Reason::Shutdown);
    }

    /// The same; `reason` counts where there is none before.
    pub fn abort_for(&self, reason: Reason) {
        let mut state = self.lock();
        state.queue.clear();
        let reason = state.phase.close_reason().unwrap_or(reason);
        let close = Close { reason, message: None, deadline: Instant::now() };
        self.enter(&mut state, Phase::Closed(close));
        drop(state);
        let _ = self.link.stream().shutdown(Shutdown::Both);
        if let Some(thread) = self.writer.get() {
            thread.unpark();
        }
    }
}
