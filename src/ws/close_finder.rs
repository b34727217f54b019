//! What a client sends behind a message that was refused as too long: frames that nobody wants, up to
//! its close frame. When that has come, the connection can be closed without a reset.
//!
//! The client's own thread reads them into a small buffer ([`crate::os::send::read_out`]) and shows
//! each piece to a [`CloseFinder`]. Nothing here waits.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

/// Finds the client's close frame among frames that come in any pieces.
#[derive(Debug, Default)]
pub struct CloseFinder {
    /// Bytes of the frame's payload that have not come.
    left: u64,
    /// What has come of the next frame's header.
    header: Vec<u8>,
}

impl CloseFinder {
    /// Starts in the middle of a frame, `left` bytes before its end, or (0) between two frames.
    pub fn new(left: u64) -> CloseFinder {
        CloseFinder { left, header: Vec::new() }
    }

    /// Takes what has come next. Returns whether a close frame has begun in it.
    pub fn add(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            // A payload is skipped, whatever it looks like.
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            // Byte by byte, since a header may come in pieces and its length is in it.
            let Some((next, rest)) = bytes.split_first() else { return false };
            self.header.push(*next);
            bytes = rest;
            match FrameHeader::parse(&mut Cursor::new(&self.header)) {
                Ok(None) => {}
                Ok(Some((header, _))) if header.opcode == OpCode::Control(Control::Close) => {
                    return true;
                }
                Ok(Some((_, length))) => {
                    self.header.clear();
                    self.left = length;
                }
                // No frame: where the next one begins cannot be known. All that comes is skipped.
                Err(_) => self.left = u64::MAX,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame of zeros, with a mask that could be a close frame.
    fn frame(opcode: u8, length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let header = [0x80 | opcode, 0x80 | 126, high, low, 0x88, 0x80, 0x88, 0x80];
        [&header[..], &vec![0; length.into()]].concat()
    }

    #[test]
    fn the_close_frame_is_found_in_any_pieces() {
        let payload = b"\x88\x80mask".repeat(100);
        let rest = frame(2, 300);
        let close = b"\x88\x82mask\x03\xe8";
        let bytes = [&payload[..], &rest, &frame(9, 5), close].concat();
        let end = bytes.len() - close.len() + 6;
        for step in [1, 2, 3, 7, 100, bytes.len()] {
            let mut finder = CloseFinder::new(payload.len() as u64);
            let found = bytes.chunks(step).position(|piece| finder.add(piece));
            assert_eq!(found, Some((end - 1) / step), "{step}");
        }
    }

    #[test]
    fn behind_what_is_no_frame_nothing_is_found() {
        let mut finder = CloseFinder::new(0);
        assert!(!finder.add(b"\x83\x80mask"));
        assert!(!finder.add(b"\x88\x80mask"));
    }
}
