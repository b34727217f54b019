//! One request with the socket it came on: what a handler works with.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tickets::Ticket;
use crate::coding::Coding;
use crate::door::body::{self, BodyError};
use crate::door::head::{Framing, Head};
use crate::door::pending::{Pending, Socket};
use crate::door::{RESPONSE_TIMEOUT, linger_and_close};
use crate::forwarded::ClientAddress;
use crate::http::{Field, Persistence, Response};
use crate::send::{send_all, send_now};

/// A request, its socket, and the duty to respond. A connection that is dropped without a response
/// (a handler panicked) says 500 and closes.
pub struct Connection {
    /// `None` when a consuming method has taken it.
    ticket: Option<Box<Ticket>>,
    client: ClientAddress,
    /// How long the body may take.
    body_timeout: Duration,
    /// Whether nothing of the body is left on the connection.
    is_read: bool,
    /// What every response to the request says, whatever it is about.
    fields: Vec<Field>,
}

/// What becomes of a connection after its response.
#[derive(Debug)]
#[must_use]
pub enum Next {
    /// It is closed, or it is a client and has been served.
    Done,
    /// It waits for another request.
    KeepAlive(Pending),
}

/// The socket of a client, for the rest of its life.
pub struct Link {
    socket: Arc<Socket>,
    client: ClientAddress,
    coding: Option<Coding>,
}

impl Link {
    /// A connection as an accepted one, with the peer's end of it.
    #[cfg(test)]
    pub(crate) fn pair() -> (Link, TcpStream) {
        let (socket, peer) = Socket::pair();
        (Link { client: socket.peer().into(), socket, coding: Some(Coding::Identity) }, peer)
    }

    /// How an event stream is framed; `None` for another protocol.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        self.socket.stream()
    }

    /// The client's address; see [`Connection::peer`].
    pub fn peer(&self) -> ClientAddress {
        self.client
    }
}

impl Connection {
    pub(super) fn new(
        ticket: Box<Ticket>,
        client: ClientAddress,
        body_timeout: Duration,
    ) -> Connection {
        let is_read = ticket.head.framing == Framing::Length(0);
        Connection { ticket: Some(ticket), client, body_timeout, is_read, fields: Vec::new() }
    }

    fn take_ticket(&mut self) -> Box<Ticket> {
        self.ticket.take().expect("taken only by the methods that consume the connection")
    }

    /// The request's head.
    pub fn head(&self) -> &Head {
        &self.ticket.as_ref().expect("taken only by the methods that consume the connection").head
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.head().method
    }

    /// The client's address: the other end of the connection, or where that is a trusted proxy,
    /// the one that it names. Nothing may be allowed because of it.
    pub fn peer(&self) -> ClientAddress {
        self.client
    }

    /// The other end of the connection itself: a proxy's, where there is one.
    pub fn socket_peer(&self) -> SocketAddr {
        let ticket = self.ticket.as_ref();
        ticket
            .expect("taken only by the methods that consume the connection")
            .pending
            .socket()
            .peer()
    }

    /// The value of the first field line of that name.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.head().values(name).next()
    }

    /// Has every response say this, also those that report an error.
    pub fn set_fields(&mut self, fields: Vec<Field>) {
        self.fields = fields;
    }

    /// What every response says: for those that are not written by [`Connection::respond`].
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether the request has a body.
    pub fn has_body(&self) -> bool {
        self.head().framing != Framing::Length(0)
    }

    /// The name of the thread that serves this connection: `top -H` and debuggers show it.
    pub fn thread_name(&self) -> String {
        let role = match self.head().target.split('?').next() {
            _ if self.head().is_upgrade => "ws",
            Some("/events") => "sse",
            _ => "http",
        };
        format!("{role} {}", self.peer())
    }

    /// Reads the whole body. A client that waits for `100 Continue` gets it here.
    ///
    /// # Errors
    /// See [`BodyError`]; the connection can and should still be answered.
    pub fn read_body(&mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        let ticket = self.ticket.as_mut();
        let Ticket { pending, head } =
            &mut **ticket.expect("taken only by the methods that consume the connection");
        let framing = head.framing;
        let fits = !matches!(framing, Framing::Length(length) if length > limit as u64);
        // Not to a client that has begun to send it already (RFC 9110 section 10.1.1).
        if head.expects_continue && fits && pending.bytes.is_empty() {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            send_now(pending.socket().stream(), interim).map_err(|_| BodyError::Broken)?;
        }
        let body = body::read(pending, framing, limit, Instant::now() + self.body_timeout)?;
        self.is_read = true;
        Ok(body)
    }

    /// Writes a plain response. The connection stays open for another request where both sides want
    /// that, and nothing of a body is left on it.
    pub fn respond(mut self, response: &Response) -> Next {
        let Ticket { mut pending, head } = *self.take_ticket();
        let keeps = head.keep_alive && self.is_read && response.has_end() && pending.may_be_kept();
        let persistence = match (keeps, head.is_http_1_1) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::Default,
            (true, false) => Persistence::KeepAlive,
        };
        let bytes = response.to_bytes_with(&self.fields, head.method == "HEAD", persistence);
        let stream = pending.socket().stream();
        let is_sent = match response.file_part().filter(|_| head.method != "HEAD") {
            None => send_all(stream, &bytes, Instant::now() + RESPONSE_TIMEOUT).is_ok(),
            Some(part) => part
                .send(stream, bytes)
                .inspect_err(|(sent, why)| {
                    // Without the query, which may hold a ticket.
                    let path = head.target.split('?').next().unwrap_or_default();
                    let (client, length) = (self.client, part.length);
                    log::info!("{client}: {path}: cut short after {sent} of {length} bytes: {why}");
                })
                .is_ok(),
        };
        if !is_sent {
            return Next::Done;
        }
        if keeps {
            pending.since = Instant::now();
            pending.is_kept = true;
            return Next::KeepAlive(pending);
        }
        // Whoever is still sending would be told by a reset, which destroys the response.
        if !self.is_read || !pending.bytes.is_empty() {
            linger_and_close(&pending);
        }
        Next::Done
    }

    /// Closes the connection without a response: to an `EventSource` that is a network error, after
    /// which it comes back.
    pub fn close(mut self) -> Next {
        drop(self.take_ticket());
        Next::Done
    }

    /// The connection, without a response.
    pub(super) fn into_pending(mut self) -> Pending {
        self.take_ticket().pending
    }

    /// How an event stream to this client is framed.
    pub fn coding(&self) -> Coding {
        match self.head().is_http_1_1 {
            true => Coding::Chunked,
            false => Coding::Identity,
        }
    }

    /// Keeps the connection for an event stream, which is only written.
    pub fn into_event_stream(mut self) -> Link {
        let coding = Some(self.coding());
        let (socket, _) = self.take_ticket().pending.into_client();
        Link { socket, client: self.client, coding }
    }

    /// Takes the connection over for another protocol, with the bytes that came behind the head.
    pub fn into_stream(mut self) -> (Link, Vec<u8>) {
        let (socket, early) = self.take_ticket().pending.into_client();
        (Link { socket, client: self.client, coding: None }, early)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(Ticket { pending, head }) = self.ticket.as_deref() {
            let response = Response::error(500, "internal", "the server failed; its log says how");
            let is_head = head.method == "HEAD";
            let bytes = response.to_bytes_with(&self.fields, is_head, Persistence::Close);
            let _ = send_now(pending.socket().stream(), &bytes);
        }
    }
}
