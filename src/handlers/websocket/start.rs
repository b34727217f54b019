//! How a WebSocket begins: from its request to the client's own thread. The steps are those of
//! [`start`], in the thread that has read the request.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;

use super::commands::{self, Commands};
use super::handshake::{self, Accepted};
use super::output::encoding;
use super::pulse::Pulse;
use super::session::{Kind, Session, TOO_SLOW, close_frame};
use crate::app::App;
use crate::auth::access::bearer_token;
use crate::auth::permission::PublishPermission;
use crate::client::outbox::Outbox;
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
use crate::os::send::wait_readable;
use crate::os::tcp;
use crate::ws::frame::text_frame;

/// Stack of a client's thread. Larger than a request's, so that the C library does not reuse the stack
/// of a request's thread, whose touched pages stay resident.
const SESSION_STACK: usize = 2 * STACK_BYTES;

/// How long the client has for reading the handshake's response before the first frame follows, and how
/// long we wait at most for its system to acknowledge the response.
const PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Checks the handshake, takes the socket over, and hands it to the thread that serves the client.
///
/// That is a new thread, and this one is free for other requests: what the handshake has touched of its
/// stack, and freed into its allocator's cache, would stay with an idle client for all its life (8 of an
/// idle client's 23 KiB).
pub fn start(app: &Arc<App>, connection: Connection, kind: Kind, query: &Query) -> Next {
    // 1. Is it a handshake, and is there room?
    let kind = match kind {
        Kind::Client if handshake::is_offered(&connection, commands::PROTOCOL) => Kind::Commands,
        kind => kind,
    };
    let protocol = (kind == Kind::Commands).then_some(commands::PROTOCOL);
    let Accepted { head, deflate } =
        match handshake::check(&connection, protocol, app.config.deflate) {
            Ok(accepted) => accepted,
            Err(error) => return app.refusals.respond(connection, &error.into()),
        };
    let peer = connection.peer();
    let guard = match app.clients.register(Transport::WebSocket, peer) {
        Ok(guard) => guard,
        Err(full) => return app.refusals.respond(connection, &full.into()),
    };
    let last = query.last_seen(&connection);
    let (token, given) = (app.config.token.as_deref(), bearer_token(&connection));
    let permission = PublishPermission::new(token, app.is_loopback, given);

    // 2. From here on the socket is the client's. The outbox is held by this thread: events wait.
    let (link, early) = connection.into_stream();
    let topics = topics(kind, query);
    // Without events there is nothing to hand off.
    let fanout = if topics.is_some() { app.config.fanout } else { Fanout::Direct };
    let outbox = Outbox::new(link, fanout, app.limits(), TOO_SLOW, Arc::clone(&app.backlog));
    guard.set_outbox(&outbox);

    // 3. Subscribe, before the welcome: a client that has read it misses nothing that is published later.
    let (subscription, replay) = topics
        .map(|topics| {
            let (client, encoding) = (guard.number(), encoding(deflate));
            let subscriber = Subscriber { client, outbox: Arc::clone(&outbox), topics, encoding };
            app.hub.subscribe(subscriber, last)
        })
        .unzip();

    // 4. The first bytes: the handshake's response, the welcome, what the client missed.
    outbox.write_held(&Payload::own(head));
    if kind != Kind::Echo {
        wait_until_read(&outbox);
        let seen = replay.as_ref().map_or_else(|| Some(app.hub.newest()), |replay| replay.seen);
        outbox.write_held(&Payload::own(text_frame(&welcome(seen))));
    }
    for payload in replay.iter().flat_map(|replay| replay.payloads(encoding(deflate))) {
        outbox.write_held(&payload);
    }
    drop(replay);

    // 5. The client's own thread. With commands, the subscription is theirs: they change it.
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

/// Which events the client gets at first; `None` for none ever.
fn topics(kind: Kind, query: &Query) -> Option<Topics> {
    match kind {
        Kind::Client => query.topics(),
        // None yet, unless the URL names some.
        Kind::Commands => Some(query.topics().unwrap_or(Topics::named([]))),
        Kind::Echo => None,
    }
}

/// The first message on `/ws`, with the id from which on the client misses nothing if it comes back
/// with it.
fn welcome(seen: Option<EventId>) -> String {
    let id = seen.map(|id| format!(r#","lastEventId":"{id}""#)).unwrap_or_default();
    format!(r#"{{"type":"info","message":"Welcome to WS Server"{id}}}"#)
}

/// Waits until the client has most likely read the handshake's response.
///
/// Some clients (simple-websocket for Python) read it and the frames behind it in one piece, and do not
/// see the frames until more comes. So there is a pause before the first one. It ends when the client's
/// system has acknowledged the response (5 ms later), when the client speaks, when events wait, when the
/// socket is shut down, and after 50 ms.
fn wait_until_read(outbox: &Outbox) {
    let stream = outbox.link().stream();
    let deadline = Instant::now() + MAX_PAUSE;
    while Instant::now() < deadline {
        // Until it is acknowledged, what follows may arrive together with it.
        let is_acknowledged = || tcp::send_queue(stream).is_none_or(|queue| queue.waiting == 0);
        // A flood of events must not fill the client's queue meanwhile.
        let has_events = || outbox.queued().0 > 0;
        if wait_readable(stream, Instant::now() + PAUSE).unwrap_or(true)
            || is_acknowledged()
            || has_events()
        {
            return;
        }
    }
}

/// Serves the client until it leaves, is too slow or silent, breaks the protocol, or the server shuts
/// down. The body of its thread. `early` is what came behind the handshake.
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
    // In this order: no more events (with commands the subscription is theirs), the end of the socket,
    // and then the client is not here any more.
    let outbox = Arc::clone(&session.outbox);
    drop(session);
    drop(subscription);
    outbox.abort_for(reason);
    drop(guard);
}

/// Gives the outbox back, for others to write to. In the `handoff` way it needs a writer of its own, since
/// the client's thread is blocked in `read`.
fn start_writing(outbox: &Arc<Outbox>) -> io::Result<()> {
    if outbox.fanout() == Fanout::Handoff {
        let name = format!("wsw {}", outbox.link().peer());
        let writer = Arc::clone(outbox);
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || {
            while let Some(piece) = writer.next_piece() {
                writer.write_piece(&piece);
            }
        })?;
        outbox.set_writer(thread.thread().clone());
    }
    outbox.release();
    Ok(())
}
