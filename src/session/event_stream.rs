//! A Server-Sent Events client, from its request to its end.
//!
//! One thread serves the client: that of its request. In [`EventStream::follow`] it writes what the client
//! missed, and then sleeps until something waits in the client's channel. With `--fanout direct` that is
//! only what its broadcaster could not write at once; with `handoff` it is every event. See
//! [`crate::client::outbox`]. The client sends nothing, so its hang-up is noticed by
//! [`crate::client::hangup`], which closes the outbox, as the shutdown does: that wakes the thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::{ClientError, HandlerResult, failure};
use super::state::{Session, Subscribed};
use crate::app::App;
use crate::client::outbox::{CLOSE_TIMEOUT, Outbox};
use crate::client::reason::Reason;
use crate::client::registry::{AtCapacity, Transport};
use crate::event::EventId;
use crate::event::draft::{DEFAULT_TOPIC, Draft};
use crate::event::encoding::Encoding;
use crate::event::last_seen::LastSeen;
use crate::event::payload::Payload;
use crate::event::topics::Topics;
use crate::http::coding::Coding;
use crate::http::forwarded::ClientAddress;
use crate::http::{Persistence, Response};
use crate::hub::{Hub, Receipt};
use crate::listener::connection::{Connection, Next};
use crate::store::error::PublishError;

/// Writes an event stream, in its client's own thread.
pub type StreamHandler = dyn Fn(&mut EventStream) -> HandlerResult + Send + Sync;

/// An event stream to one client (WHATWG HTML, section 9.2). Its handler writes events itself with
/// [`send`](EventStream::send), or hands out what is published with [`follow`](EventStream::follow).
pub struct EventStream {
    session: Box<Session>,
    coding: Coding,
}

/// The head of every stream.
fn head(coding: Coding) -> Response {
    match coding {
        Coding::Identity => Response::event_stream(),
        Coding::Chunked => Response::event_stream().with("Transfer-Encoding", "chunked"),
    }
}

/// The first event: when to come back, in milliseconds, and from which id on. One block, since many
/// clients report a block without data as an event.
fn greeting(seen: Option<EventId>) -> String {
    let id = seen.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}retry: 2000\ndata: {{\"message\":\"Connection established\"}}\n\n")
}

/// Serves the client until its handler returns. What that follows is published in `hub`. To HEAD it responds
/// with the head alone.
pub fn serve(
    app: &Arc<App>,
    hub: &Arc<Hub>,
    connection: Connection,
    handler: &StreamHandler,
) -> Next {
    match open(app, hub, connection) {
        Ok(mut stream) => {
            let result = handler(&mut stream);
            stream.finish(result);
            Next::Done
        }
        Err(next) => next,
    }
}

#[inline(never)]
fn refuse(app: &App, connection: Connection, full: AtCapacity) -> Next {
    let refusal = full.into();
    app.refusals.log("sse", connection.peer(), &refusal);
    let response = connection.head().or_come_back(refusal);
    connection.respond(&response)
}

#[inline(never)]
fn response(connection: &Connection, coding: Coding) -> Vec<u8> {
    head(coding).to_bytes_with(connection.fields(), false, Persistence::Close)
}

/// Takes the socket over. What becomes of the connection is the error where only the head is asked for, and
/// where there is no room.
// Not inlined: its frame would be below every idle client's.
#[inline(never)]
fn open(app: &Arc<App>, hub: &Arc<Hub>, connection: Connection) -> Result<EventStream, Next> {
    if connection.method() == "HEAD" {
        let head = head(connection.coding());
        return Err(connection.respond(&head));
    }
    let guard = match app.clients.register(Transport::Sse, connection.peer()) {
        Ok(guard) => guard,
        Err(full) => return Err(refuse(app, connection, full)),
    };
    let coding = connection.coding();
    let response = response(&connection, coding);
    let request = connection.query_and_last_event_id();

    // From here on the socket is the client's. The outbox is held by this thread: events wait.
    let link = connection.into_event_stream();
    let backlog = Arc::clone(&app.backlog);
    let outbox = Outbox::new(link, hub.fanout(), app.limits(), coding.end(), backlog);
    guard.set_outbox(&outbox);
    guard.set_thread();
    if let Err(error) = app.hangups.watch(outbox.link().socket(), guard.number()) {
        log::warn!("sse {}: a hang-up will not be noticed: {error}", outbox.link().peer());
    }
    let encoding = Encoding::Sse(coding);
    Ok(EventStream {
        session: Session::new(app, hub, outbox, guard, encoding, response, request),
        coding,
    })
}

impl EventStream {
    /// The client's address: that of the connection, or the one that a trusted proxy names.
    pub fn peer(&self) -> ClientAddress {
        self.session.outbox.link().peer()
    }

    /// The client's number: each has one of its own.
    #[cfg(feature = "page")]
    pub(crate) fn number(&self) -> u64 {
        self.session.guard.number()
    }

