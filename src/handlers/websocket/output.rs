//! What is written to a WebSocket's client, as frames.

use tungstenite::protocol::frame::coding::Data;

use crate::client::outbox::Outbox;
use crate::event::batch::batches;
use crate::event::payload::{Encoding, Payload};
use crate::handlers::sse::gap_data;
use crate::hub::history::Replay;
use crate::ws::deflate::{Window, compressed_frame};
use crate::ws::frame::text_frame;

/// Writes what a client missed while the caller holds its outbox.
pub fn write_replay(outbox: &Outbox, replay: Option<Replay>, deflate: Option<Window>) {
    let Some(replay) = replay else { return };
    if let Some(resumed) = replay.gap {
        let text = format!(
            r#"{{"type":"event","id":"{resumed}","topic":"","event":"gap","data":{}}}"#,
            serde_json::Value::from(gap_data(resumed))
        );
        outbox.write_taken(Payload::Own(text_frame(&text).into()));
    }
    for batch in batches(&replay.events) {
        outbox.write_taken(encoding(deflate).payload(batch));
    }
}

/// How a client's events are encoded.
pub fn encoding(deflate: Option<Window>) -> Encoding {
    deflate.map_or(Encoding::WebSocket, Encoding::Deflate)
}

/// A message as a compressed frame, where that was agreed on and makes it shorter.
pub fn compressed(deflate: Option<Window>, kind: Data, payload: &[u8]) -> Option<Vec<u8>> {
    compressed_frame(deflate?, kind, payload)
}

/// A text message as a frame.
pub fn text_message(text: &str, deflate: Option<Window>) -> Vec<u8> {
    compressed(deflate, Data::Text, text.as_bytes()).unwrap_or_else(|| text_frame(text))
}
