//! What a client sends: frames, put together to messages (RFC 6455 sections 5 and 6.2).
//!
//! One thread, the client's own, calls [`Incoming::receive`] and blocks there in `read`. It wakes
//! when bytes come, when the peer closes, when the socket's read timeout passes (a
//! [`Failure::Timeout`], after which it may call again), or when another thread shuts the socket down.
//!
//! tungstenite parses the frames' headers. The layer above is ours, for three reasons: tungstenite's
//! checks a frame only when all of it is there, but text that is not UTF-8 is to be noticed when it
//! comes; it knows no extensions; and it copies, where a message that is here whole can go back from
//! where it lies.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::time::Instant;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::close_finder::CloseFinder;
use super::deflate::{self, Window};
use super::failure::{Failure, NOT_UTF8, TOO_LONG, wrong};
use super::frame::HEADROOM;
pub use super::message::Message;
use super::message::{Assembly, Frame, unmask};

/// The buffer's size. It is most of an idle client's memory, so not more than a page.
const BUFFER_BYTES: usize = 4 * 1024;

/// The longest payload of a control frame (section 5.5).
const MAX_CONTROL_BYTES: u64 = 125;

/// What came.
#[derive(Debug)]
pub enum Received<'a> {
    /// A message, of up to the limit of bytes.
    Message(Message<'a>),
    /// A ping and what it carries, which the pong must.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close frame's code and reason, or nothing; they may be sent back.
    Close(&'a [u8]),
}

/// What has come whole, and where it is: [`Received`] before anything is borrowed.
enum Found {
    /// A message in the buffer, unmasked.
    Whole(Data, Range<usize>),
    /// A message in [`Incoming::assembled`].
    Assembled(Data),
    /// A control frame's payload in the buffer, unmasked.
    Control(Control, Range<usize>),
}

/// The receiving side of a connection.
#[derive(Debug)]
pub struct Incoming<S> {
    stream: S,
    buffer: Vec<u8>,
    /// The part of the buffer that has been received and not been parsed.
    unread: Range<usize>,
    limit: usize,
    deflate: Option<Window>,
    /// The message that is being received, unless it comes whole with its header.
    message: Option<Assembly>,
    /// The message that was handed out last, unless it lies in the buffer.
    assembled: Vec<u8>,
    last_read: Instant,
}

impl<S: Read> Incoming<S> {
    /// Reads from `stream` messages of up to `limit` bytes, compressed ones only if that was agreed
    /// on. `early` was received before, behind the handshake.
    pub fn new(stream: S, early: &[u8], limit: usize, deflate: Option<Window>) -> Incoming<S> {
        let mut buffer = vec![0; early.len().max(BUFFER_BYTES)];
        buffer[..early.len()].copy_from_slice(early);
        Incoming {
            stream,
            buffer,
            unread: 0..early.len(),
            limit,
            deflate,
            message: None,
            assembled: Vec::new(),
            last_read: Instant::now(),
        }
    }

    /// When anything came last, were it a part of a frame.
    pub fn last_read(&self) -> Instant {
        self.last_read
    }

    /// Waits for the next message or control frame.
    ///
    /// # Errors
    /// See [`Failure`]; only after a timeout there may be more.
    pub fn receive(&mut self) -> Result<Received<'_>, Failure> {
        // What was handed out last is done with, and an idle client keeps no message.
        self.assembled = Vec::new();
        let found = loop {
            match self.parse()? {
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
    pub fn close_finder(&self) -> Option<CloseFinder> {
        let left = self.message.as_ref().map_or(0, |message| message.frame.left);
        let mut finder = CloseFinder::new(left);
        let is_found = finder.add(&self.buffer[self.unread.clone()]);
        (!is_found).then_some(finder)
    }

    /// Parses what is unread up to something whole; `None`: more must come.
    fn parse(&mut self) -> Result<Option<Found>, Failure> {
        loop {
            // In the middle of a data frame: the rest of its payload comes first.
            if let Some(message) = &mut self.message {
                self.unread.start += message.add(&self.buffer[self.unread.clone()])?;
                if message.frame.left > 0 {
                    return Ok(None);
                }
            }
            if let Some(message) = self.message.take_if(|message| message.is_whole()) {
                let (kind, bytes) = message.finish(self.limit)?;
                self.assembled = bytes;
                return Ok(Some(Found::Assembled(kind)));
            }
            // Between two frames: a header comes. A reserved opcode is the only error there is.
            let mut unread = Cursor::new(&self.buffer[self.unread.clone()]);
            let Ok(parsed) = FrameHeader::parse(&mut unread) else {
                return wrong("reserved opcode");
            };
            let Some((header, length)) = parsed else { return Ok(None) };
            let start = self.unread.start + unread.position() as usize;
            // Before its payload has come: what is refused need not be received.
            let mask = self.check(&header, length)?;
            let is_whole = (self.unread.end - start) as u64 >= length;
            match header.opcode {
                // It is short: its header stays unread until all of it is here.
                OpCode::Control(_) if !is_whole => return Ok(None),
                OpCode::Control(kind) => {
                    return Ok(Some(Found::Control(kind, self.take(start, length, mask))));
                }
                // A message in one frame, which is here: the way of nearly all. Nothing is copied.
                OpCode::Data(kind)
                    if is_whole && header.is_final && !header.rsv1 && kind != Data::Continue =>
                {
                    let range = self.take(start, length, mask);
                    if kind == Data::Text && str::from_utf8(&self.buffer[range.clone()]).is_err() {
                        return Err(NOT_UTF8);
                    }
                    return Ok(Some(Found::Whole(kind, range)));
                }
                OpCode::Data(kind) => {
                    self.unread.start = start;
                    let frame = Frame { left: length, mask, is_final: header.is_final };
                    let deflate = self.deflate.filter(|_| header.rsv1);
                    match &mut self.message {
                        Some(message) => message.frame = frame,
                        None => self.message = Some(Assembly::new(kind, deflate, frame)),
                    }
                }
            }
        }
    }

    /// Takes a frame's payload, which is in the buffer, and unmasks it there.
    fn take(&mut self, start: usize, length: u64, mask: [u8; 4]) -> Range<usize> {
        let range = start..start + length as usize;
        unmask(&mut self.buffer[range.clone()], mask);
        self.unread.start = range.end;
        range
    }

    /// What can be said against a frame by its header. Returns its masking key.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<[u8; 4], Failure> {
        let Some(mask) = header.mask else { return wrong("frame is not masked") };
        // The highest bit of a length is reserved, too (section 5.2).
        if header.rsv2 || header.rsv3 || length >> 63 != 0 {
            return wrong("reserved bits");
        }
        let message = self.message.as_ref();
        match header.opcode {
            // Section 5.5.
            OpCode::Control(_) if header.rsv1 => return wrong("compressed control frame"),
            OpCode::Control(_) if !header.is_final => return wrong("fragmented control frame"),
            OpCode::Control(_) if length > MAX_CONTROL_BYTES => return wrong("long control frame"),
            OpCode::Control(_) => return Ok(mask),
            // Section 5.4.
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
        // The limit is one of the message, inflated: compressed it may be a little longer.
        let deflate = match message {
            Some(message) => message.deflate,
            None => self.deflate.filter(|_| header.rsv1),
        };
        let limit = deflate.map_or(self.limit, |window| deflate::longest(window, self.limit));
        if length > (limit - message.map_or(0, Assembly::len)) as u64 {
            return Err(TOO_LONG);
        }
        Ok(mask)
    }

    /// Reads once. [`Incoming::parse`] has left only what needs more.
    fn read(&mut self) -> Result<(), Failure> {
        let read = match &mut self.message {
            // Nothing is unread: what comes can go where it belongs, without a copy.
            Some(message) if message.frame.left >= BUFFER_BYTES as u64 => {
                message.read(&mut self.stream)?
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
