//! How a WebSocket is closed (RFC 6455 section 7): close frames, and how long a client is listened to after
//! one. The client's own thread waits here, in `poll`, until the client closes or the time is over.

use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use crate::client::outbox::{CLOSE_TIMEOUT, Outbox};
use crate::client::reason::Reason;
use crate::os::send::{ReadBounds, read_out};
use crate::ws::frame::frame;

/// The close frame for a client that is too slow: 1013, `Try Again Later` (IANA registry of close
/// codes). Come back, with the id of the last event.
pub(super) const TOO_SLOW: &[u8] = b"\x88\x0a\x03\xf5too slow";

/// How long a client is read from that has been sent a close frame.
pub(super) const LINGER: ReadBounds =
    ReadBounds { time: Duration::from_secs(1), idle: Duration::from_secs(1), bytes: 64 << 20 };

/// The same for a client that is in the middle of a message which was refused: on a slow line it takes
/// seconds until the close frame is read.
pub(super) const UPLOAD_LINGER: ReadBounds =
    ReadBounds { time: Duration::from_secs(30), idle: Duration::from_secs(5), bytes: 64 << 20 };

/// Answers a close frame with the same (section 5.5.1).
pub(super) fn answer_close(outbox: &Arc<Outbox>, payload: &[u8]) {
    let header = FrameHeader { opcode: OpCode::Control(Control::Close), ..FrameHeader::default() };
    outbox.write(&frame(Frame::from_payload(header, payload.to_vec().into())));
    outbox.close(Reason::Closed, None);
    wait_closed(outbox, LINGER);
    // Nothing more is read, whoever closed first.
    outbox.abort_for(Reason::Closed);
}

/// Waits until the close message is out, and ends our half of the connection.
pub(super) fn wait_closed(outbox: &Outbox, linger: ReadBounds) {
    outbox.wait_closed(Instant::now() + CLOSE_TIMEOUT);
    // What the client is still sending (after its close frame it must not) would make the
    // system reset the connection, and our close frame be lost.
    let stream = outbox.link().stream();
    let _ = stream.shutdown(Shutdown::Write);
    read_out(stream, linger, |_| false);
}

/// The close frame that a client gets when the server shuts down: 1012, `Service Restart` (IANA registry
/// of close codes). Come back, here or to another server, with the id of the last event.
pub fn shutdown_message() -> Vec<u8> {
    close_frame(CloseCode::Restart, "server shutdown")
}

/// A close frame with this code and reason, of at most 123 bytes.
pub(super) fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
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
