//! What waits for one client: its crossbeam channel, and how much is in it.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::client::backlog::Backlog;
use crate::event::payload::Payload;

/// How much may wait for one client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages.
    pub events: usize,
    /// Bytes; one message always fits.
    pub bytes: usize,
}

/// A payload, or what is left of it, on its way to a client.
pub struct Piece {
    payload: Payload,
    /// How many of its bytes the socket has taken.
    pub(super) sent: usize,
    /// For how many messages it counts.
    messages: usize,
}

impl Piece {
    pub(super) fn new(payload: Payload) -> Piece {
        let messages = payload.messages();
        Piece { payload, sent: 0, messages }
    }

    /// A payload that is being written. It counts for one message, however many it holds: the peer may
    /// have read them all before its writer can cross them off.
    pub(super) fn begun(payload: Payload, sent: usize) -> Piece {
        Piece { payload, sent, messages: 1 }
    }

    pub(super) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// What is still to be sent.
    pub(super) fn rest(&self) -> &[u8] {
        &self.payload.bytes()[self.sent..]
    }
}

/// See the module's documentation. It is locked with the rest of the outbox's state.
pub(super) struct Queue {
    limits: Limits,
    sender: Sender<Piece>,
    pub(super) receiver: Receiver<Piece>,
    messages: usize,
    bytes: usize,
    backlog: Arc<Backlog>,
}

impl Queue {
    // A channel is built on the stack: one frame for it less is a page less of each idle client's stack.
    #[inline(always)]
    pub fn new(limits: Limits, backlog: Arc<Backlog>) -> Queue {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Queue { limits, sender, receiver, messages: 0, bytes: 0, backlog }
    }

    /// Messages that are not written yet.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// The bytes of all of these; a payload counts whole until all of it is written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub fn has_room(&self, payload: &Payload) -> bool {
        let is_within = self.messages + payload.messages() <= self.limits.events
            && self.bytes + payload.bytes().len() <= self.limits.bytes;
        self.is_empty() || is_within
    }

    /// The caller asks the backlog to relieve, when it holds no lock.
    pub fn push(&mut self, piece: Piece) {
        let bytes = piece.payload.bytes().len();
        self.messages += piece.messages;
        self.bytes += bytes;
        self.backlog.add(bytes);
        // Both ends are here: it cannot fail.
        let _ = self.sender.send(piece);
    }

    /// The next one, for the writer. It counts until [`Queue::count_written`].
    pub fn pop(&mut self) -> Option<Piece> {
        let Piece { payload, sent, messages } = self.receiver.try_recv().ok()?;
        self.messages -= messages - 1;
        Some(Piece::begun(payload, sent))
    }

    /// `piece` is written, or dropped. After [`Queue::clear`], and for a close message, nothing counts.
    pub fn count_written(&mut self, piece: &Piece) {
        let bytes = piece.payload.bytes().len().min(self.bytes);
        self.messages = self.messages.saturating_sub(1);
        self.bytes -= bytes;
        self.backlog.remove(bytes);
    }

    /// Drops what waits, and counts nothing any more. A message that the peer is in the middle of stays:
    /// without its end it would take for it what comes next.
    pub fn clear(&mut self) {
        let begun = self.receiver.try_recv().ok().filter(|piece| piece.sent > 0);
        while self.receiver.try_recv().is_ok() {}
        if let Some(piece) = begun {
            let _ = self.sender.send(piece);
        }
        self.backlog.remove(self.bytes);
        (self.messages, self.bytes) = (0, 0);
    }
}

impl Drop for Queue {
    /// Nothing waits any more, whatever the client's threads came to.
    fn drop(&mut self) {
        self.backlog.remove(self.bytes);
    }
}
