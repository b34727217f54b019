//! A WebSocket client, as its handler sees it.
//!
//! The client's thread is blocked in `read`, in [`WebSocket::receive`]. A message wakes it, the read's timeout
//! (then it is time for a ping), or a `shutdown` of the socket by the thread that ends the connection. Events
//! come from the broadcaster through the client's [outbox](crate::client::outbox); what the handler
//! sends goes into the same outbox, each message as a whole frame, so they never interleave.

use std::collections::BTreeSet;
use std::time::Instant;

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use super::closing::{
    LINGER, UPLOAD_LINGER, answer_close, close_frame, shutdown_message, wait_closed,
};
use super::error::{ClientError, HandlerResult, failure};
use super::message::Message;
use super::pulse::Pulse;
use super::socket::{Socket, wait_until_read};
use super::state::{Session, Subscribed};
use crate::auth::permission::PublishPermission;
use crate::client::outbox::CLOSE_TIMEOUT;
use crate::client::reason::Reason;
use crate::event::last_seen::LastSeen;
use crate::event::payload::Payload;
use crate::event::topics::Topics;
use crate::event::{Draft, EventId};
use crate::http::forwarded::ClientAddress;
use crate::hub::Receipt;
use crate::os::send::read_out;
use crate::ws::deflate::{Window, compressed_frame};
use crate::ws::failure::Failure;
use crate::ws::frame::{frame, text_frame};
use crate::ws::incoming::{Incoming, Received};

/// A WebSocket client (RFC 6455). Its handler runs in the client's own thread and may block.
pub struct WebSocket {
    pub(super) session: Box<Session>,
    pub(super) incoming: Incoming<Socket>,
    pub(super) pulse: Pulse,
    pub(super) deflate: Option<Window>,
    pub(super) protocol: Option<&'static str>,
    pub(super) permission: PublishPermission,
    pub(super) topics: BTreeSet<String>,
}

impl WebSocket {
    /// The client's address: that of the connection, or the one that a trusted proxy names.
    pub fn peer(&self) -> ClientAddress {
        self.session.outbox.link().peer()
    }

    /// The client's number: each has one of its own.
    #[cfg(feature = "page")]
    pub(crate) fn number(&self) -> u64 {
        self.session.guard.number()
    }

