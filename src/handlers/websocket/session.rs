//! A WebSocket client, from its handshake to its end.
//!
//! Its thread is blocked in `read`, and answers what it reads. Events come from the broadcaster
//! through the client's [`Outbox`]; answers go into the same outbox, each a whole frame, so they
//! never interleave.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use super::commands::{self, Commands};
use super::handshake::{self, Accepted};
use super::output::{compressed, encoding, text_message, write_replay};
use super::pulse::Pulse;
use super::stream::Stream;
use crate::app::App;
use crate::auth::access::bearer_token;
use crate::auth::permission::PublishPermission;
use crate::client::outbox::{CLOSE_TIMEOUT, Outbox};
use crate::client::reason::Reason;
use crate::client::registry::{ClientGuard, Transport};
use crate::config::Fanout;
use crate::event::EventId;
use crate::event::payload::Payload;
use crate::handlers::query::Query;
use crate::hub::Subscription;
use crate::hub::broadcaster::Subscriber;
use crate::hub::topics::Topics;
use crate::listener::connection::{Connection, Next};
use crate::listener::threads::STACK_BYTES;
use crate::os::clock::timestamp;
use crate::os::send::{ReadBounds, read_out, wait_readable};
use crate::os::sys;
use crate::ws::deflate::Window;
use crate::ws::failure::Failure;
use crate::ws::frame::{frame, text_frame};
use crate::ws::incoming::{Incoming, Message, Received};

/// Stack of a client's thread. Larger than a request's, so that the C library does not give it a
/// used one: what counts as memory is what was ever touched.
const SESSION_STACK: usize = 2 * STACK_BYTES;

