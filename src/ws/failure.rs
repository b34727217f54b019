//! Why nothing more can be read of a WebSocket.

use std::io;

use tungstenite::protocol::frame::coding::CloseCode;

/// Why no more can be read.
#[derive(Debug)]
pub enum Failure {
    /// Nothing came in time: one may try again.
    Timeout,
    /// The connection ended, without a close frame.
    Lost,
    /// The client broke the rules. The close code that says so, and why.
    Wrong(CloseCode, &'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        match error.kind() {
            // With a read timeout set, a stop and a continue of the process interrupt it: signal(7).
            WouldBlock | TimedOut | Interrupted => Failure::Timeout,
            _ => Failure::Lost,
        }
    }
}

/// Section 8.1.
pub const NOT_UTF8: Failure = Failure::Wrong(CloseCode::Invalid, "text is not UTF-8");

/// A client may send up to the limit, and not more.
pub const TOO_LONG: Failure = Failure::Wrong(CloseCode::Size, "message too long");

/// The client broke a rule.
///
/// # Errors
/// Always: this one.
pub fn wrong<T>(why: &'static str) -> Result<T, Failure> {
    Err(Failure::Wrong(CloseCode::Protocol, why))
}