    /// The subprotocol that was agreed on (section 1.9).
    pub fn protocol(&self) -> Option<&'static str> {
        self.protocol
    }

    /// The first parameter of this name in the query of the client's request.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.session.parameter(name)
    }

    /// The query of the request, percent-encoded; empty where there is none.
    pub fn query(&self) -> &str {
        self.session.query()
    }

    /// The id of the last event that the client has seen, if its request names one; or what it wants to begin with,
    /// as [`EventStream::last_event_id`](super::event_stream::EventStream::last_event_id).
    pub fn last_event_id(&self) -> Option<String> {
        self.session.last_event_id()
    }

    /// The names of the topics that the client is subscribed to; `*`, which stands for all, may be one.
    pub fn topics(&self) -> &BTreeSet<String> {
        &self.topics
    }

    /// Whether the client may publish by the server's rules: with the token in its handshake, or without
    /// one on a server that only its own machine can reach. [`WebSocket::publish`] does not ask: what a
    /// handler publishes is its own matter.
    pub fn permission(&self) -> PublishPermission {
        self.permission
    }

    /// Gives the client the permission to publish if `token` is the server's. A wrong one takes nothing
    /// away.
    pub fn authorize(&mut self, token: &str) -> PublishPermission {
        if self.permission != PublishPermission::Granted {
            let app = &self.session.app;
            let known = app.config.token.as_deref();
            self.permission = PublishPermission::new(known, app.is_loopback(), Some(token));
        }
        self.permission
    }

    /// Waits for the client's next message. Answers pings, and sends some, meanwhile. `None` when the client
    /// has closed the connection, or the server has and the client has agreed.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the connection is over in another way: the client is lost, silent, too
    /// slow, or has broken the protocol (it has been told so).
    pub fn receive(&mut self) -> Result<Option<Message>, ClientError> {
        self.session.begin();
        let outbox = &self.session.outbox;
        loop {
            match self.incoming.receive() {
                // Copied out of the buffer, so that the handler may use its client while it has the message.
                Ok(Received::Message(message)) => {
                    return Ok(Some(match message.text() {
                        Some(text) => Message::Text(text.to_owned()),
                        None => Message::Binary(message.payload().to_vec()),
                    }));
                }
                Ok(Received::Ping(payload)) => {
                    outbox.write(&frame(Frame::pong(payload.to_vec())));
                }
                Ok(Received::Pong) | Err(Failure::Timeout) => {}
                Ok(Received::Close(payload)) => {
                    answer_close(outbox, payload);
                    return Ok(None);
                }
                Err(Failure::Wrong(code, why)) => return Err(self.refuse(code, why)),
                Err(_) => return Err(self.closed(Reason::Lost)),
            }
            if self.pulse.is_silent(outbox, self.incoming.last_read()) {
                return Err(self.drop_silent());
            }
        }
    }

    /// Sends a message. Waits while the client is slow. Pings are sent, and answered, by [`WebSocket::receive`]
    /// alone: a client of a handler that only sends is found gone when its system takes nothing any more.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the connection is over.
    pub fn send(&mut self, message: impl Into<Message>) -> Result<(), ClientError> {
        let frame = self.encode(&message.into());
        match self.session.take_response() {
            None => self.session.outbox.write(&frame),
            // In one hold: a close that comes first still lets the first message through.
            Some(response) => {
                let outbox = &self.session.outbox;
                outbox.write_held(&Payload::own(response));
                wait_until_read(outbox);
                outbox.write_held(&Payload::own(frame));
                outbox.release();
            }
        }
        // Whether the client is there is asked in `receive` alone: a handler that only sends reads no pongs.
        self.session.check_open()
    }

    /// A message as a frame, compressed where that was agreed on and makes it shorter.
    fn encode(&self, message: &Message) -> Vec<u8> {
        let kind = match message {
            Message::Text(_) => Data::Text,
            Message::Binary(_) => Data::Binary,
        };
        if let Some(window) = self.deflate
            && let Some(frame) = compressed_frame(window, kind, message.bytes())
        {
            return frame;
        }
        match message {
            Message::Text(text) => text_frame(text),
            Message::Binary(bytes) => {
                frame(Frame::message(bytes.clone(), OpCode::Data(kind), true))
            }
        }
    }

    /// Publishes to all subscribers of `topic`, whether the client may or not.
    ///
    /// # Errors
    /// [`ClientError::Publish`] with the reason.
    pub fn publish(&self, topic: &str, data: impl AsRef<str>) -> Result<Receipt, ClientError> {
        Ok(self.session.publish(topic, data.as_ref())?)
    }

    /// The same for an event that has a name.
    ///
    /// # Errors
    /// [`ClientError::Publish`] when the server shuts down.
    pub fn publish_event(&self, draft: Draft) -> Result<Receipt, ClientError> {
        Ok(self.session.hub.publish(draft)?)
    }

    /// The id of the newest event: a client that comes back with it misses nothing.
    pub fn newest_event_id(&self) -> EventId {
        self.session.newest()
    }

    /// Makes the client get what is published on `topics` (`*` stands for all) from now on, besides those
    /// that it is subscribed to already; as text messages, see [`crate::docs::contract`]. With `last_event_id` it
    /// gets first what it missed since then on topics that are new to it, or an event `gap`.
    ///
    /// Live events wait until the returned [`Missed`] is dropped.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the connection is over.
    pub fn subscribe<T: Into<String>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
        last_event_id: Option<&str>,
    ) -> Result<Missed<'_>, ClientError> {
        let last = LastSeen::parse(last_event_id);
        self.topics.extend(topics.into_iter().map(Into::into));
        let topics = Topics::asked_for(&self.topics);
        let mut subscribed = self.session.subscribe(topics, last)?;
        if let Some(response) = subscribed.response.take() {
            self.session.outbox.write_held(&Payload::own(response));
            wait_until_read(&self.session.outbox);
        }
        self.session.outbox.ensure_writer();
        Ok(Missed { client: self, subscribed })
    }

    /// Ends the client's subscription to `topics`. When it returns, no event on them will come any more.
    pub fn unsubscribe(&mut self, topics: &BTreeSet<String>) {
        self.topics.retain(|name| !topics.contains(name));
        self.session.unsubscribe(Topics::asked_for(&self.topics));
    }

    /// Closes the connection with this code (section 7.4) and reason, and waits for the client to agree, a
    /// second at most. When a handler returns, its client is closed with 1000, after an error with 1011.
    ///
    /// # Panics
    /// If no endpoint may send the code, or the reason is longer than 123 bytes.
    pub fn close(&mut self, code: u16, reason: &str) {
        let close = CloseCode::from(code);
        assert!(close.is_allowed() && reason.len() <= 123, "close code {code}, reason {reason:?}");
        self.session.begin();
        if self.session.outbox.close(Reason::Finished, Some(&close_frame(close, reason))) {
            wait_closed(&self.session.outbox, LINGER);
        }
    }

    /// The connection is over, for this reason unless there is an earlier one.
    fn closed(&self, reason: Reason) -> ClientError {
        self.session.outbox.abort_for(reason);
        ClientError::Closed(self.session.outbox.close_reason().unwrap_or(reason))
    }

    /// Ends the connection of a silent client. It may only have slept: where its socket takes it, it is told
    /// to come back.
    fn drop_silent(&self) -> ClientError {
        let outbox = &self.session.outbox;
        outbox.close(Reason::Silent, Some(&close_frame(CloseCode::Away, "no sign of life")));
        outbox.wait_closed(Instant::now() + LINGER.time);
        self.closed(Reason::Silent)
    }

    /// Tells the client what it did wrong (section 7.1.7).
    fn refuse(&self, code: CloseCode, why: &'static str) -> ClientError {
        let outbox = &self.session.outbox;
        log::debug!("websocket {}: {why}", outbox.link().peer());
        outbox.close(Reason::Protocol, Some(&close_frame(code, why)));
        outbox.postpone_abort(Instant::now() + CLOSE_TIMEOUT + UPLOAD_LINGER.time);
        let linger = match code {
            // The client is most likely in the middle of the message, and a proxy may take our end for
            // that of both sides: so it is for the client to end its half first.
            CloseCode::Size => {
                if let Some(mut finder) = self.incoming.close_finder() {
                    read_out(outbox.link().stream(), UPLOAD_LINGER, |bytes| finder.add(bytes));
                }
                LINGER
            }
            // In the middle as well, but it may leave its frame unfinished: no end would be found.
            CloseCode::Invalid => UPLOAD_LINGER,
            _ => LINGER,
        };
        wait_closed(outbox, linger);
        self.closed(Reason::Protocol)
    }

    /// Ends the connection when the handler has returned.
    // Not inlined: its frame would be below every idle client's.
    #[inline(never)]
    pub(super) fn finish(&mut self, result: HandlerResult) {
        self.session.begin();
        let message = match failure(result) {
            Some(error) => {
                log::warn!("websocket {}: its handler failed: {error}", self.peer());
                close_frame(CloseCode::Error, "the server failed")
            }
            // The handler has noticed before the client is told.
            None if self.session.app.is_draining() => shutdown_message(),
            None => close_frame(CloseCode::Normal, ""),
        };
        let outbox = &self.session.outbox;
        if outbox.close(Reason::Finished, Some(&message)) {
            wait_closed(outbox, LINGER);
        } else if let Some(Reason::Shutdown | Reason::Slow | Reason::Crowded) =
            outbox.close_reason()
        {
            // The client has still to answer, or its time to do so is over and the socket is shut down.
            while let Ok(Some(_)) = self.receive() {}
        }
    }
}

/// What a client missed on topics that it has just been subscribed to. When it is dropped, the client gets
/// that, and then live events.
pub struct Missed<'a> {
    client: &'a WebSocket,
    subscribed: Box<Subscribed>,
}

impl Missed<'_> {
    /// The id from which on the client misses nothing, if it comes back with it before it has seen another;
    /// `None` where that is not known, and an event `gap` will tell it.
    pub fn last_event_id(&self) -> Option<EventId> {
        self.subscribed.replay.seen()
    }

    /// The names of the topics that the client is subscribed to.
    pub fn topics(&self) -> &BTreeSet<String> {
        self.client.topics()
    }

    /// Sends a message in front of what the client missed.
    pub fn send_first(&self, message: impl Into<Message>) {
        self.client.session.outbox.write_held(&Payload::own(self.client.encode(&message.into())));
    }
}

impl Drop for Missed<'_> {
    fn drop(&mut self) {
        let session = &self.client.session;
        session.write_missed(&mut self.subscribed.replay);
        session.outbox.release();
    }
}
