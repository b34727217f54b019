//! WebSocket clients: one that speaks frames by hand, and tungstenite's where frames are not the
//! point.

use std::io::{Read, Write};
use std::net::TcpStream;

use tungstenite::{Message, WebSocket};

use super::{Answer, Remote};

/// The key of RFC 6455 section 1.3, and the answer to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The header lines of a right upgrade request.
pub fn upgrade_lines() -> String {
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n"
    )
}

/// The answer to an upgrade request with further header lines (each ended by CRLF). A close frame
/// follows it, so that a client that was let in is gone and the exchange ends.
pub fn upgrade(server: &Remote, target: &str, headers: &str) -> Answer {
    let host = server.address;
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{}{headers}\r\n", upgrade_lines());
    server.respond([head.as_bytes(), &masked(0x88, b"")].concat())
}

/// One frame as it came: whether it is final, its opcode, its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub last: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// A whole text message in one frame.
pub fn text(payload: impl AsRef<[u8]>) -> Frame {
    Frame { last: true, opcode: 1, payload: payload.as_ref().to_vec() }
}

/// A client that writes and reads frames by hand.
pub struct Raw {
    pub stream: TcpStream,
    pub answer: Answer,
}

impl Raw {
    /// Connects; fails unless the server switches protocols.
    pub fn connect(server: &Remote, target: &str) -> Raw {
        Raw::connect_with(server, target, "", b"")
    }

    /// The same with further header lines (each ended by CRLF), and with bytes that go out together
    /// with the request.
    pub fn connect_with(server: &Remote, target: &str, headers: &str, early: &[u8]) -> Raw {
        Raw::connect_on(server.connect(), server, target, headers, early)
    }

    /// Connects with small buffers (see [`Remote::connect_narrow`]).
    pub fn connect_narrow(server: &Remote, target: &str) -> Raw {
        Raw::connect_on(server.connect_narrow(), server, target, "", b"")
    }

    fn connect_on(
        mut stream: TcpStream,
        server: &Remote,
        target: &str,
        headers: &str,
        early: &[u8],
    ) -> Raw {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\n{}{headers}\r\n",
            server.address,
            upgrade_lines()
        );
        stream.write_all(&[request.as_bytes(), early].concat()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let answer = Answer::parse(&head);
        assert_eq!(answer.status, 101, "{}", answer.head);
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some(ACCEPT));
        Raw { stream, answer }
    }

    /// Sends one frame, masked.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&masked(first, payload)).unwrap();
    }

    /// The next frame, without an extension; `None` at the end of the stream.
    pub fn frame(&mut self) -> Option<Frame> {
        let (first, payload) = self.any_frame()?;
        assert_eq!(first & 0x70, 0, "reserved bits");
        Some(Frame { last: first & 0x80 != 0, opcode: first & 0x0f, payload })
    }

    /// The next frame as its first byte and its payload; `None` at the end of the stream.
    pub fn any_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        read_frame(&mut self.stream)
    }

    /// The code of the close frame that must come next, after which the server must close.
    pub fn close_code(&mut self) -> u16 {
        let frame = self.frame().expect("a close frame");
        assert_eq!(frame.opcode, 8, "{frame:?}");
        let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        self.send(0x88, &frame.payload[..2]);
        assert_eq!(self.frame(), None, "nothing may follow a close frame");
        code
    }
}

/// The next frame in these bytes as its first byte and its payload; `None` at their end.
pub fn read_frame(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    if let Err(error) = stream.read_exact(&mut head) {
        use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
        assert!(matches!(error.kind(), UnexpectedEof | ConnectionReset), "nothing came: {error}");
        return None;
    }
    assert_eq!(head[1] & 0x80, 0, "a server does not mask");
    let length = match head[1] {
        126 => {
            let mut bytes = [0; 2];
            stream.read_exact(&mut bytes).unwrap();
            u64::from(u16::from_be_bytes(bytes))
        }
        127 => {
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes).unwrap();
            u64::from_be_bytes(bytes)
        }
        short => u64::from(short),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).unwrap();
    Some((head[0], payload))
}

/// A masked frame with `first` as its first byte (FIN, RSV, opcode).
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// tungstenite's client, connected.
pub fn connect(server: &Remote, target: &str) -> WebSocket<TcpStream> {
    connect_on(server.connect(), server, target)
}

fn connect_on(stream: TcpStream, server: &Remote, target: &str) -> WebSocket<TcpStream> {
    let url = format!("ws://{}{target}", server.address);
    tungstenite::client(url, stream).expect("a WebSocket").0
}

/// The next text message, as JSON.
pub fn json(socket: &mut WebSocket<TcpStream>) -> serde_json::Value {
    loop {
        match socket.read().expect("a message") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?} instead of text"),
        }
    }
}

/// Connected to `/ws` and past the welcome.
pub fn open(server: &Remote, target: &str) -> WebSocket<TcpStream> {
    welcomed(connect(server, target))
}

/// The same with small buffers (see [`Remote::connect_narrow`]).
pub fn open_narrow(server: &Remote, target: &str) -> WebSocket<TcpStream> {
    welcomed(connect_on(server.connect_narrow(), server, target))
}

fn welcomed(mut socket: WebSocket<TcpStream>) -> WebSocket<TcpStream> {
    check_welcome(&json(&mut socket));
    socket
}

/// Checks the first message on `/ws`; returns the id with which the client misses nothing from there on.
pub fn check_welcome(message: &serde_json::Value) -> Option<String> {
    let id = message["lastEventId"].as_str().map(str::to_owned);
    let mut expected = serde_json::json!({"type": "info", "message": "Welcome to WS Server"});
    if let Some(id) = &id {
        expected["lastEventId"] = id.as_str().into();
    }
    assert_eq!(*message, expected);
    id
}
