//! What a client sends: frames, put together to messages (RFC 6455 sections 5 and 6.2).
//!
//! tungstenite parses the frames' headers. The layer above is ours, for three reasons: its own
//! looks at a frame only when all of it is there, but text that is not UTF-8 is to be noticed when
//! it comes; it knows no extensions; and it copies, where a message that is here whole can go back
//! from where it lies.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::time::Instant;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::close_finder::CloseFinder;
use super::deflate::{self, Window};
use super::failure::{Failure, NOT_UTF8, TOO_LONG, wrong};
use super::frame::HEADROOM;
use super::utf8::Utf8;

/// Bytes read at once. Most of an idle client's memory, so not more than a page.
const BUFFER: usize = 4 * 1024;

/// The same, where they go into a long message that has at least as much already: what is claimed
/// to be coming is not allocated.
const LONG_READ: usize = 64 * 1024;

/// The longest payload of a control frame (section 5.5).
const MOST_CONTROL: u64 = 125;

/// What came.
#[derive(Debug)]
pub enum Received<'a> {
    /// A message. Text is UTF-8.
    Message(Message<'a>),
    /// A ping and what it carries, which the pong must.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close frame's code and reason, or nothing; they may be sent back.
    Close(&'a [u8]),
}

/// A message, where it was received.
#[derive(Debug)]
pub struct Message<'a> {
    kind: Data,
    bytes: &'a mut [u8],
    start: usize,
}

impl<'a> Message<'a> {
    /// Whether it is text or binary.
    pub fn kind(&self) -> Data {
        self.kind
    }

    /// What it says.
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

/// The data frame that is being received.
#[derive(Debug)]
struct Frame {
    left: u64,
    /// The masking key, turned so that its first byte is for the next byte.
    mask: [u8; 4],
    is_final: bool,
}

/// The message that is being put together.
#[derive(Debug)]
struct Assembly {
    kind: Data,
    /// Whether it is compressed: then its first frame has RSV1 (RFC 7692 section 6).
    deflate: Option<Window>,
    utf8: Utf8,
    /// [`HEADROOM`], and what has come.
    bytes: Vec<u8>,
}

impl Assembly {
    fn new(kind: Data, deflate: Option<Window>) -> Assembly {
        Assembly { kind, deflate, utf8: Utf8::default(), bytes: vec![0; HEADROOM] }
    }

    /// How long the message is so far.
    fn len(&self) -> usize {
        self.bytes.len() - HEADROOM
    }

    /// Looks at what has been added behind the first `from` bytes, unmasked.
    fn check(&mut self, from: usize) -> Result<(), Failure> {
        let text = self.kind == Data::Text && self.deflate.is_none();
        if text && !self.utf8.add(&self.bytes[from..]) {
            return Err(NOT_UTF8);
        }
        Ok(())
    }

    /// The whole message.
    fn finish(self, limit: usize) -> Result<(Data, Vec<u8>), Failure> {
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

/// Where in the buffer something is.
enum Found {
    Whole(Data, Range<usize>),
    /// In `assembled`.
    Assembled(Data),
    Control(Control, Range<usize>),
}

/// The receiving side of a connection.
#[derive(Debug)]
pub struct Incoming<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What of the buffer has been received and not been looked at.
    unread: Range<usize>,
    limit: usize,
    deflate: Option<Window>,
    frame: Option<Frame>,
    message: Option<Assembly>,
    assembled: Vec<u8>,
    last_read: Instant,
}

impl<S: Read> Incoming<S> {
    /// Reads from `stream` messages of up to `limit` bytes, compressed ones only if that was agreed
    /// on. `early` was received before.
    pub fn new(stream: S, early: &[u8], limit: usize, deflate: Option<Window>) -> Incoming<S> {
        let mut buffer = vec![0; early.len().max(BUFFER)];
        buffer[..early.len()].copy_from_slice(early);
        Incoming {
            stream,
            buffer,
            unread: 0..early.len(),
            limit,
            deflate,
            frame: None,
            message: None,
            assembled: Vec::new(),
            last_read: Instant::now(),
        }
    }

    /// When anything came last.
    pub fn last_read(&self) -> Instant {
        self.last_read
    }

