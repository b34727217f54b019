//! An HTTP client that keeps its connection: it reads each response by its length.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use threadcast::Config;

use super::{Answer, PATIENCE, Remote};

/// The beginning of a request to publish, up to the fields that frame the body.
pub const POST: &str = "POST /publish HTTP/1.1\r\nHost: x\r\n";

/// A request to publish `data`, whose body has a length.
pub fn post(data: &str) -> String {
    format!("{POST}Content-Length: {}\r\n\r\n{data}", data.len())
}

/// A whole GET request with further header lines (each ended by CRLF).
pub fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

/// One connection for several requests.
pub struct Http {
    reader: BufReader<TcpStream>,
}

impl Http {
    pub fn connect(server: &Remote) -> Http {
        Http::on(server.connect())
    }

    pub fn on(stream: TcpStream) -> Http {
        Http { reader: BufReader::new(stream) }
    }

    /// Sends bytes, whether they are a whole request or not.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_ref().write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Sends a request, and reads the response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.response()
    }

    /// The next response's head, as an answer without a body.
    pub fn head(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.reader.read_until(b'\n', &mut head).expect("a response");
            assert!(read > 0, "ended in the head: {}", head.escape_ascii());
        }
        Answer::parse(&head)
    }

    /// The next response.
    pub fn response(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.header("Content-Length").map_or(0, |n| n.parse().expect("a length"));
        answer.body.resize(length, 0);
        self.reader.read_exact(&mut answer.body).expect("a whole body");
        answer
    }

    /// All that comes up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).expect("the server closes");
        rest
    }

    /// Checks that the server closes, and says nothing more.
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "instead of the end came {}", rest.escape_ascii());
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }
}

/// A server inside this process, on a free port of loopback, without ticks.
pub fn start_here() -> threadcast::Server {
    let mut config = Config::default();
    config.set_listen("127.0.0.1:0").expect("an address");
    config.set_tick(Duration::ZERO).expect("no ticks");
    threadcast::Server::start(config).expect("the server starts")
}

/// A connection to it.
pub fn connect_here(server: &threadcast::Server) -> Http {
    let stream = TcpStream::connect(server.address()).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Http::on(stream)
}
