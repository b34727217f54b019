//! Why the door refuses a request: each reason with its status, its code and its message.

use std::{error, fmt};

use crate::http::Response;

/// Why a request's head or body is refused. Displayed as the line that the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DoorError {
    /// What came breaks the grammar, or two programs could read it differently: the code, and the
    /// message.
    Malformed(&'static str, &'static str),
    /// The head is not complete in time.
    HeadTimeout,
    /// The body is not complete in time.
    BodyTimeout,
    /// The body has more bytes than this.
    BodyTooLong(usize),
    /// `Content-Length` is more than any body can have.
    LengthTooLarge,
    /// The target has more bytes than this.
    TargetTooLong(usize),
    /// `Expect` names something else than `100-continue`.
    UnknownExpectation,
    /// The head has more bytes than this.
    HeadTooLong(usize),
    /// The head has more field lines than this.
    TooManyFields(usize),
    /// The method has more bytes than this: no method does.
    UnknownMethod(usize),
    /// `Transfer-Encoding` names something else than `chunked`.
    UnknownCoding,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    UnknownVersion,
}

impl DoorError {
    /// The status of the response (RFC 9110 section 15).
    pub fn status(&self) -> u16 {
        self.status_and_code().0
    }

    /// The code for programs, `error.code` in the response's JSON.
    pub fn code(&self) -> &'static str {
        self.status_and_code().1
    }

    fn status_and_code(&self) -> (u16, &'static str) {
        match self {
            DoorError::Malformed(code, _) => (400, code),
            DoorError::HeadTimeout | DoorError::BodyTimeout => (408, "timeout"),
            DoorError::BodyTooLong(_) | DoorError::LengthTooLarge => (413, "too_large"),
            DoorError::TargetTooLong(_) => (414, "target_too_long"),
            DoorError::UnknownExpectation => (417, "unknown_expectation"),
            DoorError::HeadTooLong(_) | DoorError::TooManyFields(_) => (431, "header_too_large"),
            DoorError::UnknownMethod(_) => (501, "unknown_method"),
            DoorError::UnknownCoding => (501, "unknown_coding"),
            DoorError::UnknownVersion => (505, "unknown_version"),
        }
    }
}

impl fmt::Display for DoorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DoorError::Malformed(_, message) => f.write_str(message),
            DoorError::HeadTimeout => {
                f.write_str("the request did not arrive in time (--header-timeout)")
            }
            DoorError::BodyTimeout => f.write_str("the body did not arrive in time"),
            DoorError::BodyTooLong(limit) => {
                write!(f, "the body is longer than {limit} bytes (--max-message)")
            }
            DoorError::LengthTooLarge => {
                f.write_str("no body can be as long as Content-Length says")
            }
            DoorError::TargetTooLong(limit) => {
                write!(f, "the request target is longer than {limit} bytes")
            }
            DoorError::UnknownExpectation => {
                f.write_str("the only expectation met is 100-continue")
            }
            DoorError::HeadTooLong(limit) => {
                write!(f, "the request's head is longer than {limit} bytes (--max-head)")
            }
            DoorError::TooManyFields(limit) => write!(f, "send at most {limit} header fields"),
            DoorError::UnknownMethod(limit) => write!(f, "no method is longer than {limit} bytes"),
            DoorError::UnknownCoding => {
                f.write_str("the only Transfer-Encoding understood is chunked")
            }
            DoorError::UnknownVersion => f.write_str("only HTTP/1.1 and HTTP/1.0 are spoken here"),
        }
    }
}

impl error::Error for DoorError {}

impl From<DoorError> for Response {
    fn from(error: DoorError) -> Response {
        Response::error(error.status(), error.code(), error.to_string())
    }
}
