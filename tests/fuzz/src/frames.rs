//! WebSocket frames (RFC 6455 section 5.2), as a client writes and reads them, and the handshake.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::live::find;

/// Opcodes (section 11.8).
pub mod opcode {
    /// Goes on with the message begun before.
    pub const CONTINUATION: u8 = 0;
    /// Begins a text message.
    pub const TEXT: u8 = 1;
    /// Begins a binary message.
    pub const BINARY: u8 = 2;
    /// Ends the connection.
    pub const CLOSE: u8 = 8;
    /// Asks for a pong.
    pub const PING: u8 = 9;
    /// Answers a ping.
    pub const PONG: u8 = 10;
}

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthForm {
    /// In as few bytes as possible, as the RFC demands.
    Minimal,
    /// In 16 bits where it fits.
    Sixteen,
    /// In 64 bits.
    SixtyFour,
}

/// A frame's first bytes. `first` is FIN, RSV and opcode; `length` is whatever is to be claimed.
pub fn head(first: u8, masked: bool, length: u64, form: LengthForm) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut head = vec![first];
    match (form, length) {
        (LengthForm::Minimal, 0..=125) => head.push(mask | length as u8),
        (LengthForm::Minimal | LengthForm::Sixteen, 0..=0xffff) => {
            head.push(mask | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head
}

/// `payload`, masked or unmasked.
pub fn apply_mask(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// A right frame of a client's.
pub fn client_frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = head(first, true, payload.len() as u64, LengthForm::Minimal);
    frame.extend_from_slice(&key);
    frame.extend(apply_mask(payload, key));
    frame
}

/// The payload of a close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// A frame of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFrame {
    /// What it is for.
    pub opcode: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The error of a stream that ends within a frame.
pub const CUT: &str = "the stream ends within a frame";

/// The next frame; `None` at the end of the stream, which a reset is too.
///
/// # Errors
/// Where nothing comes, the stream ends within a frame, or the frame is not one that this server
/// may send: whole, unmasked, without reserved bits, its length in as few bytes as possible.
pub fn read_frame(stream: &mut impl Read) -> Result<Option<ServerFrame>, String> {
    let mut first = [0];
    match stream.read_exact(&mut first) {
        Ok(()) => {}
        Err(error) if is_end(error.kind()) => return Ok(None),
        Err(error) => return Err(format!("no frame: {error}")),
    }
    let [first] = first;
    let mut more = |buffer: &mut [u8]| {
        stream.read_exact(buffer).map_err(|error| match is_end(error.kind()) {
            true => CUT.to_owned(),
            false => format!("half a frame: {error}"),
        })
    };
    let mut second = [0];
    more(&mut second)?;
    let length = match second[0] {
        126 => {
            let mut bytes = [0; 2];
            more(&mut bytes)?;
            u64::from(u16::from_be_bytes(bytes))
        }
        127 => {
            let mut bytes = [0; 8];
            more(&mut bytes)?;
            u64::from_be_bytes(bytes)
        }
        short => u64::from(short),
    };
    let expected = head(first, false, length, LengthForm::Minimal);
    if expected[1] != second[0] || length > 1 << 26 || first & 0xf0 != 0x80 {
        return Err(format!("a frame that begins {first:#x} {:#x}, length {length}", second[0]));
    }
    let mut payload = vec![0; length as usize];
    more(&mut payload)?;
    Ok(Some(ServerFrame { opcode: first & 0x0f, payload }))
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// The upgrade request for `target`.
pub fn upgrade_request(target: &str, host: impl std::fmt::Display) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

/// Asks for a WebSocket, with `extra` header lines, sending `early` in the same breath, and reads
/// the head of the answer.
///
/// # Errors
/// Where the server does not switch protocols.
pub fn handshake(
    stream: &mut TcpStream,
    target: &str,
    extra: &str,
    early: &[u8],
) -> Result<(), String> {
    let host = stream.peer_addr().map_err(|error| format!("handshake: {error}"))?;
    let request = format!("{}{extra}\r\n", upgrade_request(target, host));
    stream
        .write_all(&[request.as_bytes(), early].concat())
        .map_err(|error| format!("handshake: {error}"))?;
    let head = read_head(stream)?;
    let switched = head.starts_with("HTTP/1.1 101 ");
    // The key and the answer to it are those of section 1.3.
    let accepted = head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n");
    if switched && accepted { Ok(()) } else { Err(format!("instead of a WebSocket: {head:?}")) }
}

/// The head of an answer, byte by byte, so that nothing behind it is taken.
///
/// # Errors
/// Where there is none.
pub fn read_head(stream: &mut TcpStream) -> Result<String, String> {
    let mut head = Vec::new();
    while find(&head[head.len().saturating_sub(4)..], b"\r\n\r\n").is_none() {
        let mut byte = [0];
        if let Err(error) = stream.read_exact(&mut byte) {
            return Err(format!("{error} in the head {:?}", String::from_utf8_lossy(&head)));
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).map_err(|_| "a head that is not text".to_owned())
}
