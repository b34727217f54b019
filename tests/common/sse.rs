//! An SSE client of a few lines: the head, then one block after another. Blocks are taken apart
//! as the WHATWG event stream rules say, for what this server sends (line feeds only).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::{PATIENCE, Remote};

/// A stream without its transfer coding (RFC 9112 section 7.1).
struct Body {
    reader: BufReader<TcpStream>,
    /// Bytes of the present chunk that are still to come.
    left: usize,
    /// The last chunk has come.
    is_whole: bool,
}

impl Body {
    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None if line.ends_with('\n') => panic!("not a line of a chunk: {line:?}"),
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for Body {
    /// What is left of a chunk at the most: never bytes of two chunks at once.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.is_whole {
            return Ok(0);
        }
        if self.left == 0 {
            let length = self.line()?;
            self.left = usize::from_str_radix(&length, 16).expect(&length);
            if self.left == 0 {
                assert_eq!(self.line()?, "", "no trailers");
                self.is_whole = true;
                return Ok(0);
            }
        }
        let most = buffer.len().min(self.left);
        let read = self.reader.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        if self.left == 0 {
            assert_eq!(self.line()?, "", "the end of a chunk");
        }
        Ok(read)
    }
}

/// One block of a stream, or a comment line in front of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<String>,
    pub comment: bool,
}

pub struct Sse {
    reader: BufReader<Body>,
    pub head: String,
    /// The last `retry` that came, in a block or not: it counts at once.
    pub retry: Option<String>,
}

impl Sse {
    /// Connects, and reads the head. `headers` are further lines, each ended by CRLF.
    pub fn connect(server: &Remote, target: &str, headers: &str) -> Sse {
        Sse::connect_on(server.connect(), server, target, headers)
    }

    /// A connection on which the stream is asked for, and nothing is read.
    pub fn connect_unanswered(server: &Remote, target: &str) -> TcpStream {
        let mut stream = server.connect();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn connect_on(mut stream: TcpStream, server: &Remote, target: &str, headers: &str) -> Sse {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", server.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("a head") > 0, "ended in its head: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
        let body = Body { reader, left: 0, is_whole: false };
        Sse { reader: BufReader::new(body), head, retry: None }
    }

    /// Connects and reads past the greeting.
    pub fn open(server: &Remote, target: &str) -> Sse {
        Sse::open_after(server, target, None)
    }

    /// The same, having seen the event with the id `last`.
    pub fn open_after(server: &Remote, target: &str, last: Option<&str>) -> Sse {
        let header = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        Sse::connect(server, target, &header).greeted()
    }

    /// Connects with small buffers (see [`Remote::connect_narrow`]).
    pub fn connect_narrow(server: &Remote, target: &str) -> Sse {
        Sse::connect_on(server.connect_narrow(), server, target, "")
    }

    /// The same, and reads past the greeting.
    pub fn open_narrow(server: &Remote, target: &str) -> Sse {
        Sse::connect_narrow(server, target).greeted()
    }

    fn greeted(self) -> Sse {
        let mut sse = self;
        let greeting = sse.block().unwrap();
        assert_eq!(greeting.data.as_deref(), Some(r#"{"message":"Connection established"}"#));
        assert_eq!(greeting.retry.as_deref(), Some("2000"));
        sse
    }

    /// The next block, or comment line; `None` at the end of the stream. A block that is cut off is
    /// dropped, as the standard says.
    pub fn block(&mut self) -> Option<Block> {
        use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
        let mut block = Block::default();
        let mut line = String::new();
        loop {
            line.clear();
            match self.reader.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if [ConnectionReset, UnexpectedEof].contains(&error.kind()) => {
                    return None;
                }
                Err(error) => panic!("nothing came: {error}"),
            }
            let line = line.strip_suffix('\n')?;
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (line, name) {
                ("", _) => return Some(block),
                (_, "") if block == Block::default() => {
                    return Some(Block { comment: true, ..block });
                }
                (_, "") => panic!("a comment within a block: {line:?}"),
                (_, "id") => block.id = Some(value.to_owned()),
                (_, "event") => block.event = Some(value.to_owned()),
                (_, "retry") => {
                    self.retry = Some(value.to_owned());
                    block.retry = Some(value.to_owned());
                }
                (_, "data") => match &mut block.data {
                    Some(data) => *data = format!("{data}\n{value}"),
                    None => block.data = Some(value.to_owned()),
                },
                other => panic!("unknown line {other:?}"),
            }
        }
    }

    /// The next block that is not a comment.
    pub fn event(&mut self) -> Option<Block> {
        // Comments come more often than the socket's own timeout would.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.block() {
                Some(block) if block.comment => {
                    assert!(Instant::now() < deadline, "nothing came but comments");
                }
                other => return other,
            }
        }
    }

    /// Checks that no event has come behind the last one read: publishes one, which must be next.
    pub fn expect_nothing(&mut self, server: &Remote, cause: &str) {
        let marker = server.publish_id("/publish", "marker");
        let event = self.event().expect("the marker");
        assert_eq!(event.id, Some(marker), "{cause} published {event:?}");
    }

    /// The same for a client that is subscribed to `topic`.
    pub fn expect_nothing_on(&mut self, server: &Remote, topic: &str) {
        let marker = server.publish_id(&format!("/publish?topic={topic}"), "marker");
        assert_eq!(self.event().expect("the marker").id, Some(marker));
    }

    /// Whether the stream has ended as the server meant it to (with its last chunk).
    pub fn is_whole(&self) -> bool {
        self.reader.get_ref().is_whole
    }

    /// The socket, for tests that close it or read slowly.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref().reader.get_ref()
    }
}
