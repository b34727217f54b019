//! Why a handler refuses a request, or a command of a WebSocket's client: each reason with its status,
//! its code and its message.

use std::{error, fmt};

use crate::auth::error::AuthError;
use crate::event::EventError;
use crate::http::Response;
use crate::store::error::PublishError;

/// Why a request or a command is refused. Displayed as the line that its client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerError {
    /// The part of the target behind the `?` is wrong; the text says what.
    BadQuery(String),
    /// The body has a `Content-Encoding`.
    UnknownCoding,
    /// The body is not UTF-8.
    NotUtf8,
    /// The body, or the command, is no event; the text says why.
    BadEvent(EventError),
    /// The line of this number, from 1 on, is no event.
    BadLine(usize, EventError),
    /// The body has no line with an event.
    NoEvents,
    /// The command is no JSON; the text is the parser's.
    BadJson(String),
    /// The command is JSON, but malformed; the text says what is wrong.
    BadCommand(String),
    /// No command has this `type`.
    UnknownCommand,
    /// A command names a topic that there cannot be; the text says why.
    BadTopic(EventError),
    /// The client would be subscribed to more topics than this.
    TooManyTopics(usize),
    /// A command comes in a binary message.
    Binary,
    /// A command publishes, and its client did not send the server's token.
    TokenMissing,
    /// The client may not do what the command says.
    Forbidden(AuthError),
    /// The `Idempotency-Key` of a request is none; the text says why.
    BadKey(EventError),
    /// What a request or a command publishes is not published.
    NotPublished(PublishError),
}

impl HandlerError {
    /// The status of the response (RFC 9110 section 15). A command's error is told without one.
    pub fn status(&self) -> u16 {
        match self {
            HandlerError::UnknownCoding => 415,
            HandlerError::NotPublished(PublishError::Stopped | PublishError::Unavailable(_)) => 503,
            HandlerError::NotPublished(PublishError::Full(_)) => 507,
            _ => 400,
        }
    }

    /// The code for programs, `error.code` in the response's or the answer's JSON. Those of commands are
    /// in [`crate::docs::commands`].
    pub fn code(&self) -> &'static str {
        match self {
            HandlerError::BadQuery(_) => "bad_query",
            HandlerError::UnknownCoding => "unknown_coding",
            HandlerError::NotUtf8 => "not_utf8",
            HandlerError::BadEvent(_) => "bad_event",
            HandlerError::BadLine(..) => "bad_line",
            HandlerError::NoEvents => "no_events",
            HandlerError::BadJson(_) => "bad_json",
            HandlerError::BadCommand(_) => "bad_command",
            HandlerError::UnknownCommand => "unknown_command",
            HandlerError::BadTopic(_) => "bad_topic",
            HandlerError::TooManyTopics(_) => "too_many_topics",
            HandlerError::Binary => "binary",
            HandlerError::TokenMissing => "unauthorized",
            HandlerError::Forbidden(error) => error.code(),
            HandlerError::BadKey(_) => "bad_key",
            HandlerError::NotPublished(PublishError::Event(_)) => "bad_event",
            HandlerError::NotPublished(PublishError::Stopped) => "draining",
            HandlerError::NotPublished(PublishError::Full(_)) => "store_full",
            HandlerError::NotPublished(PublishError::Unavailable(_)) => "store_away",
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandlerError::BadQuery(message) | HandlerError::BadCommand(message) => {
                f.write_str(message)
            }
            HandlerError::BadEvent(error) | HandlerError::BadTopic(error) => error.fmt(f),
            HandlerError::UnknownCoding => {
                f.write_str("send the body as it is, without Content-Encoding")
            }
            HandlerError::NotUtf8 => f.write_str("events are text; send UTF-8"),
            HandlerError::BadLine(number, error) => write!(f, "line {number}: {error}"),
            HandlerError::NoEvents => f.write_str("the body holds no lines"),
            HandlerError::BadJson(message) => write!(f, "no JSON: {message}"),
            HandlerError::UnknownCommand => {
                f.write_str("\"type\" is none of subscribe, unsubscribe, publish, authorize, ping")
            }
            HandlerError::TooManyTopics(limit) => {
                write!(f, "a client may be subscribed to {limit} topics at once")
            }
            HandlerError::Binary => f.write_str("commands are JSON in text messages"),
            HandlerError::TokenMissing => f.write_str(
                "publishing needs the server's token: send it in an authorize command, or as \
                 'Authorization: Bearer' in the handshake",
            ),
            HandlerError::Forbidden(error) => error.fmt(f),
            HandlerError::BadKey(error) => write!(f, "Idempotency-Key: {error}"),
            HandlerError::NotPublished(error) => error.fmt(f),
        }
    }
}

impl error::Error for HandlerError {}

impl From<EventError> for HandlerError {
    fn from(error: EventError) -> HandlerError {
        HandlerError::BadEvent(error)
    }
}

impl From<HandlerError> for Response {
    fn from(error: HandlerError) -> Response {
        let response = Response::error(error.status(), error.code(), error.to_string());
        match error.status() {
            503 => response.with("Retry-After", "1"),
            _ => response,
        }
    }
}
