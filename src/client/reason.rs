//! Why connections end.

use std::fmt;

/// Why a client's connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The client closed.
    Closed,
    /// The connection broke, or the client vanished.
    Lost,
    /// The client sent nothing after a ping, and took nothing.
    Silent,
    /// The client fell behind by more than its queue holds.
    Slow,
    /// Too much waited for all clients together, and the most of it for this one.
    Crowded,
    /// The client broke the protocol.
    Protocol,
    /// The client's handler has returned.
    Finished,
    /// The server is shutting down.
    Shutdown,
    /// The server failed to serve the client.
    Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Closed => "closed by the client",
            Reason::Lost => "connection lost",
            Reason::Silent => "no sign of life",
            Reason::Slow => "too slow: its queue was full",
            Reason::Crowded => "too far behind: backlog memory is full",
            Reason::Protocol => "protocol error",
            Reason::Finished => "its handler has returned",
            Reason::Shutdown => "server shutdown",
            Reason::Internal => "server failure",
        })
    }
}
