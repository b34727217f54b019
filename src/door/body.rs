//! The body of a request (RFC 9112 sections 6 and 7): read whole, within a limit and a deadline.

use std::time::Instant;

use super::head::Framing;
use super::pending::{Filled, Pending};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// The longest line: a chunk's size with its extensions, or a trailer.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// The most bytes of chunk extensions and trailers together. They are read and discarded.
const MAX_DISCARDED_BYTES: usize = 16 * 1024;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// Longer than the limit: 413.
    TooLong,
    /// Not complete by the deadline: 408.
    TooLate,
    /// The connection ended early, or the framing is broken: 400.
    Broken,
}

/// Reads a body of at most `limit` bytes. What comes behind it stays in `pending`.
///
/// # Errors
/// See [`BodyError`]. How much of the body is left is not known then.
pub fn read(
    pending: &mut Pending,
    framing: Framing,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<u8>, BodyError> {
    let (mut body, mut chunks) = (Vec::new(), Chunks::default());
    let length = match framing {
        Framing::Length(length) => usize::try_from(length).map_err(|_| BodyError::TooLong)?,
        Framing::Chunked => 0,
    };
    if length > limit {
        return Err(BodyError::TooLong);
    }
    loop {
        let is_complete = match framing {
            Framing::Length(_) => pending.bytes.len() >= length,
            Framing::Chunked => chunks.decode(&mut pending.bytes, &mut body, limit)?,
        };
        match (is_complete, framing) {
            (true, Framing::Chunked) => return Ok(body),
            (true, Framing::Length(_)) => {
                let behind = pending.bytes.split_off(length);
                return Ok(std::mem::replace(&mut pending.bytes, behind));
            }
            (false, _) => {}
        }
        match pending.fill(READ_BYTES, deadline) {
            Filled::Some => {}
            Filled::TimedOut => return Err(BodyError::TooLate),
            Filled::Closed => return Err(BodyError::Broken),
        }
    }
}

/// A decoder of the chunked coding (RFC 9112 section 7.1), stricter than the grammar's history: a
/// size is hexadecimal digits and nothing else, and every line ends in CR LF.
#[derive(Debug, Default)]
struct Chunks {
    state: State,
    discarded: usize,
}

#[derive(Debug, Default)]
enum State {
    /// In front of a chunk's size.
    #[default]
    Size,
    /// So many bytes of a chunk are to come.
    Data(usize),
    /// Behind a chunk's data.
    DataEnd,
    /// Behind the last chunk: trailers, up to an empty line.
    Trailers,
}

impl Chunks {
    /// Moves what `input` holds of the body to `body`. Returns whether the body is complete.
    fn decode(
        &mut self,
        input: &mut Vec<u8>,
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<bool, BodyError> {
        let mut used = 0;
        let result = loop {
            let rest = &input[used..];
            if let State::Data(left) = &mut self.state {
                let now = rest.len().min(*left);
                body.extend_from_slice(&rest[..now]);
                (used, *left) = (used + now, *left - now);
                if *left > 0 {
                    break Ok(false);
                }
                self.state = State::DataEnd;
                continue;
            }
            let Some(line) = next_line(rest)? else { break Ok(false) };
            used += line.len() + 2;
            match self.state {
                State::DataEnd if line.is_empty() => self.state = State::Size,
                State::DataEnd => break Err(BodyError::Broken),
                State::Trailers if line.is_empty() => break Ok(true),
                State::Trailers if line.contains(&b':') => self.discard(line.len())?,
                State::Trailers => break Err(BodyError::Broken),
                State::Size | State::Data(_) => {
                    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                    self.discard(line.len() - digits)?;
                    self.state = match chunk_size(&line[..digits], &line[digits..])? {
                        0 => State::Trailers,
                        size if size > limit - body.len() => return Err(BodyError::TooLong),
                        size => State::Data(size),
                    };
                }
            }
        };
        input.drain(..used);
        result
    }

    fn discard(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.discarded += bytes;
        if self.discarded > MAX_DISCARDED_BYTES { Err(BodyError::TooLong) } else { Ok(()) }
    }
}

/// The first line, without its end; `None` where the end has not come.
fn next_line(bytes: &[u8]) -> Result<Option<&[u8]>, BodyError> {
    let is_bad = |byte: &u8| *byte != b'\t' && byte.is_ascii_control();
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end > MAX_LINE_BYTES => Err(BodyError::Broken),
        Some(end) if end > 0 && bytes[end - 1] == b'\r' && !bytes[..end - 1].iter().any(is_bad) => {
            Ok(Some(&bytes[..end - 1]))
        }
        Some(_) => Err(BodyError::Broken),
        None if bytes.len() > MAX_LINE_BYTES => Err(BodyError::Broken),
        None => Ok(None),
    }
}

fn chunk_size(digits: &[u8], extensions: &[u8]) -> Result<usize, BodyError> {
    let is_extension = matches!(extensions, [] | [b';', ..]);
    let digits = std::str::from_utf8(digits).map_err(|_| BodyError::Broken)?;
    // More than 16 digits is no size that anything could have, also with zeros in front.
    if digits.is_empty() || digits.len() > 16 || !is_extension {
        return Err(BodyError::Broken);
    }
    usize::from_str_radix(digits, 16).map_err(|_| BodyError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes in one piece, and byte by byte; both must come to the same.
    fn decode(text: &str) -> Result<Option<(String, String)>, BodyError> {
        let run = |pieces: Vec<&[u8]>| {
            let (mut chunks, mut input, mut body) = (Chunks::default(), Vec::new(), Vec::new());
            let mut is_complete = false;
            for piece in pieces {
                input.extend_from_slice(piece);
                is_complete = is_complete || chunks.decode(&mut input, &mut body, 20)?;
            }
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Ok(is_complete.then(|| (text(body), text(input))))
        };
        let whole = run(vec![text.as_bytes()]);
        assert_eq!(run(text.as_bytes().chunks(1).collect()), whole, "{text:?}");
        whole
    }

    #[test]
    fn chunks_are_put_together_and_what_follows_is_left() {
        let body = |text: &str| decode(text).map(|found| found.unwrap());
        assert_eq!(body("0\r\n\r\n"), Ok((String::new(), String::new())));
        let two = "3\r\none\r\n004;x=\"y\"\r\n two\r\n0;z\r\nTrailer: t\r\n\r\nGET /";
        assert_eq!(body(two), Ok(("one two".into(), "GET /".into())));
        assert_eq!(decode("3\r\none\r\n0\r\n"), Ok(None));
    }

    #[test]
    fn anything_else_is_broken_or_too_long() {
        for bad in [
            "+3\r\none",
            " 3\r\none",
            "3 \r\none",
            "0x3\r\none",
            "\r\n",
            "g\r\n",
            "3\none",
            "3\r\r\n",
            "-0\r\n",
            "3\r\noneX\r\n",
            "3\r\none\n",
            "3;a\0\r\n",
            "00000000000000003\r\n",
            "0\r\nT: t\n\r\n",
            "0\r\nno field\r\n\r\n",
            "0\r\nT: \u{1}\r\n\r\n",
        ] {
            assert_eq!(decode(bad), Err(BodyError::Broken), "{bad:?}");
        }
        assert_eq!(decode("15\r\n"), Err(BodyError::TooLong));
        assert_eq!(decode("14\r\n12345678901234567890\r\n1\r\n"), Err(BodyError::TooLong));
        assert_eq!(decode("ffffffffffffffff\r\n"), Err(BodyError::TooLong));
        let trailers = format!("0\r\n{}", "T: 0123456789\r\n".repeat(2000));
        assert_eq!(decode(&trailers), Err(BodyError::TooLong));
    }
}
