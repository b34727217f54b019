//! As much of HTTP/1.1 as a load generator needs: response heads and chunked bodies.

use crate::target::WEBSOCKET_ACCEPT;

/// A head longer than this is a broken server.
const LONGEST_HEAD: usize = 16 * 1024;

/// What matters in a response head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Whether the body comes in chunks (Node does that, threadcast may not).
    pub chunked: bool,
    /// The body's length, where the server says it.
    pub length: Option<usize>,
    /// Whether the server says that it closes the connection after this answer.
    pub closes: bool,
    /// Whether `Sec-WebSocket-Accept` is the answer to our key.
    pub accepted: bool,
}

impl Head {
    /// Parses everything before the empty line.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(text);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or("");
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| format!("not an HTTP response: {first:?}"))?;
        let mut head = Self { status, ..Self::default() };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "transfer-encoding" => {
                    head.chunked = value.to_ascii_lowercase().ends_with("chunked");
                }
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                "content-length" => head.length = value.parse().ok(),
                "sec-websocket-accept" => head.accepted = value == WEBSOCKET_ACCEPT,
                _ => {}
            }
        }
        Ok(head)
    }
}

/// Collects a head that may arrive in pieces.
#[derive(Default)]
pub struct HeadReader {
    collected: Vec<u8>,
}

impl HeadReader {
    /// Takes the next bytes. Once the head is complete: the head, and how many of `bytes` it used.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
        let before = self.collected.len();
        self.collected.extend_from_slice(bytes);
        // The end may lie across the border, so the search starts a little before it.
        let from = before.saturating_sub(3);
        let Some(at) = memchr::memmem::find(&self.collected[from..], b"\r\n\r\n") else {
            if self.collected.len() > LONGEST_HEAD {
                return Err("the response head does not end".to_owned());
            }
            return Ok(None);
        };
        let end = from + at;
        Ok(Some((Head::parse(&self.collected[..end])?, end + 4 - before)))
    }
}

/// Undoes `Transfer-Encoding: chunked`, piece by piece, without copying.
#[derive(Default)]
pub struct ChunkDecoder {
    state: ChunkState,
}

#[derive(Default)]
enum ChunkState {
    /// In the size line: the size so far, whether a `;` began an extension.
    Size { size: u64, extension: bool },
    /// In the data: how much is left.
    Data(u64),
    /// In the line break after the data.
    Break,
    /// Before a size line.
    #[default]
    Start,
    /// After the last chunk.
    End,
}

impl ChunkDecoder {
    /// Takes the next bytes and hands each piece of body to `body`. True at the last chunk.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut body: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<bool, String> {
        while let Some(&byte) = bytes.first() {
            match &mut self.state {
                ChunkState::End => return Ok(true),
                ChunkState::Start => {
                    self.state = ChunkState::Size { size: 0, extension: false };
                }
                ChunkState::Size { size, extension } => {
                    bytes = &bytes[1..];
                    match byte {
                        b'\n' if *size == 0 => self.state = ChunkState::End,
                        b'\n' => self.state = ChunkState::Data(*size),
                        b'\r' => {}
                        _ if *extension => {}
                        b';' | b' ' => *extension = true,
                        _ => {
                            let digit = (byte as char).to_digit(16).ok_or("bad chunk size")?;
                            if *size > u64::from(u32::MAX) {
                                return Err("a chunk over 4 GiB".to_owned());
                            }
                            *size = *size << 4 | u64::from(digit);
                        }
                    }
                }
                ChunkState::Data(left) => {
                    let take = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    body(&bytes[..take])?;
                    bytes = &bytes[take..];
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = ChunkState::Break;
                    }
                }
                ChunkState::Break => {
                    bytes = &bytes[1..];
                    if byte == b'\n' {
                        self.state = ChunkState::Start;
                    }
                }
            }
        }
        Ok(matches!(self.state, ChunkState::End))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-length: 7\r\n\r\nrest";

    #[test]
    fn a_head_at_every_split() {
        for cut in 0..RESPONSE.len() {
            let mut reader = HeadReader::default();
            let (first, second) = RESPONSE.split_at(cut);
            let (head, used) = match reader.feed(first).expect("valid") {
                Some((head, used)) => (head, used),
                None => {
                    let (head, used) = reader.feed(second).expect("valid").expect("complete");
                    (head, used + cut)
                }
            };
            assert_eq!(used, RESPONSE.len() - 4);
            assert_eq!(
                head,
                Head { status: 200, chunked: true, length: Some(7), ..Head::default() }
            );
        }
    }

    #[test]
    fn refuses_nonsense_and_endless_heads() {
        assert!(HeadReader::default().feed(b"SSH-2.0\r\n\r\n").is_err());
        assert!(HeadReader::default().feed(&[b'x'; LONGEST_HEAD + 1]).is_err());
    }

    #[test]
    fn chunks_at_every_split() {
        let stream = b"5\r\nhello\r\n1;note=1\r\n \r\nA\r\n0123456789\r\n0\r\n\r\n";
        for cut in 0..stream.len() {
            let mut decoder = ChunkDecoder::default();
            let mut body = Vec::new();
            let mut keep = |piece: &[u8]| {
                body.extend_from_slice(piece);
                Ok(())
            };
            decoder.feed(&stream[..cut], &mut keep).expect("valid");
            let ended = decoder.feed(&stream[cut..], &mut keep).expect("valid");
            assert!(ended);
            assert_eq!(body, b"hello 0123456789");
        }
        assert!(ChunkDecoder::default().feed(b"zz\r\n", |_| Ok(())).is_err());
    }
}
