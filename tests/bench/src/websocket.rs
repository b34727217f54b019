//! WebSocket frames from the client's side: masked out, plain in.

/// A message longer than this is a broken server, not a reason to fill the memory.
const LONGEST_MESSAGE: u64 = 64 * 1024 * 1024;

/// Opcode of a text message.
pub const TEXT: u8 = 1;
/// Opcode of a binary message.
pub const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Appends one whole message as a masked frame.
pub fn encode(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    // Eight bytes a step: byte by byte, masking would be most of the work on large messages.
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let mut words = out[start..].chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Puts frames together again, whatever pieces they arrive in.
#[derive(Default)]
pub struct FrameParser {
    /// The beginning of a frame whose end has not arrived.
    carry: Vec<u8>,
    /// The fragments of a message so far, and its opcode.
    fragments: Option<(u8, Vec<u8>)>,
}

/// One frame's place in a buffer.
struct Frame {
    fin: bool,
    opcode: u8,
    start: usize,
    end: usize,
}

impl FrameParser {
    /// Takes the next bytes and hands each complete message (opcode, payload) to `message`.
    ///
    /// Answers to pings go into `out`. An error is the end of the connection: a violation of the
    /// protocol, or the server's close frame.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut message: impl FnMut(u8, &[u8], &mut Vec<u8>),
    ) -> Result<(), String> {
        if self.carry.is_empty() {
            let used = Self::scan(&mut self.fragments, bytes, out, &mut message)?;
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            self.carry.extend_from_slice(bytes);
            let used = Self::scan(&mut self.fragments, &self.carry, out, &mut message)?;
            self.carry.drain(..used);
        }
        Ok(())
    }

    fn scan(
        fragments: &mut Option<(u8, Vec<u8>)>,
        bytes: &[u8],
        out: &mut Vec<u8>,
        message: &mut impl FnMut(u8, &[u8], &mut Vec<u8>),
    ) -> Result<usize, String> {
        let mut used = 0;
        while let Some(frame) = Self::frame(&bytes[used..])? {
            let payload = &bytes[used + frame.start..used + frame.end];
            used += frame.end;
            match (frame.opcode, frame.fin, fragments.is_some()) {
                (CLOSE, true, _) => return Err(close_reason(payload)),
                (PING, true, _) => encode(PONG, payload, [7, 7, 7, 7], out),
                (PONG, true, _) => {}
                (TEXT | BINARY, true, false) => message(frame.opcode, payload, out),
                (TEXT | BINARY, false, false) => {
                    *fragments = Some((frame.opcode, payload.to_vec()));
                }
                (0, fin, true) => {
                    if let Some((_, whole)) = fragments {
                        if (whole.len() + payload.len()) as u64 > LONGEST_MESSAGE {
                            return Err("a message over 64 MiB".to_owned());
                        }
                        whole.extend_from_slice(payload);
                    }
                    if fin && let Some((opcode, whole)) = fragments.take() {
                        message(opcode, &whole, out);
                    }
                }
                (opcode, fin, _) => {
                    return Err(format!("a frame out of place: opcode {opcode}, final {fin}"));
                }
            }
        }
        Ok(used)
    }

    /// The frame at the front of `bytes`, once it is complete.
    fn frame(bytes: &[u8]) -> Result<Option<Frame>, String> {
        let [first, second, ..] = *bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err("a frame with reserved bits, though no extension was agreed".to_owned());
        }
        if second & 0x80 != 0 {
            return Err("a masked frame from the server".to_owned());
        }
        let (start, length) = match second {
            126 => match bytes.get(2..4) {
                Some(field) => (4, field.iter().fold(0, |n, &b| n << 8 | u64::from(b))),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(field) => (10, field.iter().fold(0, |n, &b| n << 8 | u64::from(b))),
                None => return Ok(None),
            },
            short => (2, u64::from(short)),
        };
        if length > LONGEST_MESSAGE {
            return Err("a message over 64 MiB".to_owned());
        }
        let end = start + length as usize;
        if bytes.len() < end {
            return Ok(None);
        }
        Ok(Some(Frame { fin: first & 0x80 != 0, opcode: first & 15, start, end }))
    }
}

fn close_reason(payload: &[u8]) -> String {
    match payload {
        [a, b, text @ ..] => format!(
            "the server closed with {} {}",
            u16::from_be_bytes([*a, *b]),
            String::from_utf8_lossy(text)
        ),
        _ => "the server closed without a code".to_owned(),
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
