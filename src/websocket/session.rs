//! A WebSocket client, from its handshake to its end.
//!
//! Its thread is blocked in `read`, and answers what it reads. Events come from the broadcaster
//! through the client's [`Outbox`]; tungstenite writes its frames into the same outbox, each
//! whole, so they never interleave.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::commands::{self, Commands};
use super::handshake;
use crate::App;
use crate::access::sends_bearer;
use crate::clients::{Stay, Transport};
use crate::hub::batch::batches;
use crate::hub::broadcaster::{Form, Subscriber};
use crate::hub::event::{frame, text_frame};
use crate::hub::history::Replay;
use crate::hub::outbox::{Chunk, Fanout, LAST_WORDS_GRACE, Outbox, Reason};
use crate::hub::{Subscription, Topics};
use crate::listener::STACK;
use crate::listener::connection::Connection;
use crate::publish;
use crate::router::Query;
use crate::send::linger;
use crate::sources::tick::timestamp;

/// tungstenite's own default of 128 KiB would be most of an idle client's memory.
const READ_BUFFER: usize = 4 * 1024;

/// Stack of a client's thread. Larger than a request's, so that the C library does not give it a
/// used one: what counts as memory is what was ever touched.
const SESSION_STACK: usize = 2 * STACK;

/// The first message on `/ws`.
const WELCOME: &str = r#"{"type":"info","message":"Welcome to WS Server"}"#;

/// The close frame for a client that is too slow: 1013, `Try Again Later` (IANA registry of close
/// codes). Come back, with the id of the last event.
const TOO_SLOW: &[u8] = b"\x88\x0a\x03\xf5too slow";

