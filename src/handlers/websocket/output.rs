//! What is written to a WebSocket's client, as frames.

use tungstenite::protocol::frame::coding::Data;

use crate::event::encoding::Encoding;
use crate::ws::deflate::{Window, compressed_frame};
use crate::ws::frame::text_frame;

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
