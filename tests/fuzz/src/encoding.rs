//! What a reader of the event stream, or of the WebSocket frames, gets is what was published, for
//! arbitrary Unicode in data, names and topics. (Line ends become line feeds: an event stream
//! cannot tell them apart.)

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use threadcast::event::encoding::Encoding;
use threadcast::event::{Draft, Event, EventId};
use threadcast::http::coding::Coding;

use crate::campaign::{Outcome, Plan, campaign};
use crate::chunks::{self, Decoded};
use crate::eventstream::{self, Parser};
use crate::frames::{self, opcode};

/// An event to be published.
#[derive(Debug, Clone)]
struct Case {
    events: Vec<(EventId, String, Option<String>, String)>,
    /// Where the stream is cut between two reads.
    cut: usize,
}

/// Text with everything in it that means something in an event stream.
fn text() -> impl Strategy<Value = String> {
    let special = select(vec![
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r\n",
        ":",
        ": ",
        " ",
        "data: ",
        "data",
        "\ndata: x",
        "id: 9\n",
        "\nevent: y",
        "retry: 1\n",
        "\u{feff}",
        "\0",
        "\u{85}",
        "\u{2028}",
        "\u{2029}",
        "\u{b}",
        "\u{c}",
        "é",
        "😀",
        "\"",
        "\\",
        "\u{7f}",
        "x",
        "",
    ]);
    prop_oneof![
        4 => vec(special, 0..10).prop_map(|parts| parts.concat()),
        3 => any::<String>(),
        2 => "\\PC{0,30}",
        1 => (0_usize..300).prop_map(|length| "line\n".repeat(length)),
        1 => (65_500_usize..65_600).prop_map(|length| "x".repeat(length)),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[ -~]{1,20}",
        1 => "\\PC{1,20}",
        1 => "[ :\u{feff}\u{a0}\u{2028}é😀]{1,5}",
        1 => select(vec!["message", "error", "gap", "data", ":", " ", "  x"]).prop_map(str::to_owned),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let id = any::<(u64, u64)>().prop_map(|(millis, sequence)| EventId { millis, sequence });
    let name = prop_oneof![Just(None), name().prop_map(Some)];
    // Nothing is published on a name that stands for several topics.
    let single = self::name().prop_filter("a pattern", |name| name != "*" && !name.ends_with("/*"));
    let topic = prop_oneof![3 => "[a-z]{1,8}", 1 => single];
    (vec((id, topic, name, text()), 1..4), any::<usize>())
        .prop_map(|(events, cut)| Case { events, cut })
}

/// Line ends as an event stream leaves them, one character after the other.
fn normalised(data: &str) -> String {
    let mut text = String::new();
    let mut behind_cr = false;
    for c in data.chars() {
        match c {
            '\n' if behind_cr => {}
            '\r' | '\n' => text.push('\n'),
            other => text.push(other),
        }
        behind_cr = c == '\r';
    }
    text
}

fn test(case: &Case) -> Result<(), String> {
    let mut stream = b"retry: 2000\ndata: greeting\n\n".to_vec();
    let mut chunks = Coding::Chunked.frame(&stream).to_vec();
    let mut expected = Vec::new();
    for (id, topic, name, data) in &case.events {
        let draft = Draft::new(topic, name.as_deref(), data).map_err(|error| error.to_string())?;
        let event = Event::new(*id, draft);
        // A heartbeat may stand between any two.
        for (stream, coding) in [(&mut stream, Coding::Identity), (&mut chunks, Coding::Chunked)] {
            stream.extend_from_slice(event.encoded(Encoding::Sse(coding)));
            stream.extend_from_slice(coding.heartbeat());
        }
        let kind = name.clone().unwrap_or_else(|| "message".to_owned());
        let (id, data) = (id.to_string(), normalised(data));
        check_frame(event.encoded(Encoding::WebSocket), &id, topic, &kind, &data)?;
        expected.push(eventstream::Event { id, kind, data });
    }
    chunks.extend_from_slice(Coding::Chunked.end());
    if chunks::decode(&chunks, usize::MAX) != Decoded::Whole(stream.clone(), chunks.len()) {
        return Err(format!("the chunks {:?} are not {stream:?}", chunks.escape_ascii()));
    }
    let mut parser = Parser::default();
    let (first, second) = stream.split_at(case.cut % (stream.len() + 1));
    parser.push(first);
    parser.push(second);
    let mut read: Vec<_> = std::iter::from_fn(|| parser.next_event()).collect();
    let greeting = eventstream::Event {
        id: String::new(),
        kind: "message".to_owned(),
        data: "greeting".to_owned(),
    };
    if parser.retry != Some(2000) || read.first() != Some(&greeting) {
        return Err(format!("the greeting is read as {:?} {:?}", parser.retry, read.first()));
    }
    read.remove(0);
    match read == expected {
        true => Ok(()),
        false => Err(format!("read was {read:?}, and expected {expected:?}")),
    }
}

/// One text frame of JSON, whole.
fn check_frame(bytes: &[u8], id: &str, topic: &str, event: &str, data: &str) -> Result<(), String> {
    let mut rest = bytes;
    let frame = frames::read_frame(&mut rest)?.ok_or("no frame")?;
    let value: Value = serde_json::from_slice(&frame.payload).map_err(|error| error.to_string())?;
    let expected = json!({"type": "event", "id": id, "topic": topic, "event": event, "data": data});
    match rest.is_empty() && frame.opcode == opcode::TEXT && value == expected {
        true => Ok(()),
        false => Err(format!("the frame {frame:?} with {value}, and {} bytes more", rest.len())),
    }
}

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    campaign(plan, 2_000, case(), test, || Ok(()), String::new)
}
