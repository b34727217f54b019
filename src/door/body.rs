//! The body of a request (RFC 9112 sections 6 and 7): read whole, within a limit and a deadline.

use std::io::ErrorKind;
use std::time::Instant;

use super::pending::Pending;
use crate::http::Response;
use crate::http::head::Framing;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// The longest line: a chunk's size with its extensions, or a trailer.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// The most bytes of chunk extensions and trailers together. They are read and discarded.
const MAX_DISCARDED_BYTES: usize = 16 * 1024;

/// Reads a body of at most `limit` bytes. What comes behind it stays in `pending`.
///
/// # Errors
/// The response that says why: 413 where it is too long, 408 where it is not complete by the
/// deadline, else 400. How much of the body is left is not known then.
pub fn read(
    pending: &mut Pending,
    framing: Framing,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<u8>, Response> {
    match framing {
        Framing::Length(length) => {
            // Refused before anything is read: the client may not have sent it yet.
            let length = usize::try_from(length).ok().filter(|length| *length <= limit);
            let length = length.ok_or_else(|| too_long(limit))?;
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

/// The response where the connection ended early, or the framing is broken.
pub fn broken() -> Response {
    Response::error(400, "bad_body", "the body ended early or is malformed")
}

fn too_long(limit: usize) -> Response {
    let message = format!("the body is longer than {limit} bytes (--max-message)");
    Response::error(413, "too_large", message)
}

fn fill(pending: &mut Pending, deadline: Instant) -> Result<(), Response> {
    pending.fill(READ_BYTES, deadline).map_err(|error| match error.kind() {
        ErrorKind::TimedOut => Response::error(408, "timeout", "the body did not arrive in time"),
        _ => broken(),
    })
}

/// A reader of the chunked coding (RFC 9112 section 7.1), stricter than the grammar's history: a
/// size is hexadecimal digits and nothing else, and every line ends in CR LF.
struct Chunks<'a> {
    pending: &'a mut Pending,
    deadline: Instant,
    limit: usize,
    /// So many of the pending bytes are read. They are removed a buffer at a time: removed one by
    /// one, many small chunks would cost the square of their number.
    used: usize,
    /// Bytes of extensions and trailers.
    discarded: usize,
}

impl Chunks<'_> {
    fn read(&mut self) -> Result<Vec<u8>, Response> {
        let mut body = Vec::new();
        loop {
            match self.size()? {
                0 => break,
                size if size > self.limit - body.len() => return Err(too_long(self.limit)),
                size => self.data(size, &mut body)?,
            }
            if !self.line()?.is_empty() {
                return Err(broken());
            }
        }
        // Trailers, up to an empty line.
        loop {
            let line = self.line()?;
            match line.contains(&b':') {
                true => self.discard(line.len())?,
                false if line.is_empty() => return Ok(body),
                false => return Err(broken()),
            }
        }
    }

    /// The size of the next chunk, 0 for the last one.
    fn size(&mut self) -> Result<usize, Response> {
        let line = self.line()?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extensions) = line.split_at(digits);
        self.discard(extensions.len())?;
        let digits = std::str::from_utf8(digits).map_err(|_| broken())?;
        // More than 16 digits is no size that anything could have, also with zeros in front.
        if !(1..=16).contains(&digits.len()) || !matches!(extensions, [] | [b';', ..]) {
            return Err(broken());
        }
        usize::from_str_radix(digits, 16).map_err(|_| too_long(self.limit))
    }

    /// Appends the next `left` bytes to `body`.
    fn data(&mut self, mut left: usize, body: &mut Vec<u8>) -> Result<(), Response> {
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
    fn line(&mut self) -> Result<Vec<u8>, Response> {
        let is_bad = |byte: &u8| *byte != b'\t' && byte.is_ascii_control();
        loop {
            let came = &self.pending.bytes[self.used..];
            let end = came.iter().position(|byte| *byte == b'\n');
            // The bound is for what is kept until the line feed comes, so the CR counts.
            if end.unwrap_or(came.len()) > MAX_LINE_BYTES {
                return Err(broken());
            }
            if let Some(end) = end {
                let line = came[..end].strip_suffix(b"\r").ok_or_else(broken)?.to_vec();
                self.used += end + 1;
                return if line.iter().any(is_bad) { Err(broken()) } else { Ok(line) };
            }
            self.fill()?;
        }
    }

    fn discard(&mut self, bytes: usize) -> Result<(), Response> {
        self.discarded += bytes;
        if self.discarded > MAX_DISCARDED_BYTES { Err(too_long(self.limit)) } else { Ok(()) }
    }

    fn fill(&mut self) -> Result<(), Response> {
        self.pending.bytes.drain(..self.used);
        self.used = 0;
        fill(self.pending, self.deadline)
    }
}
