//! What waits for one client: its crossbeam channel, and how much is in it.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::client::backlog::Backlog;
use crate::event::payload::Payload;

/// How much may wait for one client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages, while the client's socket takes no more.
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
    /// Made when something waits for the first time: a client that keeps up needs none, and its thread's
    /// stack is not touched by making it (half a KiB of heap and a page of stack of each idle client).
    channel: Option<(Sender<Piece>, Receiver<Piece>)>,
    messages: usize,
    bytes: usize,
    backlog: Arc<Backlog>,
}

impl Queue {
    pub fn new(limits: Limits, backlog: Arc<Backlog>) -> Queue {
        Queue { limits, channel: None, messages: 0, bytes: 0, backlog }
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

    fn send(&mut self, piece: Piece) {
        let (sender, _) = self.channel.get_or_insert_with(crossbeam_channel::unbounded);
        // Both ends are here: it cannot fail.
        let _ = sender.send(piece);
    }

    fn receive(&self) -> Option<Piece> {
        self.channel.as_ref()?.1.try_recv().ok()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.channel.as_ref().map_or(0, |(_, receiver)| receiver.len())
    }

    /// Whether a payload may wait here. Too many messages alone do not make a client slow: where its socket would
    /// take more, a thread of ours has not had its turn (it greets the client, or has still to wake), and only
    /// bytes bound what waits.
    pub fn has_room(&self, payload: &Payload, is_writable: impl FnOnce() -> bool) -> bool {
        let bytes_fit = self.bytes + payload.bytes().len() <= self.limits.bytes;
        let messages_fit = self.messages + payload.messages() <= self.limits.events;
        self.is_empty() || (bytes_fit && (messages_fit || is_writable()))
    }

    /// The caller asks the backlog to relieve, when it holds no lock.
    pub fn push(&mut self, piece: Piece) {
        let bytes = piece.payload.bytes().len();
        self.messages += piece.messages;
        self.bytes += bytes;
        self.backlog.add(bytes);
        self.send(piece);
    }

    /// The next one, for the writer. It counts until [`Queue::count_written`].
    pub fn pop(&mut self) -> Option<Piece> {
        let Piece { payload, sent, messages } = self.receive()?;
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
        let begun = self.receive().filter(|piece| piece.sent > 0);
        while self.receive().is_some() {}
        if let Some(piece) = begun {
            self.send(piece);
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
