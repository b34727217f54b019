//! What a server must do with a client's bytes, from RFC 6455 alone: a parser that predicts the
//! messages that it hands up, and how the connection ends. Where the RFC leaves a choice (how early
//! a violation is noticed, and which of several is named) every choice is predicted.

use crate::frames::opcode;

/// Something the server hands up, or answers by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The answer to a ping.
    Pong(Vec<u8>),
}

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The bytes end where more may come: nothing is closed until the client does.
    Open,
    /// The client has closed with this status, which is sent back (section 5.5.1).
    Closed(Option<u16>),
    /// The connection is failed with one of these codes (section 7.1.7).
    Failed(Vec<u16>),
}

/// One way that is right: the first `outputs` outputs, and then this end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// How many of the outputs come before the end.
    pub outputs: usize,
    /// The end.
    pub end: End,
}

/// All that may happen.
#[derive(Debug, Default)]
pub struct Prediction {
    /// What is handed up, in order, by a server that notices violations as late as it may.
    pub outputs: Vec<Output>,
    /// The right ways; the last is that of the same server.
    pub ways: Vec<Way>,
}

impl Prediction {
    /// The end for a server that notices violations as late as it may.
    pub fn last_end(&self) -> &End {
        self.ways.last().map_or(&End::Open, |way| &way.end)
    }

    fn may(&mut self, end: End) {
        self.ways.push(Way { outputs: self.outputs.len(), end });
    }
}

const PROTOCOL: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// A frame's header, read from the wire.
struct Head {
    fin: bool,
    reserved: bool,
    opcode: u8,
    key: Option<[u8; 4]>,
    length: u64,
    minimal: bool,
    size: usize,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mut size) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let minimal = match size {
        4 => length > 125,
        10 => length > 0xffff,
        _ => true,
    };
    let mut key = None;
    if second & 0x80 != 0 {
        key = Some(bytes.get(size..size + 4)?.try_into().ok()?);
        size += 4;
    }
    let (fin, reserved) = (first & 0x80 != 0, first & 0x70 != 0);
    Some(Head { fin, reserved, opcode: first & 0x0f, key, length, minimal, size })
}

/// A message whose last frame has not come.
struct Message {
    text: bool,
    payload: Vec<u8>,
}

/// Predicts what a server does that accepts messages of up to `limit` bytes.
pub fn predict(mut bytes: &[u8], limit: usize) -> Prediction {
    let mut prediction = Prediction::default();
    let mut message: Option<Message> = None;
    let end = loop {
        let Some(head) = head(bytes) else { break End::Open };
        let codes = violations(&head, message.as_ref(), limit);
        let rest = &bytes[head.size..];
        let complete = rest.len() as u64 >= head.length;
        if !head.minimal {
            // 'The minimal number of bytes MUST be used', but nothing says that the receiver must
            // mind. Both are seen.
            prediction.may(End::Failed([codes.clone(), vec![PROTOCOL]].concat()));
        }
        if !complete {
            // The header may be enough to fail, or the server may wait for the rest. What is too
            // big to be stored must not be waited for.
            if codes.contains(&TOO_BIG) && head.length > limit as u64 {
                break End::Failed(codes);
            }
            let mut early = codes;
            if head.opcode == opcode::TEXT || head.opcode == opcode::CONTINUATION {
                // So may the part of a text that is there.
                early.push(NOT_UTF8);
            }
            if !early.is_empty() {
                prediction.may(End::Failed(early));
            }
            break End::Open;
        }
        let (payload, after) = rest.split_at(head.length as usize);
        bytes = after;
        let payload: Vec<u8> = match head.key {
            Some(key) => payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect(),
            None => payload.to_vec(),
        };
        if !codes.is_empty() {
            let mut codes = codes;
            let text = head.opcode == opcode::TEXT
                || head.opcode == opcode::CONTINUATION && message.as_ref().is_some_and(|m| m.text);
            if text && codes.contains(&TOO_BIG) {
                // It may have been found not to be text before it was found to be too long.
                codes.push(NOT_UTF8);
            }
            break End::Failed(codes);
        }
        match head.opcode {
            opcode::PING => prediction.outputs.push(Output::Pong(payload)),
            opcode::PONG => {}
            opcode::CLOSE => break closed(&mut prediction, &payload),
            kind => {
                let mut whole = message
                    .take()
                    .unwrap_or(Message { text: kind == opcode::TEXT, payload: Vec::new() });
                whole.payload.extend(payload);
                if !head.fin {
                    if whole.text && is_hopeless(&whole.payload) {
                        prediction.may(End::Failed(vec![NOT_UTF8]));
                    }
                    message = Some(whole);
                    continue;
                }
                match (whole.text, String::from_utf8(whole.payload)) {
                    (true, Ok(text)) => prediction.outputs.push(Output::Text(text)),
                    (true, Err(_)) => break End::Failed(vec![NOT_UTF8]),
                    (false, payload) => {
                        let payload = payload.map_or_else(|e| e.into_bytes(), String::into_bytes);
                        prediction.outputs.push(Output::Binary(payload));
                    }
                }
            }
        }
    };
    prediction.may(end);
    prediction
}

