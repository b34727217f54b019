//! An event: its id, what was published, and its encodings, each of which is made once and shared by all
//! its receivers.

pub mod draft;
pub mod encoding;
pub mod error;
pub mod id;
pub mod last_seen;
pub mod members;
pub mod payload;
pub mod topics;

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tungstenite::protocol::frame::coding::Data;

use crate::ws::deflate::compressed_frame;
use crate::ws::frame::text_frame;
pub use draft::Draft;
use encoding::Encoding;
pub use error::EventError;
pub use id::EventId;

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
    #[doc(hidden)]
    pub fn new(id: EventId, draft: Draft) -> Event {
        let Draft { topic, name, data, .. } = draft;
        Event { id, topic, name, data, encoded: [const { OnceLock::new() }; Encoding::COUNT] }
    }

    /// What a returning client gets where events that it missed are not kept: from `resumed` on nothing
    /// is missing. It was published by nobody, and on no topic.
    pub(crate) fn gap(resumed: EventId) -> Event {
        let data = format!("{{\"resumed\":\"{resumed}\"}}").into();
        Event::new(resumed, Draft { topic: "".into(), name: Some("gap".into()), data, key: None })
    }

    /// Whether it is one of these.
    pub(crate) fn is_gap(&self) -> bool {
        self.topic.is_empty()
    }

    /// The event's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What was published.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// The event in this encoding. A WebSocket's clients get JSON, see [`crate::docs::contract`]; as in
    /// an `EventSource`, an event without a name is called `message` there, and data is text.
    #[doc(hidden)]
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

    /// The event as a block of an event stream.
    fn block(&self) -> String {
        draft::block(Some(self.id), self.name.as_deref(), &self.data)
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
    pub(crate) fn weight(&self) -> usize {
        size_of::<Event>() + 3 * self.data.len() + 2 * self.topic.len() + 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
