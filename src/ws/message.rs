//! A client's message: put together from its frames (RFC 6455 sections 5.3 and 5.4), then handed out
//! where it lies. Belongs to the one thread that reads the client's WebSocket.

use std::io::Read;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::deflate::{self, Window};
use super::failure::{Failure, NOT_UTF8};
use super::frame::HEADROOM;
use super::utf8::Utf8;

/// The least and the most that is read at once.
const MIN_READ_BYTES: usize = 4 * 1024;
const MAX_READ_BYTES: usize = 64 * 1024;

/// A message, where it was received.
#[derive(Debug)]
pub struct Message<'a> {
    pub(super) kind: Data,
    /// At least [`HEADROOM`] or a client's header, and the payload behind it.
    pub(super) bytes: &'a mut [u8],
    /// Where the payload begins.
    pub(super) start: usize,
}

impl<'a> Message<'a> {
    /// Whether it is text or binary.
    pub fn kind(&self) -> Data {
        self.kind
    }

    /// What it says, inflated. Of a text message this is UTF-8.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The text; `None` if it is binary.
    pub fn text(&self) -> Option<&str> {
        let text = (self.kind == Data::Text).then_some(self.payload())?;
        str::from_utf8(text).ok()
    }

    /// The message as an unmasked frame. Its header is put in front of it, where the client's was,
    /// which was longer by its mask.
    pub fn into_frame(self) -> &'a [u8] {
        let header = FrameHeader { opcode: OpCode::Data(self.kind), ..FrameHeader::default() };
        let length = self.payload().len() as u64;
        let start = self.start - header.len(length);
        let mut room = &mut self.bytes[start..self.start];
        header.format(length, &mut room).expect("there is room");
        &self.bytes[start..]
    }
}

/// A data frame of which a part has come.
#[derive(Debug)]
pub(super) struct Frame {
    /// Bytes of its payload that have not come.
    pub left: u64,
    /// The masking key, turned so that its first byte is for the next byte.
    pub mask: [u8; 4],
    /// Whether it is its message's last.
    pub is_final: bool,
}

/// A message of which a part has come.
#[derive(Debug)]
pub(super) struct Assembly {
    kind: Data,
    /// With which window it was compressed, if its first frame has RSV1 (RFC 7692 section 6).
    pub deflate: Option<Window>,
    utf8: Utf8,
    /// [`HEADROOM`], and what has come.
    bytes: Vec<u8>,
    /// The last frame that has begun. The message is between two frames where nothing of it is left.
    pub frame: Frame,
}

impl Assembly {
    /// A message whose first frame has begun.
    pub fn new(kind: Data, deflate: Option<Window>, frame: Frame) -> Assembly {
        Assembly { kind, deflate, utf8: Utf8::default(), bytes: vec![0; HEADROOM], frame }
    }

    /// How long the message is so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - HEADROOM
    }

    /// Whether the last byte of the last frame is there.
    pub fn is_whole(&self) -> bool {
        self.frame.is_final && self.frame.left == 0
    }

    /// Takes of `unread` what belongs to the frame. Returns how much that is.
    pub fn add(&mut self, unread: &[u8]) -> Result<usize, Failure> {
        let count = self.frame.left.min(unread.len() as u64) as usize;
        self.bytes.extend_from_slice(&unread[..count]);
        self.received(count)?;
        Ok(count)
    }

    /// Reads once, no more than belongs to the frame. Returns how much came.
    pub fn read(&mut self, stream: &mut impl Read) -> Result<usize, Failure> {
        let from = self.bytes.len();
        // No more than has come already: what a header claims to be coming is not allocated.
        let room = from.clamp(MIN_READ_BYTES, MAX_READ_BYTES).min(self.frame.left as usize);
        self.bytes.resize(from + room, 0);
        let result = stream.read(&mut self.bytes[from..]);
        self.bytes.truncate(from + *result.as_ref().unwrap_or(&0));
        let count = result?;
        self.received(count)?;
        Ok(count)
    }

    /// The last `count` bytes are new and still masked.
    fn received(&mut self, count: usize) -> Result<(), Failure> {
        let from = self.bytes.len() - count;
        unmask(&mut self.bytes[from..], self.frame.mask);
        self.frame.mask.rotate_left(count % 4);
        self.frame.left -= count as u64;
        // Text is checked as it comes, compressed text when it is inflated.
        let is_plain_text = self.kind == Data::Text && self.deflate.is_none();
        if is_plain_text && !self.utf8.add(&self.bytes[from..]) {
            return Err(NOT_UTF8);
        }
        Ok(())
    }

    /// The whole message, behind [`HEADROOM`] bytes.
    pub fn finish(self, limit: usize) -> Result<(Data, Vec<u8>), Failure> {
        let Some(window) = self.deflate else {
            return if self.utf8.is_whole() { Ok((self.kind, self.bytes)) } else { Err(NOT_UTF8) };
        };
        let bytes = deflate::inflate(window, &self.bytes[HEADROOM..], limit)?;
        if self.kind == Data::Text && str::from_utf8(&bytes[HEADROOM..]).is_err() {
            return Err(NOT_UTF8);
        }
        Ok((self.kind, bytes))
    }
}

/// Section 5.3: masks, or unmasks.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    // Words of eight bytes, since a compiler makes vector instructions of them.
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
