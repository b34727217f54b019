//! A Server-Sent Events client, from its request to its end.
//!
//! One thread serves the client: it writes the head of the stream and what the client missed, and then
//! sleeps until something waits in the client's channel. In the `direct` way that is only what its
//! broadcaster could not write at once; in the `handoff` way it is every event. See
//! [`crate::client::outbox`]. The client sends nothing, so its hang-up is noticed by [`crate::client::hangup`],
//! which closes the outbox, as the shutdown does: that wakes the thread.

use std::sync::Arc;
use std::thread;

use crate::app::App;
use crate::client::outbox::Outbox;
use crate::client::registry::Transport;
use crate::event::EventId;
use crate::event::encoding::Encoding;
use crate::event::payload::Payload;
use crate::handlers::query::Query;
use crate::http::coding::Coding;
use crate::http::{Persistence, Response};
use crate::hub::broadcaster::Subscriber;
use crate::listener::connection::{Connection, Next};

/// The head of every stream.
pub fn head(coding: Coding) -> Response {
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

/// Serves the client until it leaves, is too slow, or the server shuts down.
pub fn serve(app: &App, connection: Connection, query: &Query) -> Next {
    let last = query.last_seen(&connection);
    let guard = match app.clients.register(Transport::Sse, connection.peer()) {
        Ok(guard) => guard,
        Err(full) => {
            let refusal = full.into();
            app.refusals.log("sse", connection.peer(), &refusal);
            let response = connection.head().or_come_back(refusal);
            return connection.respond(&response);
        }
    };
    let coding = connection.coding();
    let encoding = Encoding::Sse(coding);
    let mut first = head(coding).to_bytes_with(connection.fields(), false, Persistence::Close);

    // From here on the socket is the client's. The outbox is held by this thread: events wait.
    let link = connection.into_event_stream();
    let backlog = Arc::clone(&app.backlog);
    let outbox = Outbox::new(link, app.config.fanout, app.limits(), coding.end(), backlog);
    outbox.set_writer(thread::current());
    guard.set_outbox(&outbox);
    if let Err(error) = app.hangups.watch(outbox.link().socket(), guard.number()) {
        log::warn!("sse {}: a hang-up will not be noticed: {error}", outbox.link().peer());
    }

    // Before the greeting: a client that has read it misses nothing that is published from then on.
    let (client, topics) = (guard.number(), query.topics_or_all());
    let subscriber = Subscriber { client, outbox: Arc::clone(&outbox), topics, encoding };
    let (subscription, replay) = app.hub.subscribe(subscriber, last);
    first.extend_from_slice(&coding.frame(greeting(replay.seen).as_bytes()));
    outbox.write_held(&Payload::own(first));
    for payload in replay.payloads(encoding) {
        outbox.write_held(&payload);
    }
    drop(replay);
    outbox.release();

    // The rest of the client's life: asleep until something waits for it, then in `send`, and in `poll`
    // while the client is slow.
    while let Some(piece) = outbox.next_piece() {
        outbox.write_piece(&piece);
    }

    drop(subscription);
    // It is closed already. This shuts the socket down at once; the broadcaster has a share in it still.
    outbox.abort();
    Next::Done
}

/// What a client is told when the server shuts down: when to come back, and that the stream ends here.
/// Spread over two seconds, so that not all of them come at once.
pub fn shutdown_message(client: u64, coding: Coding) -> Vec<u8> {
    // Any number that differs between neighbours will do; this is Knuth's multiplicative hash.
    let jitter = client.wrapping_mul(2_654_435_761) % 2_000;
    let retry = coding.frame(format!("retry: {}\n", 1_000 + jitter).as_bytes());
    [&*retry, coding.end()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_messages_are_spread() {
        let messages = (0..200).map(|client| shutdown_message(client, Coding::Identity));
        let all: std::collections::HashSet<_> = messages.collect();
        assert!(all.len() > 150, "{}", all.len());
        assert!(all.iter().all(|one| one.starts_with(b"retry: ") && one.ends_with(b"\n")));
        assert!(shutdown_message(1, Coding::Chunked).ends_with(b"\n\r\n0\r\n\r\n"));
    }
}
