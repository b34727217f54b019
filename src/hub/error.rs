//! Why something is not published.

use std::{error, fmt};

use crate::event::EventError;

/// Why something is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// It is no event.
    Event(EventError),
    /// The server shuts down: nothing is published any more.
    Stopped,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Event(error) => error.fmt(f),
            PublishError::Stopped => {
                f.write_str("the server is shutting down; publish again later")
            }
        }
    }
}

impl error::Error for PublishError {}

impl From<EventError> for PublishError {
    fn from(error: EventError) -> PublishError {
        PublishError::Event(error)
    }
}
