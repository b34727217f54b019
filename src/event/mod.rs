//! An event, its id, and its encodings: each is made once and shared by all its receivers.

pub mod encoding;
pub mod members;
pub mod payload;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tungstenite::protocol::frame::coding::Data;

use crate::ws::deflate::compressed_frame;
use crate::ws::frame::text_frame;
use encoding::Encoding;

/// The longest topic or event name, in bytes.
pub const MAX_NAME: usize = 256;

/// The topic of what is published without one.
pub const DEFAULT_TOPIC: &str = "default";

/// Where an event stands in the order of all events: `<milliseconds>-<sequence>`, the form of
/// Redis stream ids. Ordered; never used twice by one server, even if the clock is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// Milliseconds since 1970 when the event was published, or those of the event before it
    /// where the clock has gone back since.
    pub millis: u64,
    /// Counts the events of one millisecond.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// The text is not of the form `<milliseconds>-<sequence>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl FromStr for EventId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<EventId, NotAnId> {
        let (millis, sequence) = text.split_once('-').ok_or(NotAnId)?;
        let number = |digits: &str| {
            // `parse` alone would also take a sign.
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten().ok_or(NotAnId)
        };
        Ok(EventId { millis: number(millis)?, sequence: number(sequence)? })
    }
}

/// Gives out ids that only ever rise.
#[derive(Debug)]
pub struct IdSource {
    last: EventId,
    clock: fn() -> u64,
}

impl IdSource {
    /// Starts at the present time. `clock` tells milliseconds since 1970; see
    /// [`wall_clock`](crate::os::clock::wall_clock).
    pub fn new(clock: fn() -> u64) -> IdSource {
        IdSource { last: EventId { millis: clock(), sequence: 0 }, clock }
    }

    /// The id given out last, or the one that stands for 'before the first event'.
    pub fn last(&self) -> EventId {
        self.last
    }

    /// The next id.
    pub fn next_id(&mut self) -> EventId {
        let now = (self.clock)();
        self.last = if now > self.last.millis {
            EventId { millis: now, sequence: 0 }
        } else {
            EventId { millis: self.last.millis, sequence: self.last.sequence + 1 }
        };
        self.last
    }
}

/// What is to be published: checked, but without a place in the order yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    topic: Arc<str>,
    name: Option<Box<str>>,
    data: Box<str>,
}

/// Why something cannot be published; the text says what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDraft(pub String);

impl Draft {
    /// Checks topic and event name, and makes all line ends in `data` line feeds: an event stream
    /// cannot tell CR, LF and CRLF apart, and every receiver is to read the same.
    ///
    /// # Errors
    /// Where topic or name is too long or holds control characters; an empty topic.
    pub fn new(topic: &str, name: Option<&str>, data: &str) -> Result<Draft, BadDraft> {
        check_name("topic", topic)?;
        if let Some(name) = name {
            check_name("event", name)?;
        }
        let data = match data.contains('\r') {
            true => Cow::Owned(data.replace("\r\n", "\n").replace('\r', "\n")),
            false => Cow::Borrowed(data),
        };
        Ok(Draft { topic: topic.into(), name: name.map(Into::into), data: data.into() })
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }
}

