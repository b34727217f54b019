//! One request with the socket it came on: what a handler works with.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tiny_http::{Method, Request};

use super::reaper::{Reaper, Verdict};
use super::socket::{self, Claim, TcpState};
use crate::forwarded::ClientAddress;
use crate::http::Answer;
use crate::send::{linger, send_all, send_now};

/// How long a peer may take to accept a plain answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// How long, and for how many bytes, a peer that is still sending a body that nobody reads is
/// listened to, so that it can see the answer.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 16 << 20);

/// A request, its socket, and the duty to answer. A connection that is dropped unanswered (a
/// handler panicked) says 500 and closes.
pub struct Connection {
    // `None` only after one of the consuming methods has taken it.
    request: Option<Request>,
    claim: Option<Claim>,
    client: ClientAddress,
    reaper: Arc<Reaper>,
    /// Bytes of a counted body that have not been read.
    unread: usize,
}

/// Why a connection is closed with a ready-made answer, without its handler.
#[derive(Debug, Clone, Copy)]
pub enum Unanswered {
    /// No thread could be started for it.
    NoThread,
    /// Its handler panicked.
    Panicked,
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// Longer than the limit: 413.
    TooLong,
    /// Not complete within the deadline: 408.
    TooLate,
    /// The connection ended early, or the framing is broken: 400.
    Broken,
}

/// A client's socket for the rest of its life, and what keeps tiny_http from closing it.
pub struct Link {
    // Released before the writer closes its own number: the order of these fields matters.
    claim: Claim,
    client: ClientAddress,
    /// tiny_http's writer, which would end the stream when dropped; none after a detach. (The
    /// mutex only makes the link shareable.)
    writer: Option<Mutex<Box<dyn io::Write + Send>>>,
}

impl Link {
    /// A claimed connection that tiny_http has no part in, with the peer's end of it, and what stands
    /// for tiny_http's.
    #[cfg(test)]
    pub(crate) fn pair() -> (Link, TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = TcpStream::connect(address).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        let claim = socket::Sockets::new(address.port()).claim(from).expect("one to claim");
        (Link { claim, client: from.into(), writer: None }, peer, accepted)
    }

    /// Whether this side only writes: an event stream.
    pub fn is_one_way(&self) -> bool {
        self.writer.is_some()
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.claim.stream()
    }

    /// The client's address; see [`Connection::peer`].
    pub fn peer(&self) -> ClientAddress {
        self.client
    }
}

impl Connection {
    pub(super) fn new(
        request: Request,
        claim: Claim,
        client: ClientAddress,
        reaper: Arc<Reaper>,
    ) -> Connection {
        let unread = counted_body(&request);
        Connection { request: Some(request), claim: Some(claim), client, reaper, unread }
    }

    /// The request: method, target, header fields.
    pub fn request(&self) -> &Request {
        self.request.as_ref().expect("taken only by the methods that consume the connection")
    }

    fn claim(&self) -> &Claim {
        self.claim.as_ref().expect("taken only by the methods that consume the connection")
    }

    /// The client's address: the other end of the connection, or where that is a trusted proxy,
    /// the one that it names. Nothing may be allowed because of it.
    pub fn peer(&self) -> ClientAddress {
        self.client
    }

    /// The connection's socket.
    pub fn stream(&self) -> &TcpStream {
        self.claim().stream()
    }

