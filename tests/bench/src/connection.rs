//! One client: from the TCP handshake over the HTTP answer to a stream of messages.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::http::{ChunkDecoder, Head, HeadReader};
use crate::sse::SseParser;
use crate::sys::monotonic_ns;
use crate::target::{Endpoint, Target, Transport};
use crate::websocket::FrameParser;

/// Whoever is interested in what arrives.
pub trait Sink {
    /// One event or message of client `client`, read at `at`. Bytes put into `out` are sent back
    /// on the same connection.
    fn message(&mut self, client: usize, payload: &[u8], at: u64, out: &mut Vec<u8>);
}

/// A sink for times when messages do not count.
pub struct Discard;

impl Sink for Discard {
    fn message(&mut self, _: usize, _: &[u8], _: u64, _: &mut Vec<u8>) {}
}

/// More than this unsent means the server has stopped reading, and the memory would fill up.
const MOST_UNSENT: usize = 64 * 1024 * 1024;

/// A client connection.
pub struct Connection {
    /// Its nonblocking socket, to be registered with the event loop.
    pub stream: TcpStream,
    /// When it began to connect.
    pub started: u64,
    /// When the server had greeted it, 0 before that.
    pub welcomed: u64,
    stage: Stage,
    endpoint: Endpoint,
    /// Whether the first message, not the head of the answer, is the greeting.
    first_message_greets: bool,
    out: Vec<u8>,
    sent: usize,
}

enum Stage {
    Connecting,
    Head(HeadReader),
    Events(SseParser),
    ChunkedEvents(ChunkDecoder, SseParser),
    Frames(FrameParser),
}

impl Connection {
    /// Starts to connect; the request goes out as soon as the socket is writable.
    pub fn open(
        target: &Target,
        endpoint: Endpoint,
        topic: Option<&str>,
        seen: Option<&str>,
        source: Option<Ipv4Addr>,
    ) -> io::Result<Self> {
        let started = monotonic_ns();
        let stream = match source {
            None => TcpStream::connect(target.address)?,
            Some(source) => connect_from(source, target.address)?,
        };
        Ok(Self {
            stream,
            started,
            welcomed: 0,
            stage: Stage::Connecting,
            endpoint,
            first_message_greets: target.greets && endpoint == Endpoint::Events(Transport::Ws),
            out: target.opening(endpoint, topic, seen),
            sent: 0,
        })
    }

    /// Whether the server has greeted it: the head of an SSE stream or of `/echo`, the first
    /// message of `/ws` (the head, from a server that does not greet).
    pub fn is_welcomed(&self) -> bool {
        self.welcomed != 0
    }

    /// Finishes the TCP handshake if it is still going on. False: not yet.
    pub fn advance(&mut self) -> Result<bool, String> {
        if !matches!(self.stage, Stage::Connecting) {
            return Ok(true);
        }
        if let Some(error) = self.stream.take_error().map_err(|e| e.to_string())? {
            return Err(format!("cannot connect: {error}"));
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                let _ = self.stream.set_nodelay(true);
                self.stage = Stage::Head(HeadReader::default());
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(format!("cannot connect: {e}")),
        }
    }

    /// Reads until the socket is empty. An error is the end of this connection.
    ///
    /// A read that does not fill the buffer has emptied the socket, so the usual delivery costs
    /// one `recv`; only when the other side has closed (`to_end`) the end itself has to be read.
    pub fn readable(
        &mut self,
        index: usize,
        to_end: bool,
        buffer: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), String> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(length) => {
                    let at = monotonic_ns();
                    self.received(index, &buffer[..length], at, sink)?;
                    if length < buffer.len() && !to_end {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("cannot read: {e}")),
            }
        }
    }

    fn received(
        &mut self,
        index: usize,
        bytes: &[u8],
        at: u64,
        sink: &mut impl Sink,
    ) -> Result<(), String> {
        match &mut self.stage {
            Stage::Connecting => Ok(()),
            Stage::Head(reader) => {
                let Some((head, used)) = reader.feed(bytes)? else {
                    return Ok(());
                };
                self.stage = self.after(&head)?;
                if !self.first_message_greets {
                    self.welcomed = at;
                }
                match &bytes[used..] {
                    [] => Ok(()),
                    rest => self.received(index, rest, at, sink),
                }
            }
            Stage::Events(parser) => {
                let out = &mut self.out;
                parser.feed(bytes, |event| sink.message(index, event, at, out))
            }
            Stage::ChunkedEvents(chunks, parser) => {
                let out = &mut self.out;
                let ended = chunks.feed(bytes, |piece| {
                    parser.feed(piece, |event| sink.message(index, event, at, out))
                })?;
                if ended { Err("the server ended the stream".to_owned()) } else { Ok(()) }
            }
            Stage::Frames(parser) => {
                let welcomed = &mut self.welcomed;
                parser.feed(bytes, &mut self.out, |_, payload, out| {
                    if *welcomed == 0 {
                        *welcomed = at;
                    }
                    sink.message(index, payload, at, out);
                })
            }
        }
    }

    fn after(&self, head: &Head) -> Result<Stage, String> {
        match (self.endpoint, head.status) {
            (Endpoint::Events(Transport::Sse), 200) if head.chunked => {
                Ok(Stage::ChunkedEvents(ChunkDecoder::default(), SseParser::default()))
            }
            (Endpoint::Events(Transport::Sse), 200) => Ok(Stage::Events(SseParser::default())),
            (Endpoint::Events(Transport::Ws) | Endpoint::Echo, 101) if head.accepted => {
                Ok(Stage::Frames(FrameParser::default()))
            }
            (_, 101) => Err("the server's Sec-WebSocket-Accept is wrong".to_owned()),
            (_, status) => Err(format!("the server answered {status}")),
        }
    }

    /// Queues bytes and sends what the socket takes.
    pub fn queue(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), String> {
        fill(&mut self.out);
        self.flush()
    }

    /// Sends what is queued, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.out.len() - self.sent > MOST_UNSENT {
                        return Err("the server does not read what is sent to it".to_owned());
                    }
                    // Forget what is gone once it is most of the buffer, not at every call.
                    if self.sent > self.out.len() / 2 {
                        self.out.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(e) => return Err(format!("cannot send: {e}")),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Connects from a given loopback address: each has its own 28,000 source ports.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(source, 0)).into())?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    Ok(TcpStream::from_std(socket.into()))
}
