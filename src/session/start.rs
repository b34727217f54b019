//! How a WebSocket begins: from its request to the client's own thread. The steps are those of
//! [`start`], in the thread that has read the request.

use std::collections::BTreeSet;
use std::sync::Arc;

use tungstenite::protocol::frame::coding::CloseCode;

use super::closing::{TOO_SLOW, close_frame};
use super::error::HandlerResult;
use super::handshake::{self, Accepted};
use super::pulse::Pulse;
use super::socket::Socket;
use super::state::Session;
use super::websocket::WebSocket;
use crate::app::App;
use crate::auth::access::bearer_token;
use crate::auth::permission::PublishPermission;
use crate::client::outbox::Outbox;
use crate::client::reason::Reason;
use crate::client::registry::Transport;
use crate::event::encoding::Encoding;
use crate::listener::connection::{Connection, Next};
use crate::listener::threads::STACK_BYTES;
use crate::ws::incoming::Incoming;

/// Stack of a client's thread. Larger than a request's, so that the C library does not reuse the stack
/// of a request's thread, whose touched pages stay resident.
const SESSION_STACK: usize = 2 * STACK_BYTES;

/// Serves a WebSocket's client, in its own thread.
pub type Handler = dyn Fn(&mut WebSocket) -> HandlerResult + Send + Sync;

/// A WebSocket endpoint.
pub struct Endpoint {
    /// The subprotocols that it speaks, the most wanted first.
    pub protocols: &'static [&'static str],
    /// What serves a client.
    pub handler: Box<Handler>,
}

/// Checks the handshake, takes the socket over, and hands it to the thread that serves the client.
///
/// That is a new thread, and this one is free for other requests: what the handshake has touched of its
/// stack, and freed into its allocator's cache, would stay with an idle client for all its life (8 of an
/// idle client's 23 KiB).
pub fn start(app: &Arc<App>, connection: Connection, endpoint: &Arc<Endpoint>) -> Next {
    // 1. Is it a handshake, and is there room?
    let is_offered = |protocol: &&&str| handshake::is_offered(&connection, protocol);
    let protocol = endpoint.protocols.iter().find(is_offered).copied();
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
    let (token, given) = (app.config.token.as_deref(), bearer_token(&connection));
    let permission = PublishPermission::new(token, app.is_loopback(), given);
    let request = connection.query_and_last_event_id();

    // 2. From here on the socket is the client's. The outbox is held, for the client's thread: events wait.
    let (link, early) = connection.into_stream();
    let backlog = Arc::clone(&app.backlog);
    let outbox = Outbox::new(link, app.hub.fanout(), app.limits(), TOO_SLOW, backlog);
    guard.set_outbox(&outbox);
    let encoding = deflate.map_or(Encoding::WebSocket, Encoding::Deflate);
    let session = Session::new(app, &app.hub, Arc::clone(&outbox), guard, encoding, head, request);

    // 3. The client's own thread. The read's timeout is what wakes it for pings, and from a client that is
    // gone.
    let pulse = Pulse::new(app.config.ping);
    let (limit, timeout) = (app.config.max_message, pulse.interval());
    let endpoint = Arc::clone(endpoint);
    let serve = move || {
        session.guard.set_thread();
        if session.outbox.link().stream().set_read_timeout(timeout).is_err() {
            return session.outbox.abort_for(Reason::Lost);
        }
        let socket = Socket::new(Arc::clone(&session.outbox));
        let incoming = Incoming::new(socket, &early, limit, deflate);
        drop(early);
        let topics = BTreeSet::new();
        let mut client =
            WebSocket { session, incoming, pulse, deflate, protocol, permission, topics };
        let result = (endpoint.handler)(&mut client);
        client.finish(result);
    };
    let thread = std::thread::Builder::new().name(format!("ws {peer}")).stack_size(SESSION_STACK);
    if thread.spawn(serve).is_err() {
        log::debug!("no thread for websocket {peer}");
        outbox.close(Reason::Internal, Some(&close_frame(CloseCode::Error, "no thread")));
        outbox.release();
    }
    Next::Done
}