/// The first message on `/ws`, with the id from which on the client misses nothing if it comes back
/// with it.
fn welcome(seen: Option<EventId>) -> String {
    let id = seen.map(|id| format!(r#","lastEventId":"{id}""#)).unwrap_or_default();
    format!(r#"{{"type":"info","message":"Welcome to WS Server"{id}}}"#)
}

/// How long the client has for reading the handshake's response before the first frame follows, and how
/// long we wait at most for its system to acknowledge the response.
const PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The close frame for a client that is too slow: 1013, `Try Again Later` (IANA registry of close
/// codes). Come back, with the id of the last event.
const TOO_SLOW: &[u8] = b"\x88\x0a\x03\xf5too slow";

/// How long a client is read from that has been sent a close frame.
const LINGER: ReadBounds =
    ReadBounds { time: Duration::from_secs(1), idle: Duration::from_secs(1), bytes: 64 << 20 };

/// The same for a client that is in the middle of a message which was refused: on a slow line it takes
/// seconds until the close frame is read.
const UPLOAD_LINGER: ReadBounds =
    ReadBounds { time: Duration::from_secs(30), idle: Duration::from_secs(5), bytes: 64 << 20 };

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

/// Checks the handshake, takes the socket over, and hands it to the thread that serves the client.
///
/// That is a new thread, and this one ends: what the handshake has touched of its stack, and freed
/// into its allocator's cache, would stay with an idle client for all its life (8 KiB of 23).
pub fn start(app: &Arc<App>, connection: Connection, kind: Kind, query: &Query) -> Next {
    let kind = match kind {
        Kind::Client if handshake::is_offered(&connection, commands::PROTOCOL) => Kind::Commands,
        kind => kind,
    };
    let protocol = (kind == Kind::Commands).then_some(commands::PROTOCOL);
    let accepted = handshake::check(&connection, protocol, app.config.deflate);
    let Accepted { head, deflate } = match accepted {
        Ok(accepted) => accepted,
        Err(error) => return app.refusals.respond(connection, &error.into()),
    };
    let last = query.last_seen(&connection);
    let peer = connection.peer();
    let (token, given) = (app.config.token.as_deref(), bearer_token(&connection));
    let permission = PublishPermission::new(token, app.is_loopback, given);
    let guard = match app.clients.register(Transport::WebSocket, peer) {
        Ok(guard) => guard,
        Err(full) => return app.refusals.respond(connection, &full.into()),
    };
    let (link, early) = connection.into_stream();
    let topics = match kind {
        Kind::Client => query.topics(),
        // None at first, unless the URL names some.
        Kind::Commands => Some(query.topics().unwrap_or(Topics::named([]))),
        Kind::Echo => None,
    };
    // Without events there is nothing to hand off.
    let fanout = if topics.is_some() { app.config.fanout } else { Fanout::Direct };
    let outbox = Outbox::new(link, fanout, app.limits(), TOO_SLOW, Arc::clone(&app.backlog));
    guard.set_outbox(&outbox);

    // Before the welcome: whoever has read it misses nothing that is published from then on.
    let (subscription, replay) = topics
        .map(|topics| {
            let (client, encoding) = (guard.number(), encoding(deflate));
            let subscriber = Subscriber { client, outbox: Arc::clone(&outbox), topics, encoding };
            app.hub.subscribe(subscriber, last)
        })
        .unzip();
    outbox.write_taken(Payload::Own(head.into()));
    if kind != Kind::Echo {
        wait_until_read(&outbox);
        let seen = replay.as_ref().map_or_else(|| Some(app.hub.newest()), |replay| replay.seen);
        outbox.write_taken(Payload::Own(text_frame(&welcome(seen)).into()));
    }
    write_replay(&outbox, replay, deflate);
    // Who gives commands changes the subscription by them.
    let (subscription, commands) = match subscription {
        Some(subscription) if kind == Kind::Commands => {
            let names = query.topic_names().clone();
            let commands = Commands::new(app, &outbox, deflate, subscription, names, permission);
            (None, Some(Box::new(commands)))
        }
        subscription => (subscription, None),
    };
    let pulse = Pulse::new(app.config.ping);
    let session = Session { outbox: Arc::clone(&outbox), kind, commands, deflate, pulse };
    let limit = app.config.max_message;
    let thread = std::thread::Builder::new().name(format!("ws {peer}")).stack_size(SESSION_STACK);
    let started = thread.spawn(move || serve(session, guard, subscription, early, limit));
    if started.is_err() {
        log::debug!("no thread for websocket {peer}");
        outbox.close(Reason::Internal, Some(&close_frame(CloseCode::Error, "no thread")));
        outbox.release();
    }
    Next::Done
}

/// Waits until the client has most likely read the handshake's response.
///
/// Some clients (simple-websocket for Python) read it and the frames behind it in one piece, and do not
/// look at the frames until more comes. So there is a pause before the first one. It ends when the
/// client speaks (it has read the response), or when somebody shuts the socket down.
fn wait_until_read(outbox: &Outbox) {
    let stream = outbox.link().stream();
    let deadline = Instant::now() + MAX_PAUSE;
    while Instant::now() < deadline {
        // While the response is on its way, perhaps for a second time, what follows would come with it.
        let is_there = || sys::send_queue(stream).is_none_or(|queue| queue.waiting == 0);
        // A flood of events must not fill the client's queue meanwhile.
        let has_events = || outbox.queued().0 > 0;
        if wait_readable(stream, Instant::now() + PAUSE).unwrap_or(true)
            || is_there()
            || has_events()
        {
            return;
        }
    }
}

/// Serves the client until it leaves, is too slow, silent or wrong, or the server shuts down. The
/// body of its thread. `early` is what came behind the handshake.
fn serve(
    mut session: Session,
    guard: ClientGuard,
    subscription: Option<Subscription>,
    early: Vec<u8>,
    limit: usize,
) {
    let reason = match start_writing(&session.outbox) {
        Ok(()) => session.run(early, limit),
        Err(_) => Reason::Internal,
    };
    drop(subscription);
    let outbox = &session.outbox;
    let reason = outbox.close_reason().unwrap_or(reason);
    outbox.close(reason, None);
    outbox.abort();
    guard.leave(reason);
}

/// Gives the outbox back. In handoff mode a second thread of the client's takes it for good, since
/// its own is blocked in `read`.
fn start_writing(outbox: &Arc<Outbox>) -> io::Result<()> {
    if outbox.fanout() == Fanout::Direct {
        outbox.drained_by_new_threads();
        // This thread reads: it must not be the one that waits for the client.
        outbox.release_to_new_thread();
        return Ok(());
    }
    let name = format!("wsw {}", outbox.link().peer());
    let (ready, wait) = std::sync::mpsc::channel();
    let writer = Arc::clone(outbox);
    std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
        writer.drained_by_this_thread();
        let _ = ready.send(());
        writer.run()
    })?;
    let _ = wait.recv();
    Ok(())
}

struct Session {
    outbox: Arc<Outbox>,
    kind: Kind,
    /// With [`Kind::Commands`].
    commands: Option<Box<Commands>>,
    deflate: Option<Window>,
    pulse: Pulse,
}

impl Session {
    /// Reads until the client leaves or is given up. Blocked in `read` for most of its life: what is on
    /// the stack here stays resident.
    fn run(&mut self, early: Vec<u8>, limit: usize) -> Reason {
        let stream = Stream::new(Arc::clone(&self.outbox));
        let mut incoming = Incoming::new(stream, &early, limit, self.deflate);
        drop(early);
        // The read's timeout is what wakes this thread for pings, and from a client that is gone.
        let timeout = self.pulse.interval();
        if self.outbox.link().stream().set_read_timeout(timeout).is_err() {
            return Reason::Lost;
        }
        loop {
            match incoming.receive() {
                Ok(Received::Message(message)) => self.answer(message),
                Ok(Received::Ping(payload)) => {
                    self.outbox.write(&frame(Frame::pong(payload.to_vec())));
                }
                Ok(Received::Pong) | Err(Failure::Timeout) => {}
                Ok(Received::Close(payload)) => return self.say_goodbye(payload),
                Err(Failure::Lost) => return Reason::Lost,
                Err(Failure::Wrong(code, why)) => return self.refuse(code, why, incoming),
            }
            if self.pulse.is_silent(&self.outbox, incoming.last_read()) {
                return self.drop_silent();
            }
        }
    }

    fn answer(&mut self, message: Message<'_>) {
        if let Some(commands) = &mut self.commands {
            return match message.text() {
                Some(text) => commands.execute(text),
                None => commands.refuse_binary(),
            };
        }
        match (self.kind, message.text()) {
            (Kind::Client, Some(text)) => {
                let original = serde_json::Value::from(text);
                let processed = timestamp();
                let answer = format!(
                    r#"{{"type":"response","original":{original},"processedAt":"{processed}"}}"#
                );
                self.outbox.write(&text_message(&answer, self.deflate));
            }
            (_, _) => match compressed(self.deflate, message.kind(), message.payload()) {
                Some(frame) => self.outbox.write(&frame),
                None => self.outbox.write(message.into_frame()),
            },
        }
    }

    /// Gives a silent client up. It may only have slept: where its socket takes it, it is told to come
    /// back.
    fn drop_silent(&self) -> Reason {
        self.outbox.close(Reason::Silent, Some(&close_frame(CloseCode::Away, "no sign of life")));
        self.outbox.wait_done(Instant::now() + LINGER.time);
        Reason::Silent
    }

    /// Answers a close frame with the same (RFC 6455 section 5.5.1).
    fn say_goodbye(&self, payload: &[u8]) -> Reason {
        let header =
            FrameHeader { opcode: OpCode::Control(Control::Close), ..FrameHeader::default() };
        self.outbox.write(&frame(Frame::from_payload(header, payload.to_vec().into())));
        self.outbox.close(Reason::Closed, None);
        self.wait_closed(Reason::Closed, LINGER)
    }

    /// Tells the client what it did wrong (section 7.1.7).
    fn refuse(&self, code: CloseCode, why: &'static str, incoming: Incoming<Stream>) -> Reason {
        log::debug!("websocket {}: {why}", self.outbox.link().peer());
        self.outbox.close(Reason::Protocol, Some(&close_frame(code, why)));
        self.outbox.postpone_abort(Instant::now() + CLOSE_TIMEOUT + UPLOAD_LINGER.time);
        let linger = match code {
            // The client is most likely in the middle of the message, and a proxy may take our end for
            // that of both sides: so it is for the client to end its half first.
            CloseCode::Size => {
                if let Some(mut finder) = incoming.into_close_finder() {
                    let stream = self.outbox.link().stream();
                    read_out(stream, UPLOAD_LINGER, |bytes| finder.add(bytes));
                }
                LINGER
            }
            // In the middle as well, but it may leave its frame unfinished: no end would be found.
            CloseCode::Invalid => UPLOAD_LINGER,
            _ => LINGER,
        };
        self.wait_closed(Reason::Protocol, linger)
    }

    /// Ends the connection when the close message is out.
    fn wait_closed(&self, reason: Reason, linger: ReadBounds) -> Reason {
        self.outbox.wait_done(Instant::now() + CLOSE_TIMEOUT);
        // What the client is still sending (after its close frame it must not) would make the
        // system reset the connection, and our close frame be lost.
        let stream = self.outbox.link().stream();
        let _ = stream.shutdown(Shutdown::Write);
        read_out(stream, linger, |_| false);
        reason
    }
}

/// The close frame that a client gets when the server shuts down: 1001, `Going Away`.
pub fn shutdown_message() -> Vec<u8> {
    close_frame(CloseCode::Away, "server shutdown")
}

fn close_frame(code: CloseCode, reason: &'static str) -> Vec<u8> {
    frame(Frame::close(Some(CloseFrame { code, reason: reason.into() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_clients_close_frame_is_well_formed() {
        assert_eq!(close_frame(CloseCode::Again, "too slow"), TOO_SLOW);
    }
}
