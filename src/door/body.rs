//! The body of a request (RFC 9112 sections 6 and 7): read whole, within a limit and a deadline.
//!
//! The connection's thread reads, when a handler asks for the body. It waits in `poll` for more bytes.
//! These wake it: bytes, the client that closes, the deadline, and the door's table that evicts the
//! connection.

use std::io::ErrorKind;
use std::time::Instant;

use super::error::DoorError;
use super::pending::Pending;
use crate::http::head::Framing;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// The longest line, in bytes: a chunk's size with its extensions, or a trailer.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// The most bytes of chunk extensions and trailers together. They are read and ignored.
const MAX_DISCARDED_BYTES: usize = 16 * 1024;

/// Reads a body of at most `limit` bytes. Bytes behind it stay in `pending`.
///
/// # Errors
/// [`DoorError::BodyTooLong`], [`DoorError::BodyTimeout`], and [`BROKEN`] for the rest. Afterwards it is
/// not known how much of the body is still to come, so the connection serves no other request.
pub fn read(
    pending: &mut Pending,
    framing: Framing,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<u8>, DoorError> {
    match framing {
        Framing::Length(length) => {
            // A body that is too long is refused before any of it is read: perhaps the client has not sent
            // it yet.
            let length = usize::try_from(length).ok().filter(|length| *length <= limit);
            let length = length.ok_or(DoorError::BodyTooLong(limit))?;
            while pending.bytes.len() < length {
                fill(pending, deadline)?;
            }
            let behind = pending.bytes.split_off(length);
            Ok(std::mem::replace(&mut pending.bytes, behind))
        }
        Framing::Chunked => {
            let mut chunks = Chunks { pending, deadline, limit, used: 0, discarded: 0 };
            let body = chunks.read()?;
            let used = chunks.used;
            pending.bytes.drain(..used);
            Ok(body)
        }
    }
}

/// The client closed too early, or the framing is malformed.
pub const BROKEN: DoorError =
    DoorError::Malformed("bad_body", "the body ended early or is malformed");

/// Waits for more bytes.
fn fill(pending: &mut Pending, deadline: Instant) -> Result<(), DoorError> {
    pending.fill(READ_BYTES, deadline).map_err(|error| match error.kind() {
        ErrorKind::TimedOut => DoorError::BodyTimeout,
        _ => BROKEN,
    })
}

/// A reader of the chunked coding (RFC 9112 section 7.1). It is strict, as the reader of heads is: a size
/// is hexadecimal digits and nothing else, and every line ends in CR LF.
struct Chunks<'a> {
    pending: &'a mut Pending,
    deadline: Instant,
    limit: usize,
    /// How many of the pending bytes are read. They are removed a buffer at a time: if each chunk were
    /// removed by itself, many small ones would cost the square of their number.
    used: usize,
    /// How many bytes of extensions and trailers have come.
    discarded: usize,
}

impl Chunks<'_> {
    fn read(&mut self) -> Result<Vec<u8>, DoorError> {
        let mut body = Vec::new();
        loop {
            match self.size()? {
                0 => break,
                // Before the chunk is read: its size alone may be more memory than there is.
                size if size > self.limit - body.len() => {
                    return Err(DoorError::BodyTooLong(self.limit));
                }
                size => self.data(size, &mut body)?,
            }
            // Data without a line end behind it has another size than was said.
            if !self.line()?.is_empty() {
                return Err(BROKEN);
            }
        }
        // Trailers, up to an empty line.
        loop {
            let line = self.line()?;
            match line.contains(&b':') {
                true => self.discard(line.len())?,
                false if line.is_empty() => return Ok(body),
                false => return Err(BROKEN),
            }
        }
    }

    /// The size of the next chunk; 0 ends the data.
    fn size(&mut self) -> Result<usize, DoorError> {
        let line = self.line()?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extensions) = line.split_at(digits);
        self.discard(extensions.len())?;
        let digits = std::str::from_utf8(digits).map_err(|_| BROKEN)?;
        // More than 16 digits are refused, also with zeros in front: other programs may overflow.
        if !(1..=16).contains(&digits.len()) || !matches!(extensions, [] | [b';', ..]) {
            return Err(BROKEN);
        }
        usize::from_str_radix(digits, 16).map_err(|_| DoorError::BodyTooLong(self.limit))
    }

    /// Appends the next `left` bytes to `body`.
    fn data(&mut self, mut left: usize, body: &mut Vec<u8>) -> Result<(), DoorError> {
        while left > 0 {
            let came = &self.pending.bytes[self.used..];
            let now = &came[..left.min(came.len())];
            body.extend_from_slice(now);
            (self.used, left) = (self.used + now.len(), left - now.len());
            if left > 0 {
                self.fill()?;
            }
        }
        Ok(())
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Vec<u8>, DoorError> {
        let is_bad = |byte: &u8| *byte != b'\t' && byte.is_ascii_control();
        loop {
            let came = &self.pending.bytes[self.used..];
            let end = came.iter().position(|byte| *byte == b'\n');
            // The limit is on what must be kept until the line feed comes, so the CR counts.
            if end.unwrap_or(came.len()) > MAX_LINE_BYTES {
                return Err(BROKEN);
            }
            if let Some(end) = end {
                let line = came[..end].strip_suffix(b"\r").ok_or(BROKEN)?.to_vec();
                self.used += end + 1;
                return if line.iter().any(is_bad) { Err(BROKEN) } else { Ok(line) };
            }
            self.fill()?;
        }
    }

    /// Counts bytes that are read and ignored.
    fn discard(&mut self, bytes: usize) -> Result<(), DoorError> {
        self.discarded += bytes;
        match self.discarded > MAX_DISCARDED_BYTES {
            true => Err(DoorError::BodyTooLong(self.limit)),
            false => Ok(()),
        }
    }

    /// Removes the bytes that are read, and waits for more.
    fn fill(&mut self) -> Result<(), DoorError> {
        self.pending.bytes.drain(..self.used);
        self.used = 0;
        fill(self.pending, self.deadline)
    }
}
