//! Where an outbox stands. The table of what follows what is in [`super`]'s documentation.

use std::time::Instant;

use crate::client::reason::Reason;

/// Who writes.
pub(super) enum Phase {
    /// Nobody: nothing waits.
    Idle,
    /// The client's writer, until nothing waits. `wanted`: a thread waits for it to hand the outbox over.
    Draining { wanted: bool },
    /// A thread of the client's that has taken the outbox. `close`: what has to be done at its release.
    Held { close: Option<Close> },
    /// The writer, until the close message is written.
    Closing(Close),
    /// Nobody, ever again. Until the deadline the peer may close its side.
    Closed(Close),
}

/// How a connection ends.
pub(super) struct Close {
    pub reason: Reason,
    /// What the client is told last.
    pub message: Option<Box<[u8]>>,
    /// Until when the peer may take that, and what is before it, and answer it.
    pub deadline: Instant,
}

impl Phase {
    /// How the connection ends, if it does.
    pub fn close(&mut self) -> Option<&mut Close> {
        match self {
            Phase::Held { close } => close.as_mut(),
            Phase::Closing(close) | Phase::Closed(close) => Some(close),
            Phase::Idle | Phase::Draining { .. } => None,
        }
    }

    pub fn close_reason(&mut self) -> Option<Reason> {
        self.close().map(|close| close.reason)
    }
}
