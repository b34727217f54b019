//! How an event stream is framed on its connection (RFC 9112 section 7).
//!
//! To HTTP/1.1 it goes in chunks: client libraries hand on a chunk as soon as it is whole, and would
//! collect bytes without that; and the last chunk tells a stream that ended from one that broke off.
//! HTTP/1.0 knows no chunks: there the stream is bare, and closing ends it.

/// The transfer coding of an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Bare, ended by closing: HTTP/1.0.
    Identity,
    /// In chunks (RFC 9112 section 7.1): HTTP/1.1.
    Chunked,
}

impl Coding {
    /// `text` for a stream with this coding.
    pub fn frame(self, text: &[u8]) -> Box<[u8]> {
        match self {
            Coding::Identity => text.into(),
            Coding::Chunked => Encoded::new(text).bytes,
        }
    }

    /// A comment line, for a connection on which nothing else is sent (WHATWG HTML, section 9.2.7).
    /// Without an empty line behind it: many clients report a block that has no data as an event.
    pub fn heartbeat(self) -> &'static [u8] {
        match self {
            Coding::Identity => b":\n",
            Coding::Chunked => b"2\r\n:\n\r\n",
        }
    }

    /// What is sent where a stream ends by intent.
    pub fn end(self) -> &'static [u8] {
        match self {
            Coding::Identity => b"",
            Coding::Chunked => b"0\r\n\r\n",
        }
    }
}

/// Whole messages of an event stream, encoded once for both codings: the bare text is a part of the
/// chunk.
#[derive(Debug)]
pub struct Encoded {
    /// One chunk: its length in hexadecimal, CRLF, the text, CRLF.
    bytes: Box<[u8]>,
    text_start: usize,
}

impl Encoded {
    /// Encodes `text`, which must not be empty: a chunk of no bytes ends a stream.
    pub fn new(text: &[u8]) -> Encoded {
        debug_assert!(!text.is_empty());
        let length = format!("{:x}\r\n", text.len());
        let bytes = [length.as_bytes(), text, b"\r\n"].concat().into();
        Encoded { bytes, text_start: length.len() }
    }

    /// The bytes for a stream with this coding.
    pub fn bytes(&self, coding: Coding) -> &[u8] {
        match coding {
            Coding::Identity => &self.bytes[self.text_start..self.bytes.len() - 2],
            Coding::Chunked => &self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_the_bare_text() {
        let text = "x".repeat(0x1234);
        let encoded = Encoded::new(text.as_bytes());
        assert_eq!(encoded.bytes(Coding::Identity), text.as_bytes());
        assert_eq!(encoded.bytes(Coding::Chunked), format!("1234\r\n{text}\r\n").as_bytes());
        assert_eq!(&*Coding::Chunked.frame(b"0123456789"), b"a\r\n0123456789\r\n");
        assert_eq!(&*Coding::Identity.frame(b"0123456789"), b"0123456789");
    }

    #[test]
    fn a_heartbeat_is_framed_like_everything_else() {
        for coding in [Coding::Identity, Coding::Chunked] {
            assert_eq!(coding.heartbeat(), &*coding.frame(b":\n"));
        }
    }
}