    /// The first header field of that name, if its value is there.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.headers(name).next()
    }

    /// The values of all header fields of that name.
    pub fn headers(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let fields = self.request().headers().iter();
        fields.filter(move |field| field.field.equiv(name)).map(|field| field.value.as_str())
    }

    /// Whether one of the [`members`](Self::members) of the header field `name` is `token`,
    /// without regard to case.
    pub fn header_has(&self, name: &'static str, token: &str) -> bool {
        self.members(name).any(|member| member.eq_ignore_ascii_case(token))
    }

    /// The comma-separated members of the header field `name`, of all its lines (RFC 9110 section
    /// 5.6.1).
    pub fn members(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.headers(name).flat_map(|value| value.split(',')).map(str::trim)
    }

    /// What the thread that serves this connection is called: `top -H` and debuggers show it.
    pub fn thread_name(&self) -> String {
        let path = self.request().url().split('?').next().unwrap_or_default();
        let role = match path {
            _ if self.header_has("Connection", "upgrade") => "ws",
            "/events" => "sse",
            _ => "http",
        };
        format!("{role} {}", self.peer())
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// See [`BodyError`]; the connection can and should still be answered.
    pub fn read_body(&mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        let length = self.request().body_length();
        if length.is_some_and(|length| length > limit) {
            return Err(BodyError::TooLong);
        }
        let claim =
            self.claim.as_ref().expect("taken only by the methods that consume the connection");
        let request =
            self.request.as_mut().expect("taken only by the methods that consume the connection");
        let watch = self.reaper.watch(claim.stream(), limit).map_err(|_| BodyError::Broken)?;
        // With `Connection: upgrade` tiny_http leaves the framing to us.
        let most = length.unwrap_or(limit + 1);
        let mut body = Vec::with_capacity(length.unwrap_or(0));
        let result = request.as_reader().take(most as u64).read_to_end(&mut body);
        self.unread = self.unread.saturating_sub(body.len());
        if body.len() > limit {
            return Err(BodyError::TooLong);
        }
        let verdict = watch.verdict();
        let complete = match (result, length) {
            (Err(_), _) => false,
            (Ok(_), Some(length)) => body.len() == length,
            // tiny_http's decoder ends in the same way after the last chunk and where the stream
            // stops inside one. While nobody has closed, it was the last chunk; a body whose
            // sender has hung up already may be cut off, and is refused.
            (Ok(_), None) if self.header("Transfer-Encoding").is_some() => {
                verdict.is_none() && socket::state(claim.stream()) == TcpState::Established
            }
            (Ok(_), None) => true,
        };
        match verdict {
            _ if complete => Ok(body),
            Some(Verdict::Late) => Err(BodyError::TooLate),
            Some(Verdict::Long) => Err(BodyError::TooLong),
            None => Err(BodyError::Broken),
        }
    }

    /// Writes a plain answer and closes the connection.
    pub fn answer(mut self, answer: &Answer) {
        let head_only = *self.request().method() == Method::Head;
        let bytes = answer.to_bytes(head_only);
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let sent = send_all(self.stream(), &bytes, deadline);
        // A chunked body has no count; whoever declared one may still be sending it.
        if sent.is_ok() && (self.unread > 0 || self.header("Transfer-Encoding").is_some()) {
            linger(self.stream(), LINGER.0, LINGER.1);
        }
        self.close();
    }

    /// Closes with a ready-made answer, without waiting for anything.
    pub(super) fn refuse(mut self, why: Unanswered) {
        self.refuse_now(why);
    }

    fn refuse_now(&mut self, why: Unanswered) {
        let answer = match why {
            Unanswered::NoThread => {
                Answer::error(503, "overloaded", "no thread can be started; try again later")
                    .with("Retry-After", "1")
            }
            Unanswered::Panicked => {
                Answer::error(500, "internal", "the server failed; its log says how")
            }
        };
        let _ = send_now(self.stream(), &answer.to_bytes(false));
        self.close();
    }

    fn close(&mut self) {
        if let (Some(request), Some(claim)) = (self.request.take(), self.claim.take()) {
            claim.shutdown();
            socket::discard(request, self.unread);
        }
    }

    /// Keeps the connection for writing only. tiny_http's worker goes home; a second request on
    /// this connection shuts it down.
    pub fn into_one_way(mut self) -> Link {
        let request =
            self.request.take().expect("taken only by the methods that consume the connection");
        let claim =
            self.claim.take().expect("taken only by the methods that consume the connection");
        claim.stop_reading();
        Link { claim, client: self.client, writer: Some(Mutex::new(request.into_writer())) }
    }

    /// Takes the connection over for another protocol, with the bytes that came behind the
    /// request. See [`Claim::detach`].
    ///
    /// # Errors
    /// As [`Claim::detach`]; the connection is closed then.
    pub fn into_stream(mut self) -> io::Result<(Link, Vec<u8>)> {
        let request =
            self.request.take().expect("taken only by the methods that consume the connection");
        let claim =
            self.claim.take().expect("taken only by the methods that consume the connection");
        match claim.detach(request) {
            Ok(early) => Ok((Link { claim, client: self.client, writer: None }, early)),
            Err(error) => {
                claim.shutdown();
                Err(error)
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.request.is_some() && self.claim.is_some() {
            self.refuse_now(Unanswered::Panicked);
        }
    }
}

/// The length of the body that tiny_http will count off, and wait for when the request is dropped;
/// 0 where it has read the body already or does not count.
pub(super) fn counted_body(request: &Request) -> usize {
    let first = |name: &'static str| {
        let field = request.headers().iter().find(|field| field.field.equiv(name));
        field.map(|field| field.value.as_str().to_ascii_lowercase())
    };
    // The same decisions as in tiny_http's `new_request`.
    let upgrade = first("Connection").is_some_and(|value| value.contains("upgrade"));
    match request.body_length() {
        Some(length) if !upgrade && (length > 1024 || first("Expect").is_some()) => length,
        _ => 0,
    }
}
