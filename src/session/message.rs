//! A WebSocket's message, as handlers get and send it.

use super::error::ClientError;

/// A message (RFC 6455 section 5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes that are no text.
    Binary(Vec<u8>),
}

impl Message {
    /// The text.
    ///
    /// # Errors
    /// [`ClientError::NotText`] if the message is binary.
    pub fn text(&self) -> Result<&str, ClientError> {
        match self {
            Message::Text(text) => Ok(text),
            Message::Binary(_) => Err(ClientError::NotText),
        }
    }

    /// The bytes; of text these are UTF-8.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::Text(text.to_owned())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::Text(text)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Message {
        Message::Binary(bytes)
    }
}