    /// The next message or control frame.
    ///
    /// # Errors
    /// See [`Failure`]; only after a timeout there may be more.
    pub fn receive(&mut self) -> Result<Received<'_>, Failure> {
        // What was handed out last is done with, and an idle client keeps no message.
        self.assembled = Vec::new();
        let found = loop {
            match self.look()? {
                Some(found) => break found,
                None => self.read()?,
            }
        };
        match found {
            Found::Whole(kind, Range { start, end }) => {
                Ok(Received::Message(Message { kind, bytes: &mut self.buffer[..end], start }))
            }
            Found::Assembled(kind) => {
                let bytes = &mut self.assembled;
                Ok(Received::Message(Message { kind, bytes, start: HEADROOM }))
            }
            Found::Control(Control::Ping, range) => Ok(Received::Ping(&self.buffer[range])),
            Found::Control(Control::Close, range) => {
                let payload = &self.buffer[range];
                check_close(payload)?;
                Ok(Received::Close(payload))
            }
            Found::Control(_, _) => Ok(Received::Pong),
        }
    }

    /// After a message that was too long: finds the close frame behind it. `None` where that has come
    /// already.
    pub fn into_close_finder(self) -> Option<CloseFinder> {
        let mut finder = CloseFinder::new(self.frame.map_or(0, |frame| frame.left));
        let is_found = finder.add(&self.buffer[self.unread]);
        (!is_found).then_some(finder)
    }

    /// Looks for something whole in what is unread; `None`: more must come.
    fn look(&mut self) -> Result<Option<Found>, Failure> {
        loop {
            if self.frame.is_some() {
                if !self.take_payload()? {
                    return Ok(None);
                }
            } else {
                let mut unread = Cursor::new(&self.buffer[self.unread.clone()]);
                let parsed = FrameHeader::parse(&mut unread);
                // The only error there is.
                let Ok(parsed) = parsed else { return wrong("reserved opcode") };
                let Some((header, length)) = parsed else { return Ok(None) };
                let payload = self.unread.start + unread.position() as usize;
                if let Some(found) = self.begin(&header, length, payload)? {
                    return Ok(Some(found));
                }
                if self.frame.is_none() {
                    return Ok(None);
                }
            }
            if let Some(frame) = self.frame.take_if(|frame| frame.left == 0)
                && frame.is_final
                && let Some(message) = self.message.take()
            {
                let (kind, bytes) = message.finish(self.limit)?;
                self.assembled = bytes;
                return Ok(Some(Found::Assembled(kind)));
            }
        }
    }

    /// A frame begins, whose payload is to be at `payload` in the buffer. What is here whole and
    /// needs nothing else is found; a control frame that is not whole is looked at again; anything
    /// else becomes [`Incoming::frame`].
    fn begin(
        &mut self,
        header: &FrameHeader,
        length: u64,
        payload: usize,
    ) -> Result<Option<Found>, Failure> {
        let mask = self.check(header, length)?;
        let is_whole = (self.unread.end - payload) as u64 >= length;
        let range = payload..payload + if is_whole { length as usize } else { 0 };
        match header.opcode {
            OpCode::Control(kind) => Ok(is_whole.then(|| {
                unmask(&mut self.buffer[range.clone()], mask);
                self.unread.start = range.end;
                Found::Control(kind, range)
            })),
            // The way of nearly all messages.
            OpCode::Data(kind)
                if is_whole && header.is_final && !header.rsv1 && kind != Data::Continue =>
            {
                let bytes = &mut self.buffer[range.clone()];
                unmask(bytes, mask);
                if kind == Data::Text && str::from_utf8(bytes).is_err() {
                    return Err(NOT_UTF8);
                }
                self.unread.start = range.end;
                Ok(Some(Found::Whole(kind, range)))
            }
            OpCode::Data(kind) => {
                if kind != Data::Continue {
                    self.message = Some(Assembly::new(kind, self.deflate.filter(|_| header.rsv1)));
                }
                self.unread.start = payload;
                self.frame = Some(Frame { left: length, mask, is_final: header.is_final });
                Ok(None)
            }
        }
    }