/// With which codes a frame may be refused for its header alone.
fn violations(head: &Head, message: Option<&Message>, limit: usize) -> Vec<u16> {
    let control = head.opcode & 8 != 0;
    let wrong = head.reserved                                           // no extension was agreed on
        || head.key.is_none()                                           // section 5.1
        || head.length >> 63 != 0                                       // section 5.2
        || control && (!head.fin || head.length > 125)                  // section 5.5
        || matches!(head.opcode, 3..=7 | 11..=15)                       // section 5.2
        || head.opcode == opcode::CONTINUATION && message.is_none()     // section 5.4
        || matches!(head.opcode, opcode::TEXT | opcode::BINARY) && message.is_some();
    let before = message.map_or(0, |message| message.payload.len() as u64);
    let long = head.length.saturating_add(if control { 0 } else { before }) > limit as u64;
    [(wrong, PROTOCOL), (long, TOO_BIG)].iter().filter(|(is, _)| *is).map(|(_, c)| *c).collect()
}

/// Section 5.5.1: a code and a reason, or nothing.
fn closed(prediction: &mut Prediction, payload: &[u8]) -> End {
    let (code, reason) = match payload {
        [] => return End::Closed(None),
        [_] => return End::Failed(vec![PROTOCOL]),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    let is_text = std::str::from_utf8(reason).is_ok();
    match code {
        // Section 7.4.1: those that may be sent, and section 7.4.2: for libraries and applications.
        1000..=1003 | 1007..=1011 | 3000..=4999 if is_text => End::Closed(Some(code)),
        1000..=1003 | 1007..=1011 | 3000..=4999 => End::Failed(vec![NOT_UTF8]),
        // Registered with IANA since.
        1012..=1014 => {
            prediction.may(if is_text {
                End::Closed(Some(code))
            } else {
                End::Failed(vec![NOT_UTF8])
            });
            End::Failed(vec![PROTOCOL])
        }
        _ if is_text => End::Failed(vec![PROTOCOL]),
        _ => End::Failed(vec![PROTOCOL, NOT_UTF8]),
    }
}

/// Whether no continuation can make these bytes UTF-8.
fn is_hopeless(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::client_frame;

    fn last(frames: &[Vec<u8>]) -> (Vec<Output>, End) {
        let prediction = predict(&frames.concat(), 100);
        (prediction.outputs.clone(), prediction.last_end().clone())
    }

    #[test]
    fn the_examples_of_section_5_7() {
        let masked = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(last(&[masked]), (vec![Output::Text("Hello".into())], End::Open));
        let unmasked = vec![0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        assert_eq!(last(&[unmasked]), (vec![], End::Failed(vec![1002])));
    }

    #[test]
    fn fragments_make_a_message_around_a_ping() {
        let frames = [(0x01, "he"), (0x89, "p"), (0x80, "llo")];
        let frames = frames.map(|(first, text)| client_frame(first, text.as_bytes(), [7; 4]));
        let expected = vec![Output::Pong(b"p".to_vec()), Output::Text("hello".into())];
        assert_eq!(last(&frames), (expected, End::Open));
    }

    #[test]
    fn violations_have_their_codes() {
        let end = |first, payload: &[u8]| last(&[client_frame(first, payload, [1; 4])]).1;
        assert_eq!(end(0x88, &[3, 232]), End::Closed(Some(1000)));
        assert_eq!(end(0x88, &[]), End::Closed(None));
        assert_eq!(end(0x88, &[3]), End::Failed(vec![1002]));
        assert_eq!(end(0x88, &[3, 237]), End::Failed(vec![1002]));
        assert_eq!(end(0x81, &[0xff]), End::Failed(vec![1007]));
        assert_eq!(end(0x82, &[0; 101]), End::Failed(vec![1009]));
        assert_eq!(end(0x83, &[]), End::Failed(vec![1002]));
        assert_eq!(end(0xc2, &[]), End::Failed(vec![1002]));
        assert_eq!(end(0x80, &[]), End::Failed(vec![1002]));
    }
}
