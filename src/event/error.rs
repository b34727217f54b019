//! Why something is no event, or no id of one.

use std::{error, fmt};

/// Why something is no event, or no id of one. Displayed as a line that says what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// The text is not of the form `<milliseconds>-<sequence>`.
    NotAnId,
    /// The topic or the event name, it says which, is empty.
    Empty(&'static str),
    /// It is longer than so many bytes.
    TooLong(&'static str, usize),
    /// It holds a control character, which would break a line of an event stream or of a log.
    ControlCharacter(&'static str),
    /// What should be JSON is not; the text is the parser's.
    NotJson(String),
    /// It is JSON, but no object.
    NotAnObject,
    /// The object has this member twice.
    RepeatedMember(String),
    /// The member of this name is no string.
    NotAString(String),
    /// The object has no member `data`.
    NoData,
    /// `data` is a string of JSON that stands for no text; the text is the parser's.
    BadText(String),
    /// The topic to publish on is a name that stands for several: `*`, or one that ends in `/*`.
    Pattern(String),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventError::NotAnId => f.write_str("an id is <milliseconds>-<sequence>, such as 5-0"),
            EventError::Empty(what) => write!(f, "{what} is empty; leave it out or name one"),
            EventError::TooLong(what, limit) => write!(f, "{what} is longer than {limit} bytes"),
            EventError::ControlCharacter(what) => {
                write!(f, "{what} holds a control character (such as a line break)")
            }
            EventError::NotJson(error) => write!(f, "no JSON: {error}"),
            EventError::NotAnObject => f.write_str("no JSON object with \"data\""),
            EventError::RepeatedMember(name) => write!(f, "the member {name:?} is there twice"),
            EventError::NotAString(name) => write!(f, "{name:?} must be a string"),
            EventError::NoData => f.write_str("\"data\" is missing"),
            EventError::BadText(error) => write!(f, "\"data\" is no text: {error}"),
            EventError::Pattern(topic) => {
                write!(f, "topic {topic} stands for several; publish on one")
            }
        }
    }
}

impl error::Error for EventError {}
