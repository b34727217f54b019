//! A WebSocket client's session: the life of its thread.
//!
//! The thread is blocked in `read`, and answers what it reads. A message wakes it, the read's timeout (then
//! it is time for a ping), or a `shutdown` of the socket by whoever ends the connection. Events come from the
//! broadcaster through the client's [`Outbox`]; answers go into the same outbox, each a whole frame, so they
//! never interleave.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use super::commands::Commands;
use super::output::{compressed, text_message};
use super::pulse::Pulse;
use super::stream::Stream;
use crate::client::outbox::{CLOSE_TIMEOUT, Outbox};
use crate::client::reason::Reason;
use crate::os::clock::timestamp;
use crate::os::send::{ReadBounds, read_out};
use crate::ws::deflate::Window;
use crate::ws::failure::Failure;
use crate::ws::frame::frame;
use crate::ws::incoming::{Incoming, Message, Received};

/// The close frame for a client that is too slow: 1013, `Try Again Later` (IANA registry of close
/// codes). Come back, with the id of the last event.
pub(super) const TOO_SLOW: &[u8] = b"\x88\x0a\x03\xf5too slow";

/// How long a client is read from that has been sent a close frame.
const LINGER: ReadBounds =
    ReadBounds { time: Duration::from_secs(1), idle: Duration::from_secs(1), bytes: 64 << 20 };

/// The same for a client that is in the middle of a message which was refused: on a slow line it takes
/// seconds until the close frame is read.
const UPLOAD_LINGER: ReadBounds =
    ReadBounds { time: Duration::from_secs(30), idle: Duration::from_secs(5), bytes: 64 << 20 };

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/ws`: a welcome, answers in JSON, events.
    Client,
    /// The same with the subprotocol [`PROTOCOL`](super::commands::PROTOCOL): commands instead of answers.
    Commands,
    /// `/echo`: every message comes back as it was, and nothing else does.
    Echo,
}

/// What the client's thread knows of it.
pub(super) struct Session {
    pub outbox: Arc<Outbox>,
    pub kind: Kind,
    /// With [`Kind::Commands`].
    pub commands: Option<Box<Commands>>,
    pub deflate: Option<Window>,
    pub pulse: Pulse,
}

impl Session {
    /// Reads until the client leaves or is given up. Blocked in `read` for most of its life: what is on
    /// the stack here stays resident.
    pub fn run(&mut self, early: Vec<u8>, limit: usize) -> Reason {
        let stream = Stream::new(Arc::clone(&self.outbox));
        let mut incoming = Incoming::new(stream, &early, limit, self.deflate);
        drop(early);
        // The read's timeout is what wakes this thread for pings, and from a client that is gone.
        let timeout = self.pulse.interval();
        if self.outbox.link().stream().set_read_timeout(timeout).is_err() {
            return Reason::Lost;
        }
        loop {
            match incoming.receive() {
                Ok(Received::Message(message)) => self.answer(message),
                Ok(Received::Ping(payload)) => {
                    self.outbox.write(&frame(Frame::pong(payload.to_vec())));
                }
                Ok(Received::Pong) | Err(Failure::Timeout) => {}
                Ok(Received::Close(payload)) => return self.answer_close(payload),
                Err(Failure::Lost) => return Reason::Lost,
                Err(Failure::Wrong(code, why)) => return self.refuse(code, why, incoming),
            }
            if self.pulse.is_silent(&self.outbox, incoming.last_read()) {
                return self.drop_silent();
            }
        }
    }

    fn answer(&mut self, message: Message<'_>) {
        if let Some(commands) = &mut self.commands {
            return match message.text() {
                Some(text) => commands.execute(text),
                None => commands.refuse_binary(),
            };
        }
        match (self.kind, message.text()) {
            (Kind::Client, Some(text)) => {
                let original = serde_json::Value::from(text);
                let processed = timestamp();
                let answer = format!(
                    r#"{{"type":"response","original":{original},"processedAt":"{processed}"}}"#
                );
                self.outbox.write(&text_message(&answer, self.deflate));
            }
            (_, _) => match compressed(self.deflate, message.kind(), message.payload()) {
                Some(frame) => self.outbox.write(&frame),
                None => self.outbox.write(message.into_frame()),
            },
        }
    }

    /// Gives a silent client up. It may only have slept: where its socket takes it, it is told to come
    /// back.
    fn drop_silent(&self) -> Reason {
        self.outbox.close(Reason::Silent, Some(&close_frame(CloseCode::Away, "no sign of life")));
        self.outbox.wait_closed(Instant::now() + LINGER.time);
        Reason::Silent
    }

    /// Answers a close frame with the same (RFC 6455 section 5.5.1).
    fn answer_close(&self, payload: &[u8]) -> Reason {
        let header =
            FrameHeader { opcode: OpCode::Control(Control::Close), ..FrameHeader::default() };
        self.outbox.write(&frame(Frame::from_payload(header, payload.to_vec().into())));
        self.outbox.close(Reason::Closed, None);
        self.wait_closed(Reason::Closed, LINGER)
    }

    /// Tells the client what it did wrong (section 7.1.7).
    fn refuse(&self, code: CloseCode, why: &'static str, incoming: Incoming<Stream>) -> Reason {
        log::debug!("websocket {}: {why}", self.outbox.link().peer());
        self.outbox.close(Reason::Protocol, Some(&close_frame(code, why)));
        self.outbox.postpone_abort(Instant::now() + CLOSE_TIMEOUT + UPLOAD_LINGER.time);
        let linger = match code {
            // The client is most likely in the middle of the message, and a proxy may take our end for
            // that of both sides: so it is for the client to end its half first.
            CloseCode::Size => {
                if let Some(mut finder) = incoming.into_close_finder() {
                    let stream = self.outbox.link().stream();
                    read_out(stream, UPLOAD_LINGER, |bytes| finder.add(bytes));
                }
                LINGER
            }
            // In the middle as well, but it may leave its frame unfinished: no end would be found.
            CloseCode::Invalid => UPLOAD_LINGER,
            _ => LINGER,
        };
        self.wait_closed(Reason::Protocol, linger)
    }

    /// Ends the connection when the close message is out.
    fn wait_closed(&self, reason: Reason, linger: ReadBounds) -> Reason {
        self.outbox.wait_closed(Instant::now() + CLOSE_TIMEOUT);
        // What the client is still sending (after its close frame it must not) would make the
        // system reset the connection, and our close frame be lost.
        let stream = self.outbox.link().stream();
        let _ = stream.shutdown(Shutdown::Write);
        read_out(stream, linger, |_| false);
        reason
    }
}

/// The close frame that a client gets when the server shuts down: 1001, `Going Away`.
pub fn shutdown_message() -> Vec<u8> {
    close_frame(CloseCode::Away, "server shutdown")
}

pub(super) fn close_frame(code: CloseCode, reason: &'static str) -> Vec<u8> {
    frame(Frame::close(Some(CloseFrame { code, reason: reason.into() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_clients_close_frame_is_well_formed() {
        assert_eq!(close_frame(CloseCode::Again, "too slow"), TOO_SLOW);
    }
}
