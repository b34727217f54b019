//! Frames as a server sends them: unmasked (RFC 6455 section 5.2). tungstenite formats the headers.

use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// Room in front of an assembled message for the header of the frame in which it may go back.
pub const HEADROOM: usize = 10;

/// An unmasked text frame, which is a whole message.
pub fn text_frame(text: &str) -> Vec<u8> {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let length = text.len() as u64;
    let mut bytes = Vec::with_capacity(header.len(length) + text.len());
    header.format(length, &mut bytes).expect("writing to a vector does not fail");
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The bytes of a frame.
pub fn frame(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).expect("writing to a vector does not fail");
    bytes
}
