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
    /// `text` for a stream with this coding. It must not be empty: a chunk of no bytes ends a stream.
    pub fn frame(self, text: &[u8]) -> Vec<u8> {
        debug_assert!(!text.is_empty());
        match self {
            Coding::Identity => text.to_vec(),
            // Its length in hexadecimal, CRLF, the text, CRLF.
            Coding::Chunked => [format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_the_bare_text() {
        let text = "x".repeat(0x1234);
        let chunk = Coding::Chunked.frame(text.as_bytes());
        assert_eq!(chunk, format!("1234\r\n{text}\r\n").as_bytes());
        assert_eq!(Coding::Chunked.frame(b"0123456789"), b"a\r\n0123456789\r\n");
        assert_eq!(Coding::Identity.frame(b"0123456789"), b"0123456789");
    }

    #[test]
    fn a_heartbeat_is_framed_like_everything_else() {
        for coding in [Coding::Identity, Coding::Chunked] {
            assert_eq!(coding.heartbeat(), coding.frame(b":\n"));
        }
    }
}
