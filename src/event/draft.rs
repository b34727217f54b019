//! What is to be published, before it is an event.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::EventError;
use super::id::EventId;
use super::members::Members;
use super::topics::prefix_of;

/// The longest topic or event name, in bytes.
pub const MAX_NAME: usize = 256;

/// The longest idempotency key, in bytes.
pub const MAX_KEY: usize = 128;

/// The topic of what is published without one.
pub const DEFAULT_TOPIC: &str = "default";

/// What is to be published: checked, but without a place in the order yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub(super) topic: Arc<str>,
    pub(super) name: Option<Box<str>>,
    pub(super) data: Box<str>,
    pub(super) key: Option<Box<str>>,
}

impl Draft {
    /// Checks topic and event name, and makes all line ends in `data` line feeds: an event stream
    /// cannot tell CR, LF and CRLF apart, and every receiver is to read the same.
    ///
    /// # Errors
    /// Where topic or name is too long or holds control characters; an empty topic, or one that stands for
    /// several: `*`, or any that ends in `/*`.
    pub fn new(topic: &str, name: Option<&str>, data: &str) -> Result<Draft, EventError> {
        check_topic(topic)?;
        if let Some(name) = name {
            check_name("event", name)?;
        }
        let data = match data.contains('\r') {
            true => Cow::Owned(data.replace("\r\n", "\n").replace('\r', "\n")),
            false => Cow::Borrowed(data),
        };
        Ok(Draft { topic: topic.into(), name: name.map(Into::into), data: data.into(), key: None })
    }

    /// The same draft with an idempotency key: if a draft with this key was published in the last five minutes,
    /// this one is not, and its publisher gets the id of the first one.
    ///
    /// # Errors
    /// Where the key is empty, longer than 128 bytes, or holds a control character.
    pub fn with_key(mut self, key: &str) -> Result<Draft, EventError> {
        check_text("key", key, MAX_KEY)?;
        self.key = Some(key.into());
        Ok(self)
    }

    /// The idempotency key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The same without a check: for a key that is made of a checked one.
    pub(crate) fn set_key(&mut self, key: String) {
        self.key = Some(key.into());
    }

    pub(crate) fn take_key(&mut self) -> Option<Box<str>> {
        self.key.take()
    }

    /// Reads a draft from a line of JSON: `{"topic":…,"event":…,"key":…,"data":…}`, all but the last optional. Without
    /// a member of its own it gets `topic` and `name`.
    ///
    /// # Errors
    /// Where the line is no such object, or as for [`Draft::new`].
    pub fn from_line(line: &str, topic: &str, name: Option<&str>) -> Result<Draft, EventError> {
        let mut members = Members::parse(line).map_err(|error| match error.is_data() {
            true => EventError::NotAnObject,
            false => EventError::NotJson(error.to_string()),
        })?;
        if let Some(name) = members.repeated() {
            return Err(EventError::RepeatedMember(name.to_owned()));
        }
        Draft::take_from(&mut members, topic, name)
    }

    /// Takes a draft's members out of an object. Data that is a string is published as its text, any other
    /// JSON byte for byte as it was sent.
    ///
    /// # Errors
    /// As for [`Draft::from_line`].
    pub(crate) fn take_from(
        members: &mut Members,
        topic: &str,
        name: Option<&str>,
    ) -> Result<Draft, EventError> {
        let own_topic = members.take_string("topic")?;
        let own_name = members.take_string("event")?;
        let data: Cow<str> = match members.take("data") {
            None => return Err(EventError::NoData),
            Some(text) if text.starts_with('"') => {
                let decoded: Result<String, _> = serde_json::from_str(text);
                decoded.map_err(|error| EventError::BadText(error.to_string()))?.into()
            }
            Some(json) => json.into(),
        };
        let topic = own_topic.as_deref().unwrap_or(topic);
        let draft = Draft::new(topic, own_name.as_deref().or(name), &data)?;
        match members.take_string("key")? {
            Some(key) => draft.with_key(&key),
            None => Ok(draft),
        }
    }