/// Topics and event names go into one line of an event stream, and into logs.
///
/// # Errors
/// Where `value` is empty, longer than [`MAX_NAME`] bytes, or holds a control character.
pub fn check_name(what: &str, value: &str) -> Result<(), BadDraft> {
    if value.is_empty() {
        return Err(BadDraft(format!("{what} is empty; leave it out or name one")));
    }
    if value.len() > MAX_NAME {
        return Err(BadDraft(format!("{what} is longer than {MAX_NAME} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(BadDraft(format!("{what} holds a control character (such as a line break)")));
    }
    Ok(())
}

/// A published event.
#[derive(Debug)]
pub struct Event {
    /// Its place in the order of all events.
    pub id: EventId,
    /// The topic it was published on.
    pub topic: Arc<str>,
    name: Option<Box<str>>,
    data: Box<str>,
    /// By encoding. Most stay empty: a server whose clients speak HTTP/1.1 and compress nothing fills two.
    encoded: [OnceLock<Arc<[u8]>>; Encoding::COUNT],
}

impl Event {
    /// The event that `draft` becomes at the place `id`.
    pub fn new(id: EventId, draft: Draft) -> Event {
        let Draft { topic, name, data } = draft;
        Event { id, topic, name, data, encoded: [const { OnceLock::new() }; Encoding::COUNT] }
    }

    /// What a returning client gets where events that it missed are not kept: from `resumed` on nothing
    /// is missing. It was published by nobody, and on no topic.
    pub fn gap(resumed: EventId) -> Event {
        let data = format!("{{\"resumed\":\"{resumed}\"}}").into();
        Event::new(resumed, Draft { topic: "".into(), name: Some("gap".into()), data })
    }

    /// What was published.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// The event in this encoding. A WebSocket's clients get JSON, see [`crate::docs::contract`]; as in
    /// an `EventSource`, an event without a name is called `message` there, and data is text.
    pub fn encoded(&self, encoding: Encoding) -> &Arc<[u8]> {
        self.encoded[encoding.index()].get_or_init(|| match encoding {
            Encoding::Sse(coding) => coding.frame(self.block().as_bytes()).into(),
            Encoding::WebSocket => text_frame(&self.json()).into(),
            Encoding::Deflate(window) => {
                match compressed_frame(window, Data::Text, self.json().as_bytes()) {
                    Some(frame) => frame.into(),
                    // It would not be shorter.
                    None => Arc::clone(self.encoded(Encoding::WebSocket)),
                }
            }
        })
    }

    /// The event as a block of an event stream (WHATWG HTML, section 9.2.6).
    fn block(&self) -> String {
        let mut text = format!("id: {}\n", self.id);
        if let Some(name) = &self.name {
            text.extend(["event: ", name, "\n"]);
        }
        // `split`, not `lines`: a trailing line feed is part of the data.
        for line in self.data.split('\n') {
            text.extend(["data: ", line, "\n"]);
        }
        text.push('\n');
        text
    }

    fn json(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        format!(
            r#"{{"type":"event","id":"{}","topic":{},"event":{},"data":{}}}"#,
            self.id,
            quoted(&self.topic),
            quoted(self.name.as_deref().unwrap_or("message")),
            quoted(&self.data),
        )
    }

    /// About how many bytes the event keeps in memory, both plain encodings included. (Compressed
    /// ones are there for each window that a client has; they are small, or not kept.)
    pub fn weight(&self) -> usize {
        size_of::<Event>() + 3 * self.data.len() + 2 * self.topic.len() + 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn ids_rise_though_the_clock_goes_back() {
        static CLOCK: AtomicU64 = AtomicU64::new(1_000);
        let mut ids = IdSource::new(|| CLOCK.load(Ordering::Relaxed));
        let mut last = ids.last();
        for now in [1_000, 1_001, 1_001, 400, 3, 1_001, 1_002] {
            CLOCK.store(now, Ordering::Relaxed);
            let id = ids.next_id();
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert_eq!(last, EventId { millis: 1_002, sequence: 0 });
    }

    #[test]
    fn ids_are_read_back_and_nothing_else_is() {
        let id = EventId { millis: 1_700_000_000_000, sequence: 7 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "-", "1", "1-", "-1", "+1-1", "1-+1", "1-1-1", "a-1", " 1-1"] {
            assert_eq!(bad.parse::<EventId>(), Err(NotAnId), "{bad:?}");
        }
    }

    #[test]
    fn a_block_keeps_every_line_of_the_data_and_makes_line_ends_alike() {
        let block = |data: &str| {
            let draft = Draft::new("t", Some("e"), data).unwrap();
            Event::new(EventId { millis: 1, sequence: 2 }, draft).block()
        };
        for (data, lines) in [
            ("one", "data: one\n"),
            ("one\ntwo", "data: one\ndata: two\n"),
            ("one\n", "data: one\ndata: \n"),
            ("", "data: \n"),
            (" indented", "data:  indented\n"),
            ("a\r\nb\rc\nd", "data: a\ndata: b\ndata: c\ndata: d\n"),
        ] {
            assert_eq!(block(data), format!("id: 1-2\nevent: e\n{lines}\n"));
        }
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

    #[test]
    fn a_websocket_event_is_one_text_frame_of_json() {
        let draft = Draft::new("t", None, "say \"hi\"\n").unwrap();
        let event = Event::new(EventId { millis: 5, sequence: 0 }, draft);
        let frame = event.encoded(Encoding::WebSocket);
        assert_eq!(frame[0], 0x81);
        assert_eq!(frame[1] as usize, frame.len() - 2);
        let value: serde_json::Value = serde_json::from_slice(&frame[2..]).unwrap();
        let expected = serde_json::json!({
            "type": "event", "id": "5-0", "topic": "t", "event": "message", "data": "say \"hi\"\n"
        });
        assert_eq!(value, expected);
    }
}