    /// What can be said against a frame by its header. Returns its masking key.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<[u8; 4], Failure> {
        let Some(mask) = header.mask else { return wrong("frame is not masked") };
        if header.rsv2 || header.rsv3 || length >> 63 != 0 {
            return wrong("reserved bits");
        }
        let message = self.message.as_ref();
        match header.opcode {
            OpCode::Control(_) if header.rsv1 => return wrong("compressed control frame"),
            OpCode::Control(_) if !header.is_final => return wrong("fragmented control frame"),
            OpCode::Control(_) if length > MOST_CONTROL => return wrong("long control frame"),
            OpCode::Control(_) => return Ok(mask),
            OpCode::Data(Data::Continue) if message.is_none() => {
                return wrong("continuation of nothing");
            }
            // RFC 7692 section 6.1: only a message's first frame says that it is compressed.
            OpCode::Data(Data::Continue) if header.rsv1 => return wrong("RSV1 in a continuation"),
            OpCode::Data(Data::Continue) => {}
            OpCode::Data(_) if message.is_some() => return wrong("message within a message"),
            OpCode::Data(_) if header.rsv1 && self.deflate.is_none() => {
                return wrong("RSV1, though no extension was agreed on");
            }
            OpCode::Data(_) => {}
        }
        let deflate = match message {
            Some(message) => message.deflate,
            None => self.deflate.filter(|_| header.rsv1),
        };
        let most = deflate.map_or(self.limit, |window| deflate::longest(window, self.limit));
        if length > (most - message.map_or(0, Assembly::len)) as u64 {
            return Err(TOO_LONG);
        }
        Ok(mask)
    }

    /// Moves what has come of the frame's payload into the message. Returns whether it is whole.
    fn take_payload(&mut self) -> Result<bool, Failure> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else {
            return Ok(true);
        };
        let take = (frame.left).min(self.unread.len() as u64) as usize;
        let from = message.bytes.len();
        message.bytes.extend_from_slice(&self.buffer[self.unread.start..][..take]);
        self.unread.start += take;
        frame.received(take, message, from)?;
        Ok(frame.left == 0)
    }

    /// Reads once.
    fn read(&mut self) -> Result<(), Failure> {
        let read = match (&mut self.frame, &mut self.message) {
            // All that was received is in the message: so can be what follows, without a copy.
            (Some(frame), Some(message)) if frame.left >= BUFFER as u64 => {
                let from = message.bytes.len();
                let room = from.clamp(BUFFER, LONG_READ).min(frame.left as usize);
                message.bytes.resize(from + room, 0);
                let read = self.stream.read(&mut message.bytes[from..]);
                message.bytes.truncate(from + read.as_ref().map_or(0, |read| *read));
                let read = read?;
                frame.received(read, message, from)?;
                read
            }
            _ => {
                // What is left is the beginning of a header or of a control frame: little.
                self.buffer.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
                let read = self.stream.read(&mut self.buffer[self.unread.end..])?;
                self.unread.end += read;
                read
            }
        };
        self.last_read = Instant::now();
        if read == 0 { Err(Failure::Lost) } else { Ok(()) }
    }
}

impl Frame {
    /// `count` bytes have come, and are in the message behind the first `from`.
    fn received(
        &mut self,
        count: usize,
        message: &mut Assembly,
        from: usize,
    ) -> Result<(), Failure> {
        unmask(&mut message.bytes[from..], self.mask);
        self.mask.rotate_left(count % 4);
        self.left -= count as u64;
        message.check(from)
    }
}

/// Section 5.3.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    // Words, since a compiler makes the best of them.
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

/// Sections 5.5.1 and 7.4: nothing, or a code that may be sent and a reason.
fn check_close(payload: &[u8]) -> Result<(), Failure> {
    let (high, low, reason) = match payload {
        [] => return Ok(()),
        [_] => return wrong("invalid close frame"),
        [high, low, reason @ ..] => (*high, *low, reason),
    };
    let code = CloseCode::from(u16::from_be_bytes([high, low]));
    if !code.is_allowed() {
        return wrong("invalid close code");
    }
    if str::from_utf8(reason).is_err() {
        return Err(Failure::Wrong(CloseCode::Invalid, "reason is not UTF-8"));
    }
    Ok(())
}
