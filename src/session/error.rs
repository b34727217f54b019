//! Why a handler cannot go on with its client.

use std::{error, fmt};

use crate::client::reason::Reason;
use crate::store::error::PublishError;

/// What a handler returns. An error is logged, and ends the connection: a WebSocket's with the close code
/// 1011. No failures of the handler, and not logged: [`ClientError::Closed`], and [`PublishError::Stopped`].
pub type HandlerResult = Result<(), Box<dyn error::Error + Send + Sync>>;

/// The failure of a handler. That the connection is over, or the server shuts down, is none.
pub(super) fn failure(result: HandlerResult) -> Option<Box<dyn error::Error + Send + Sync>> {
    let error = result.err()?;
    let is_end = match error.downcast_ref() {
        Some(ClientError::Closed(_) | ClientError::Publish(PublishError::Stopped)) => true,
        _ => matches!(error.downcast_ref(), Some(PublishError::Stopped)),
    };
    (!is_end).then_some(error)
}

/// Why a handler cannot go on with its client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection is over, or about to be: the handler should return.
    Closed(Reason),
    /// The client's message is binary, and text was asked for.
    NotText,
    /// Something cannot be published.
    Publish(PublishError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Closed(reason) => write!(f, "the client is gone: {reason}"),
            ClientError::NotText => f.write_str("the message is binary; expected text"),
            ClientError::Publish(error) => error.fmt(f),
        }
    }
}

impl error::Error for ClientError {}

impl From<PublishError> for ClientError {
    fn from(error: PublishError) -> ClientError {
        ClientError::Publish(error)
    }
}
