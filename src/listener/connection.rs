//! One request with its socket: what a handler gets.
//!
//! The thread of the connection runs all of this. It waits in two places: in [`Connection::read_body`] for
//! the body, and in [`Connection::respond`] for a peer that is slow to read. A peer that closes, and a
//! deadline, wake it in both.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tickets::Ticket;
use crate::door::body;
use crate::door::error::DoorError;
use crate::door::pending::Pending;
use crate::door::{RESPONSE_TIMEOUT, linger_and_close};
use crate::http::coding::Coding;
use crate::http::forwarded::ClientAddress;
use crate::http::head::{Framing, Head};
use crate::http::{Field, Persistence, Response};
use crate::os::send::{send_all, send_now};

/// A request, its socket, and the duty to respond. If it is dropped without a response, since a handler
/// has panicked, the client gets 500.
pub struct Connection {
    /// `None` once a method that consumes the connection has taken it.
    pub(super) ticket: Option<Box<Ticket>>,
    pub(super) client: ClientAddress,
    /// How long the body may take, from the call that reads it.
    pub(super) body_timeout: Duration,
    /// Fields of every response to the request.
    pub(super) fields: Vec<Field>,
}

/// What becomes of a connection when its handler returns.
#[derive(Debug)]
#[must_use]
pub enum Next {
    /// Nothing more: it is closed, or another thread has its socket.
    Done,
    /// It stays open, and the thread reads another request.
    KeepAlive(Pending),
}

/// The socket of an event stream's or a WebSocket's client. It has no place in the door's table any more.
pub struct Link {
    socket: Arc<TcpStream>,
    client: ClientAddress,
    coding: Option<Coding>,
}

impl Link {
    /// A link over loopback, with the client's end of it.
    #[cfg(test)]
    pub(crate) fn pair() -> (Link, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let (socket, coding) = (Arc::new(socket), Some(Coding::Identity));
        (Link { socket, client: address.into(), coding }, peer)
    }

    /// How an event stream is framed; `None` for another protocol.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// The socket, for owners besides the link.
    pub fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.socket
    }

    /// See [`Connection::peer`].
    pub fn peer(&self) -> ClientAddress {
        self.client
    }
}

impl Connection {
    /// The request's head.
    pub fn head(&self) -> &Head {
        &self.ticket.as_ref().expect("only consuming methods take it").head
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.head().method
    }

    /// The client's address: that of the connection's other end, or if this is a trusted proxy, the one
    /// that it names. For logs and limits; it must not allow anything.
    pub fn peer(&self) -> ClientAddress {
        self.client
    }

    /// The address of the connection's other end: a client's, or a proxy's.
    pub fn socket_peer(&self) -> SocketAddr {
        self.ticket.as_ref().expect("only consuming methods take it").pending.peer
    }