/// How long, and for how many bytes, a client is listened to that has been sent a close frame.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 << 20);

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/ws`: a welcome, answers in JSON, events.
    Client,
    /// The same with the subprotocol [`commands::PROTOCOL`]: commands instead of answers.
    Commands,
    /// `/echo`: every message comes back as it was, and nothing else does.
    Echo,
}

/// Where a client's events come from.
enum Feed {
    /// The topics of its URL, if it named any.
    Fixed(Option<Subscription>),
    /// Those, and what it then asks for.
    Commands(Commands),
}

/// The socket as tungstenite sees it.
struct Stream {
    outbox: Arc<Outbox>,
    last_read: Instant,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.outbox.link().stream();
        let read = socket.read(buffer)?;
        self.last_read = Instant::now();
        Ok(read)
    }
}

impl Write for Stream {
    /// tungstenite passes whole frames here (its write buffer is set to none); each is accepted
    /// whole.
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.outbox.write(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks the handshake, takes the socket over, and hands it to the thread that serves the client.
///
/// That is a new thread, and this one ends: what the handshake has touched of its stack, and freed
/// into its allocator's cache, would stay with an idle client for all its life (8 KiB of 23).
pub fn start(app: &Arc<App>, connection: Connection, kind: Kind, query: &Query) {
    let kind = match kind {
        Kind::Client if handshake::is_offered(&connection, commands::PROTOCOL) => Kind::Commands,
        kind => kind,
    };
    let protocol = (kind == Kind::Commands).then_some(commands::PROTOCOL);
    let head = match handshake::check(&connection, protocol) {
        Ok(head) => head,
        Err(answer) => return connection.answer(&answer),
    };
    let last = query.last_seen(&connection);
    let peer = connection.peer();
    let right = publish::right(app, |token| sends_bearer(&connection, token));
    let stay = match app.clients.enter(Transport::WebSocket, peer) {
        Ok(stay) => stay,
        Err(full) => return connection.answer(&full.into()),
    };
    let (link, early) = match connection.into_stream() {
        Ok(taken) => taken,
        Err(error) => {
            log::debug!("websocket {peer}: {error}");
            return stay.leave(Reason::Lost);
        }
    };
    let topics = match kind {
        Kind::Client => query.topics(),
        // None at first, unless the URL names some.
        Kind::Commands => Some(query.topics().unwrap_or(Topics::named([]))),
        Kind::Echo => None,
    };
    // Without events there is nothing to hand off.
    let fanout = if topics.is_some() { app.config.fanout } else { Fanout::Direct };
    let outbox = Outbox::new(link, fanout, app.limits(), TOO_SLOW, Arc::clone(&app.backlog));
    stay.show(&outbox);

    // Before the welcome: whoever has read it misses nothing that is published from then on.
    let (subscription, replay) = topics
        .map(|topics| {
            let (client, form) = (stay.number(), Form::WebSocket);
            let subscriber = Subscriber { client, outbox: Arc::clone(&outbox), topics, form };
            app.hub.subscribe(subscriber, last)
        })
        .unzip();
    let mut first = head;
    if kind != Kind::Echo {
        first.extend_from_slice(&text_frame(WELCOME.to_owned()));
    }
    outbox.write_taken(Chunk::Own(first.into()));
    write_replay(&outbox, replay);
    let name = format!("ws {peer}");
    let (limit, ping) = (app.config.max_message, app.config.ping);
    let served = Arc::clone(&outbox);
    let feed = match subscription {
        Some(subscription) if kind == Kind::Commands => {
            let names = query.topic_names().clone();
            Feed::Commands(Commands::new(app, &outbox, subscription, names, right))
        }
        subscription => Feed::Fixed(subscription),
    };
    let thread = std::thread::Builder::new().name(name).stack_size(SESSION_STACK);
    let started = thread.spawn(move || serve(&served, stay, feed, early, kind, limit, ping));
    if started.is_err() {
        log::debug!("no thread for websocket {peer}");
        outbox.finish(Reason::Internal, Some(&close_frame(CloseCode::Error, "no thread")));
        outbox.release();
    }
}

/// Serves the client until it leaves, is too slow, silent or wrong, or the server shuts down. The
/// body of its thread.
fn serve(
    outbox: &Arc<Outbox>,
    stay: Stay,
    feed: Feed,
    early: Vec<u8>,
    kind: Kind,
    limit: usize,
    ping: Duration,
) {
    let (subscription, commands) = match feed {
        Feed::Fixed(subscription) => (subscription, None),
        Feed::Commands(commands) => (None, Some(commands)),
    };
    let reason = match start_writing(outbox) {
        Ok(()) => Session::new(outbox, early, kind, commands, limit, ping).run(),
        Err(_) => Reason::Internal,
    };
    drop(subscription);
    let reason = outbox.over().unwrap_or(reason);
    outbox.finish(reason, None);
    outbox.cut();
    stay.leave(reason);
}

/// Writes what a client missed while the caller holds its outbox.
pub(super) fn write_replay(outbox: &Outbox, replay: Option<Replay>) {
    let Some(replay) = replay else { return };
    if let Some(resumed) = replay.gap {
        let text = format!(
            r#"{{"type":"event","id":"{resumed}","topic":"","event":"gap","data":{}}}"#,
            serde_json::Value::from(crate::sse::gap_data(resumed))
        );
        outbox.write_taken(Chunk::Own(text_frame(text).into()));
    }
    for batch in batches(&replay.events) {
        outbox.write_taken(Chunk::WebSocket(batch));
    }
}

/// Gives the outbox back. In handoff mode a second thread of the client's takes it for good, since
/// its own is blocked in `read`.
fn start_writing(outbox: &Arc<Outbox>) -> io::Result<()> {
    if outbox.fanout() == Fanout::Direct {
        outbox.drained_by_new_threads();
        outbox.release();
        return Ok(());
    }
    let name = format!("wsw {}", outbox.link().peer());
    let (ready, wait) = std::sync::mpsc::channel();
    let writer = Arc::clone(outbox);
    std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
        writer.drained_by_this_thread();
        let _ = ready.send(());
        writer.run()
    })?;
    let _ = wait.recv();
    Ok(())
}

struct Session<'a> {
    outbox: &'a Arc<Outbox>,
    socket: WebSocket<Stream>,
    kind: Kind,
    /// With [`Kind::Commands`].
    commands: Option<Commands>,
    ping: Duration,
    /// When the last ping was sent, or if none was, when the session began.
    last_ping: Instant,
    pinged: bool,
}

impl<'a> Session<'a> {
    fn new(
        outbox: &'a Arc<Outbox>,
        early: Vec<u8>,
        kind: Kind,
        commands: Option<Commands>,
        limit: usize,
        ping: Duration,
    ) -> Session<'a> {
        let limit = Some(limit);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(limit)
            .max_frame_size(limit);
        let now = Instant::now();
        let stream = Stream { outbox: Arc::clone(outbox), last_read: now };
        let socket = WebSocket::from_partially_read(stream, early, Role::Server, Some(config));
        Session { outbox, socket, kind, commands, ping, last_ping: now, pinged: false }
    }

    fn run(mut self) -> Reason {
        // The read's timeout is what wakes this thread for pings, and from a client that is gone.
        let timeout = (!self.ping.is_zero()).then_some(self.ping);
        if self.outbox.link().stream().set_read_timeout(timeout).is_err() {
            return Reason::Lost;
        }
        loop {
            let result = match self.socket.read() {
                Ok(message) => self.answer(message),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => {}
                Err(Error::Io(error)) if is_timeout(&error) => {}
                Err(error) => return self.end(error),
            }
            if let Some(reason) = self.check_pulse() {
                return reason;
            }
        }
    }

    fn answer(&mut self, message: Message) -> Result<(), Error> {
        match (&mut self.commands, &message) {
            (Some(commands), Message::Text(text)) => {
                commands.obey(text);
                return Ok(());
            }
            (Some(commands), Message::Binary(_)) => {
                commands.refuse_binary();
                return Ok(());
            }
            _ => {}
        }
        match (self.kind, message) {
            (Kind::Client, Message::Text(text)) => {
                let original = serde_json::Value::from(text.as_str());
                let processed = timestamp();
                let answer = format!(
                    r#"{{"type":"response","original":{original},"processedAt":"{processed}"}}"#
                );
                self.socket.send(Message::text(answer))
            }
            (_, message @ (Message::Text(_) | Message::Binary(_))) => self.socket.send(message),
            // tungstenite has prepared the pong, or the answering close frame: send it.
            (_, Message::Ping(_) | Message::Close(_)) => self.socket.flush(),
            (_, Message::Pong(_) | Message::Frame(_)) => Ok(()),
        }
    }

    /// Pings every interval. A client is gone when a ping has been out for an interval and nothing
    /// at all has come since. (Not simply when nothing came for two of them: if this process was
    /// stopped meanwhile, nobody has been asked.)
    fn check_pulse(&mut self) -> Option<Reason> {
        // Read timeouts may come a little early; a whole interval more would be late.
        let due = self.ping - self.ping / 20;
        if self.ping.is_zero() || self.last_ping.elapsed() < due {
            return None;
        }
        if self.pinged && self.last_ping > self.socket.get_ref().last_read {
            return Some(Reason::Silent);
        }
        self.pinged = true;
        self.last_ping = Instant::now();
        self.outbox.write(&frame(Frame::ping(Vec::new())));
        None
    }

    /// Ends the session after an error of tungstenite's, which returns it but tells the client
    /// nothing: the close frame is ours to send (RFC 6455 section 7.1.7).
    fn end(self, error: Error) -> Reason {
        let (code, reason) = match &error {
            Error::ConnectionClosed | Error::AlreadyClosed => {
                self.outbox.finish(Reason::Closed, None);
                self.outbox.wait_done(Instant::now() + LAST_WORDS_GRACE);
                // Our close frame is out. What the client sends after its own, it must not; it
                // would still make the system reset the connection, and ours be lost.
                linger(self.outbox.link().stream(), LINGER.0, LINGER.1);
                return Reason::Closed;
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => {
                return Reason::Lost;
            }
            Error::Capacity(_) => (CloseCode::Size, "message too long"),
            Error::Utf8(_) => (CloseCode::Invalid, "text is not UTF-8"),
            Error::Protocol(ProtocolError::InvalidCloseSequence) => {
                (CloseCode::Protocol, "invalid close frame")
            }
            Error::Protocol(_) => (CloseCode::Protocol, "protocol error"),
            _ => (CloseCode::Error, "server failure"),
        };
        log::debug!("websocket: {error}");
        self.outbox.finish(Reason::Protocol, Some(&close_frame(code, reason)));
        self.outbox.wait_done(Instant::now() + LAST_WORDS_GRACE);
        // What the client is still sending would make the system reset the connection, and the
        // close frame be lost.
        linger(self.outbox.link().stream(), LINGER.0, LINGER.1);
        Reason::Protocol
    }
}

/// The close frame that a client gets when the server shuts down: 1001, `Going Away`.
pub fn farewell() -> Vec<u8> {
    close_frame(CloseCode::Away, "server shutdown")
}

fn close_frame(code: CloseCode, reason: &'static str) -> Vec<u8> {
    frame(Frame::close(Some(CloseFrame { code, reason: reason.into() })))
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    // With a read timeout set, a stop and a continue of the process interrupt it: signal(7).
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_clients_close_frame_is_well_formed() {
        assert_eq!(close_frame(CloseCode::Again, "too slow"), TOO_SLOW);
    }
}
