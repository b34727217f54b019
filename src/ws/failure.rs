//! Why nothing more can be read of a WebSocket: the error of this layer. How each case ends the
//! connection is for the session to decide.

use std::{fmt, io};

use tungstenite::protocol::frame::coding::CloseCode;

/// Why no more can be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Nothing came in time: one may try again.
    Timeout,
    /// The connection ended, without a close frame.
    Lost,
    /// The client broke the rules. The close code that says so, and why.
    Wrong(CloseCode, &'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Timeout => f.write_str("nothing came in time; read again"),
            Failure::Lost => f.write_str("the connection ended without a close frame; drop it"),
            Failure::Wrong(code, why) => write!(f, "{why}; close with {code}"),
        }
    }
}

impl std::error::Error for Failure {}

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

/// RFC 6455 section 8.1.
pub const NOT_UTF8: Failure = Failure::Wrong(CloseCode::Invalid, "text is not UTF-8");

/// A client may send up to the limit, and not more.
pub const TOO_LONG: Failure = Failure::Wrong(CloseCode::Size, "message too long");

/// For a `return` where the client broke a rule of the framing.
///
/// # Errors
/// Always: [`Failure::Wrong`] with the code 1002.
pub fn wrong<T>(why: &'static str) -> Result<T, Failure> {
    Err(Failure::Wrong(CloseCode::Protocol, why))
}