    /// The first parameter of this name in the request's query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.session.parameter(name)
    }

    /// The query of the request, percent-encoded; empty where there is none.
    pub fn query(&self) -> &str {
        self.session.query()
    }

    /// The id of the last event that the client has seen, if it comes back (`Last-Event-ID`); else what it wants to
    /// begin with: `earliest`, or `latest` (also where the query has a parameter of this name).
    pub fn last_event_id(&self) -> Option<String> {
        self.session.last_event_id()
    }

    /// Sends an event of this name to this client alone. Each line of `data` is one of the event. Waits
    /// while the client is slow.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the client is gone, or the server shuts down; an error of
    /// [`ClientError::Publish`] for a name that would break its line.
    pub fn send(&mut self, name: &str, data: impl AsRef<str>) -> Result<(), ClientError> {
        let draft =
            Draft::new(DEFAULT_TOPIC, Some(name), data.as_ref()).map_err(PublishError::from)?;
        self.open_to_heartbeats()?;
        self.session.outbox.write(&self.coding.frame(draft.block().as_bytes()));
        self.session.check_open()
    }

    /// Sleeps for so long, or until the client is gone or the server shuts down.
    ///
    /// # Errors
    /// [`ClientError::Closed`] in the latter case.
    pub fn wait(&mut self, time: Duration) -> Result<(), ClientError> {
        self.open_to_heartbeats()?;
        self.session.outbox.wait_closed(Instant::now() + time);
        self.session.check_open()
    }

    /// Publishes to all subscribers of `topic`.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(&self, topic: &str, data: impl AsRef<str>) -> Result<Receipt, ClientError> {
        Ok(self.session.publish(topic, data.as_ref())?)
    }

    /// Writes the response, and subscribes to nothing, so that a broadcaster sends heartbeats while the
    /// handler does something else.
    fn open_to_heartbeats(&mut self) -> Result<(), ClientError> {
        if !self.session.is_begun() {
            let subscribed = self.session.subscribe(Topics::named([]), LastSeen::Nothing)?;
            let response = subscribed.response.unwrap_or_default();
            self.session.outbox.write_held(&Payload::own(response));
            self.session.outbox.release();
        }
        Ok(())
    }

    /// Sends the client what it missed on `topics` (`*` stands for all), and then what is published on them,
    /// until it is gone or the server shuts down. A client without a [`last_event_id`] has missed nothing.
    /// The first event is a greeting with the id from which on the client misses nothing.
    ///
    /// [`last_event_id`]: EventStream::last_event_id
    ///
    /// # Errors
    /// [`ClientError::Closed`], always: nothing else ends it.
    // One frame with its caller's, below every idle client's.
    #[inline]
    pub fn follow<T: Into<String>>(
        &mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ClientError> {
        // Before the greeting: a client that has read it misses nothing that is published from then on.
        let topics =
            Topics::asked_for(&topics.into_iter().map(Into::into).collect::<Vec<String>>());
        let last = LastSeen::parse(self.last_event_id().as_deref());
        let mut subscribed = self.session.subscribe(topics, last)?;
        self.write_missed(&mut subscribed);
        drop(subscribed);
        let outbox = &self.session.outbox;
        outbox.set_writer(thread::current());
        outbox.release();
        // The rest of the client's life: asleep until something waits for it, then in `send`, and in `poll`
        // while the client is slow.
        while let Some(piece) = outbox.next_piece() {
            outbox.write_piece(&piece);
        }
        self.session.check_open()
    }

    // Not inlined: its frame would be below every idle client's.
    #[inline(never)]
    fn write_missed(&self, subscribed: &mut Subscribed) {
        let replay = &mut subscribed.replay;
        let mut first = subscribed.response.take().unwrap_or_default();
        first.extend_from_slice(&self.coding.frame(greeting(replay.seen()).as_bytes()));
        self.session.outbox.write_held(&Payload::own(first));
        self.session.write_missed(replay);
    }

    /// Ends the stream, when its handler has returned.
    #[inline(never)]
    fn finish(mut self, result: HandlerResult) {
        self.session.begin();
        // What was sent still reaches the client, whoever closed the stream first. Without a last chunk the
        // client can tell that it has not ended by intent.
        let message = match failure(result) {
            Some(error) => {
                log::warn!("sse {}: its handler failed: {error}", self.peer());
                None
            }
            None => Some(self.coding.end()),
        };
        self.session.outbox.close(Reason::Finished, message);
        self.session.outbox.wait_closed(Instant::now() + CLOSE_TIMEOUT);
    }
}

/// What a client is told when the server shuts down: when to come back, and that the stream ends here.
/// After a second at the earliest, and spread over `spread`, so that not all of them come at once.
pub fn shutdown_message(client: u64, spread: Duration, coding: Coding) -> Vec<u8> {
    // Knuth's multiplicative hash: clients that came one after another are spread evenly.
    let hash = u128::from((client as u32).wrapping_mul(2_654_435_769));
    let jitter = (hash * (spread.as_millis() + 1)) >> 32;
    let retry = coding.frame(format!("retry: {}\n", 1_000 + jitter).as_bytes());
    [&*retry, coding.end()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_messages_are_spread() {
        for (spread, steps) in [(2, 20), (60, 100), (365 * 24 * 3600, 100)] {
            let spread = Duration::from_secs(spread);
            let mut delays: Vec<u128> = (1..=200)
                .map(|client| {
                    let message = shutdown_message(client, spread, Coding::Identity);
                    let text = std::str::from_utf8(&message).unwrap();
                    text.strip_prefix("retry: ").unwrap().trim_end().parse().unwrap()
                })
                .collect();
            delays.sort_unstable();
            assert!(delays[0] >= 1_000 && delays[199] <= 1_000 + spread.as_millis());
            // No step without a client: they do not come in clusters.
            let step = spread.as_millis() / steps;
            assert!(delays.windows(2).all(|pair| pair[1] - pair[0] <= 2 * step), "{delays:?}");
            assert!(delays[199] - delays[0] > spread.as_millis() * 9 / 10, "{delays:?}");
        }
        let at_once = shutdown_message(7, Duration::ZERO, Coding::Chunked);
        assert_eq!(at_once, b"c\r\nretry: 1000\n\r\n0\r\n\r\n");
    }
}
