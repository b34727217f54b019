//! Why something is not published, and why a store cannot be opened.

use std::{error, fmt, io};

use super::journal::error::JournalError;
use crate::event::EventError;

/// Why something is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// It is no event.
    Event(EventError),
    /// The server shuts down: nothing is published any more.
    Stopped,
    /// There is no room for it in the store; the text says where, and why.
    Full(String),
    /// The store cannot be reached, or refuses; the text says why.
    Unavailable(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Event(error) => error.fmt(f),
            PublishError::Stopped => {
                f.write_str("the server is shutting down; publish again later")
            }
            PublishError::Full(why) => write!(f, "there is no room for the event: {why}"),
            PublishError::Unavailable(why) => write!(f, "the store is away: {why}"),
        }
    }
}

impl error::Error for PublishError {}

impl From<EventError> for PublishError {
    fn from(error: EventError) -> PublishError {
        PublishError::Event(error)
    }
}

/// Why a store cannot be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A thread cannot be started.
    Threads(io::Error),
    /// The journal cannot be opened.
    Journal(JournalError),
    /// The Redis server cannot be used.
    Redis {
        /// Where it is.
        address: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Threads(error) => {
                write!(f, "cannot start a thread: {error}; raise the limits on threads and memory")
            }
            OpenError::Journal(error) => error.fmt(f),
            OpenError::Redis { address, problem } => write!(f, "Redis at {address}: {problem}"),
        }
    }
}

impl error::Error for OpenError {}

impl From<JournalError> for OpenError {
    fn from(error: JournalError) -> OpenError {
        OpenError::Journal(error)
    }
}
