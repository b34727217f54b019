//! One `POST` after another, over a connection that is kept as long as the server keeps it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::http::{ChunkDecoder, Head, HeadReader};
use crate::target::Target;

/// Longest wait for one step of a request.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 1024 * 1024;

/// Sends requests to one server.
pub struct Poster {
    target: Target,
    /// The connection of the request before, if the server has left it open.
    kept: Option<TcpStream>,
    /// Requests sent.
    pub requests: u64,
    /// Connections they took.
    pub connections: u64,
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
enum Failed {
    /// The connection was closed before a single byte of an answer.
    Closed(String),
    /// Anything else: the request may have had its effect.
    Broken(String),
}

impl Failed {
    fn text(self) -> String {
        match self {
            Self::Closed(text) | Self::Broken(text) => text,
        }
    }
}

impl Poster {
    /// Not connected yet.
    pub fn new(target: Target) -> Self {
        Self { target, kept: None, requests: 0, connections: 0 }
    }

    /// Where it posts to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends one request and returns the number of subscribers the answer names.
    pub fn post(&mut self, request: &[u8]) -> Result<Option<u64>, String> {
        self.requests += 1;
        // A server may close a kept connection at any moment between two requests, and the request
        // crosses that on its way. Anything else is not tried again: no event may go out twice.
        let kept = self.kept.take();
        let answer = match kept.map(|stream| self.exchange(stream, request)) {
            None | Some(Err(Failed::Closed(_))) => {
                let stream = self.connect()?;
                self.exchange(stream, request)
            }
            Some(other) => other,
        };
        let (status, body) = answer.map_err(Failed::text)?;
        if !(200..300).contains(&status) {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("/publish answered {status} {}", text.trim()));
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(answer["subscribers"].as_u64())
    }

    fn connect(&mut self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect_timeout(&self.target.address, PATIENCE)
            .map_err(|e| format!("cannot connect to publish: {e}"))?;
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_write_timeout(Some(PATIENCE));
        self.connections += 1;
        Ok(stream)
    }

    fn exchange(
        &mut self,
        mut stream: TcpStream,
        request: &[u8],
    ) -> Result<(u16, Vec<u8>), Failed> {
        let unsent = |e| Failed::Closed(format!("cannot send a publish request: {e}"));
        stream.write_all(request).map_err(unsent)?;
        let (head, body) = read_answer(&mut stream)?;
        if !head.closes && (head.chunked || head.length.is_some()) {
            self.kept = Some(stream);
        }
        Ok((head.status, body))
    }
}

/// Reads one response: to its length, to its last chunk, or to the end of the connection.
fn read_answer(stream: &mut impl Read) -> Result<(Head, Vec<u8>), Failed> {
    let broken = Failed::Broken;
    let mut reader = HeadReader::default();
    let mut chunks = ChunkDecoder::default();
    let mut head: Option<Head> = None;
    let mut body = Vec::new();
    let mut buffer = [0; 4096];
    let mut begun = false;
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset && !begun => {
                return Err(Failed::Closed(format!("no answer from /publish: {e}")));
            }
            Err(e) => return Err(broken(format!("no answer from /publish: {e}"))),
        };
        let mut bytes = &buffer[..length];
        if length == 0 {
            return match head {
                Some(head) if !head.chunked && head.length.is_none() => Ok((head, body)),
                None if !begun => Err(Failed::Closed("/publish closed without an answer".into())),
                _ => Err(broken("/publish closed in the middle of its answer".into())),
            };
        }
        begun = true;
        if head.is_none() {
            let Some((parsed, used)) = reader.feed(bytes).map_err(broken)? else {
                continue;
            };
            bytes = &bytes[used..];
            head = Some(parsed);
        }
        let Some(known) = &head else { continue };
        let ended = if known.chunked {
            let keep = |piece: &[u8]| {
                body.extend_from_slice(piece);
                Ok(())
            };
            chunks.feed(bytes, keep).map_err(broken)?
        } else {
            body.extend_from_slice(bytes);
            known.length.is_some_and(|wanted| body.len() >= wanted)
        };
        if ended {
            return Ok((known.clone(), body));
        }
        if body.len() > LONGEST_ANSWER {
            return Err(broken("an answer over 1 MiB from /publish".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn answer(text: &str) -> Result<(u16, Vec<u8>), Failed> {
        read_answer(&mut text.as_bytes()).map(|(head, body)| (head.status, body))
    }

    #[test]
    fn answers_in_every_form() {
        let body = |text: &str| answer(text).expect("valid").1;
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}ignored")[..2], *b"{}");
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n{}"), b"{}");
        assert_eq!(
            body("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
            b"{}"
        );
        assert_eq!(answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").map(|a| a.0), Ok(403));
        let cut = answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}");
        assert!(matches!(cut, Err(Failed::Broken(_))));
        assert!(matches!(answer(""), Err(Failed::Closed(_))));
    }

    /// A server that answers `answers` on each connection in turn, then closes it.
    fn serve(connections: Vec<Vec<&'static str>>) -> (Target, thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let target = Target::local(listener.local_addr().expect("address"));
        let run = move || {
            let mut requests = 0;
            for answers in connections {
                let (mut stream, _) = listener.accept().expect("accept");
                for answer in answers {
                    let mut request = [0; 64];
                    assert!(stream.read(&mut request).expect("request") > 0);
                    requests += 1;
                    stream.write_all(answer.as_bytes()).expect("answer");
                }
            }
            requests
        };
        (target, thread::spawn(run))
    }

    const KEPT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"subscribers\":7}";
    const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";

    #[test]
    fn a_connection_is_kept_where_the_server_keeps_it() {
        let (target, server) = serve(vec![vec![KEPT, KEPT, LAST], vec![KEPT]]);
        let mut poster = Poster::new(target);
        for expected in [Some(7), Some(7), None, Some(7)] {
            assert_eq!(poster.post(b"x"), Ok(expected));
        }
        assert_eq!((poster.requests, poster.connections), (4, 2));
        assert_eq!(server.join().expect("server"), 4);
    }

    #[test]
    fn a_kept_connection_that_was_closed_is_replaced() {
        let (target, server) = serve(vec![vec![KEPT], vec![KEPT]]);
        let mut poster = Poster::new(target);
        assert_eq!(poster.post(b"x"), Ok(Some(7)));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(poster.post(b"x"), Ok(Some(7)));
        assert_eq!(poster.connections, 2);
        assert_eq!(server.join().expect("server"), 2);
    }
}