    /// The value of the first field line of that name.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.head().values(name).next()
    }

    /// Sets fields for every response to the request, also for errors.
    pub fn set_fields(&mut self, fields: Vec<Field>) {
        self.fields = fields;
    }

    /// The fields of every response, for one that is not written by [`Connection::respond`].
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether the request has a body that is not read yet.
    pub fn has_body(&self) -> bool {
        self.head().framing != Framing::Length(0)
    }

    /// The name of the thread that serves this connection: `top -H` and debuggers show it.
    pub(super) fn thread_name(&self) -> String {
        let role = match self.head().path() {
            _ if self.head().is_upgrade => "ws",
            "/events" | "/threads" | "/lab/stream" => "sse",
            _ => "http",
        };
        format!("{role} {}", self.peer())
    }

    /// Reads the whole body, of at most `limit` bytes. A client that waits for `100 Continue` gets it
    /// here.
    ///
    /// # Errors
    /// See [`body::read`].
    pub fn read_body(&mut self, limit: usize) -> Result<Vec<u8>, DoorError> {
        let ticket = self.ticket.as_mut().expect("only consuming methods take it");
        let Ticket { pending, head } = &mut **ticket;
        let fits = !matches!(head.framing, Framing::Length(length) if length > limit as u64);
        // A client that has already begun to send the body needs none (RFC 9110 section 10.1.1), and one
        // whose body is refused must not be told to send it.
        if head.expects_continue && fits && pending.bytes.is_empty() {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            send_now(&pending.stream, interim).map_err(|_| body::BROKEN)?;
        }
        let body = body::read(pending, head.framing, limit, Instant::now() + self.body_timeout)?;
        // For `respond`: the next bytes on the connection are another request.
        head.framing = Framing::Length(0);
        Ok(body)
    }

    fn take_ticket(&mut self) -> Ticket {
        *self.ticket.take().expect("only consuming methods take it")
    }

    /// Writes a response. The connection stays open for another request if both sides want that, and no
    /// part of a body is left on it.
    pub fn respond(mut self, response: &Response) -> Next {
        let Ticket { mut pending, head } = self.take_ticket();
        let is_read = head.framing == Framing::Length(0);
        let keeps = head.keep_alive && is_read && response.has_end() && pending.may_be_kept();
        let persistence = match (keeps, head.is_http_1_1) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::Default,
            (true, false) => Persistence::KeepAlive,
        };
        // A file is sent piece by piece, behind the bytes of the head.
        let bytes = response.to_bytes_with(&self.fields, head.method == "HEAD", persistence);
        let is_sent = match response.file_part().filter(|_| head.method != "HEAD") {
            None => send_all(&pending.stream, &bytes, Instant::now() + RESPONSE_TIMEOUT).is_ok(),
            Some(part) => part
                .send(&pending.stream, bytes)
                .inspect_err(|(sent, why)| {
                    // Without the query, which may hold a ticket.
                    let (client, path, length) = (self.client, head.path(), part.length);
                    log::info!("{client}: {path}: cut short after {sent} of {length} bytes: {why}");
                })
                .is_ok(),
        };
        if !is_sent {
            return Next::Done;
        }
        // Its time to wait for the next request begins here.
        if keeps {
            pending.since = Instant::now();
            pending.is_kept = true;
            return Next::KeepAlive(pending);
        }
        // If the client is still sending, a close would reset the connection, and destroy the response.
        if !is_read || !pending.bytes.is_empty() {
            linger_and_close(&pending);
        }
        Next::Done
    }

    /// Closes the connection without a response. For an `EventSource` this is a network error, after which
    /// it reconnects.
    pub fn close(mut self) -> Next {
        drop(self.take_ticket());
        Next::Done
    }

    /// How an event stream to this client is framed.
    pub fn coding(&self) -> Coding {
        match self.head().is_http_1_1 {
            true => Coding::Chunked,
            false => Coding::Identity,
        }
    }

    /// The query, and the value of `Last-Event-ID` unless that is empty.
    pub fn query_and_last_event_id(&self) -> (Box<str>, Option<Box<str>>) {
        let query = self.head().query().unwrap_or_default();
        // An empty field is as none: the query may name an id.
        let field = self.header("Last-Event-ID").filter(|id| !id.is_empty());
        (query.into(), field.map(Into::into))
    }

    /// Makes the connection an event stream, which is only written to.
    pub fn into_event_stream(mut self) -> Link {
        let coding = Some(self.coding());
        let socket = Arc::clone(&self.take_ticket().pending.stream);
        Link { socket, client: self.client, coding }
    }

    /// Gives the connection to another protocol, with the bytes that came behind the head.
    pub fn into_stream(mut self) -> (Link, Vec<u8>) {
        let mut pending = self.take_ticket().pending;
        let socket = Arc::clone(&pending.stream);
        let early = std::mem::take(&mut pending.bytes);
        (Link { socket, client: self.client, coding: None }, early)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(Ticket { pending, head }) = self.ticket.as_deref() {
            let response = Response::error(500, "internal", "the server failed; its log says how");
            let is_head = head.method == "HEAD";
            let bytes = response.to_bytes_with(&self.fields, is_head, Persistence::Close);
            let _ = send_now(&pending.stream, &bytes);
        }
    }
}