    /// The draft as a block of an event stream, without an id.
    pub(crate) fn block(&self) -> String {
        block(None, self.name.as_deref(), &self.data)
    }

    /// The event's name, if it has one.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What is published.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn data(&self) -> &str {
        &self.data
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }
}

/// A block of an event stream (WHATWG HTML, section 9.2.6).
pub(super) fn block(id: Option<EventId>, name: Option<&str>, data: &str) -> String {
    let mut text = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    if let Some(name) = name {
        text.extend(["event: ", name, "\n"]);
    }
    // `split`, not `lines`: a trailing line feed is part of the data.
    for line in data.split('\n') {
        text.extend(["data: ", line, "\n"]);
    }
    text.push('\n');
    text
}

/// Checks the topic of something that is to be published.
///
/// # Errors
/// As for [`Draft::new`].
pub fn check_topic(topic: &str) -> Result<(), EventError> {
    check_name("topic", topic)?;
    match prefix_of(topic) {
        Some(_) => Err(EventError::Pattern(topic.to_owned())),
        None => Ok(()),
    }
}

/// Topics and event names go into one line of an event stream, and into logs.
///
/// # Errors
/// Where `value` is empty, longer than [`MAX_NAME`] bytes, or holds a control character.
pub fn check_name(what: &'static str, value: &str) -> Result<(), EventError> {
    check_text(what, value, MAX_NAME)
}

/// The same for a text of at most `max` bytes.
///
/// # Errors
/// See [`check_name`].
pub fn check_text(what: &'static str, value: &str, max: usize) -> Result<(), EventError> {
    if value.is_empty() {
        return Err(EventError::Empty(what));
    }
    if value.len() > max {
        return Err(EventError::TooLong(what, max));
    }
    if value.chars().any(char::is_control) {
        return Err(EventError::ControlCharacter(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_name_topic_and_event() {
        let parse = |line| Draft::from_line(line, "t", Some("e"));
        let draft = |topic, name, data| Ok(Draft::new(topic, name, data).unwrap());
        assert_eq!(parse(r#"{"data":"x"}"#), draft("t", Some("e"), "x"));
        assert_eq!(parse(r#"{"data":{"a":[1]}}"#), draft("t", Some("e"), r#"{"a":[1]}"#));
        let line = r#"{"topic":"u","event":"f","data":"two\nlines"}"#;
        assert_eq!(parse(line), draft("u", Some("f"), "two\nlines"));
        for (bad, error) in [
            ("1", EventError::NotAnObject),
            ("{}", EventError::NoData),
            (r#"{"data":1,"data":2}"#, EventError::RepeatedMember("data".into())),
            (r#"{"data":"x","topic":1}"#, EventError::NotAString("topic".into())),
            (r#"{"data":"x","topic":"*"}"#, EventError::Pattern("*".into())),
            (r#"{"data":"x","topic":"a/*"}"#, EventError::Pattern("a/*".into())),
            (r#"{"data":"x","event":"a\nb"}"#, EventError::ControlCharacter("event")),
        ] {
            assert_eq!(parse(bad), Err(error), "{bad}");
        }
        assert!(matches!(parse(""), Err(EventError::NotJson(_))));
        assert!(matches!(parse(r#"{"data":"\ud800"}"#), Err(EventError::BadText(_))));
    }

    #[test]
    fn names_that_would_break_a_line_are_refused() {
        for bad in ["", "a\nb", "a\rb", "a\0b", "\u{85}"] {
            assert!(Draft::new(bad, None, "").is_err(), "{bad:?}");
            assert!(Draft::new("t", Some(bad), "").is_err(), "{bad:?}");
        }
        assert!(Draft::new(&"x".repeat(MAX_NAME + 1), None, "").is_err());
        assert!(Draft::new("ünïcode topic", Some("änd event"), "").is_ok());
    }
}
