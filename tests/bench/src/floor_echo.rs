//! The physical limit of an echo: a thread per connection that blocks in `read`, turns the frame
//! round and writes it.
//!
//! It answers the handshake with a constant, because the generator always sends the same key, and
//! knows frames as the generator makes them: whole, masked, text or binary. All that a WebSocket
//! server has to do beyond this (checking UTF-8, fragments, pings, limits) is the price of being one.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::target::WEBSOCKET_ACCEPT;

/// A thread that does this little needs no more.
const STACK: usize = 64 * 1024;
/// What the servers are set to read at a time.
const BUFFER: usize = 4 * 1024;

/// Serves for ever.
pub fn serve(listener: &TcpListener) -> ! {
    loop {
        if let Ok((stream, _)) = listener.accept() {
            let echo = move || {
                // The end of the connection is the end of the thread, whatever the reason.
                let _ = echo(stream);
            };
            let _ = thread::Builder::new().stack_size(STACK).spawn(echo);
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut chunk = [0; BUFFER];
    while !buffer.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => buffer.extend_from_slice(&chunk[..length]),
        }
    }
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
    )?;
    buffer.clear();
    let mut answer = Vec::with_capacity(BUFFER);
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => buffer.extend_from_slice(&chunk[..length]),
        }
        answer.clear();
        let mut used = 0;
        while let Some(length) = turn(&buffer[used..], &mut answer) {
            used += length;
        }
        buffer.drain(..used);
        stream.write_all(&answer)?;
    }
}

/// Appends the first frame of `bytes`, unmasked, to `out`; its length once it is complete.
fn turn(bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let length_field = match bytes.get(1)? & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let header = 2 + length_field;
    let mask: [u8; 4] = bytes.get(header..header + 4)?.try_into().ok()?;
    let length = match length_field {
        0 => usize::from(bytes[1] & 0x7f),
        _ => bytes[2..header].iter().fold(0, |n, &byte| n << 8 | usize::from(byte)),
    };
    let payload = bytes.get(header + 4..header + 4 + length)?;
    out.extend_from_slice(&[bytes[0], bytes[1] & 0x7f]);
    out.extend_from_slice(&bytes[2..header]);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    Some(header + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{BINARY, FrameParser, encode};

    #[test]
    fn a_frame_comes_back_without_its_mask() {
        for length in [0, 5, 125, 126, 70_000] {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut frame = Vec::new();
            encode(BINARY, &payload, [1, 2, 3, 4], &mut frame);
            frame.extend_from_slice(b"next");
            let mut out = Vec::new();
            assert_eq!(turn(&frame, &mut out), Some(frame.len() - 4));
            let mut got = Vec::new();
            let keep =
                |opcode, payload: &[u8], _: &mut Vec<u8>| got.push((opcode, payload.to_vec()));
            FrameParser::default().feed(&out, &mut Vec::new(), keep).expect("a valid frame");
            assert_eq!(got, [(BINARY, payload)]);
        }
    }

    #[test]
    fn half_a_frame_waits() {
        let mut frame = Vec::new();
        encode(BINARY, b"hello", [1, 2, 3, 4], &mut frame);
        for end in 0..frame.len() {
            assert_eq!(turn(&frame[..end], &mut Vec::new()), None);
        }
    }
}
