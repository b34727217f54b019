//! A Server-Sent Events client, from its request to its end.
//!
//! Its thread writes the head of the stream, what the client missed, and then sleeps. In `direct`
//! mode it wakes only when the broadcaster could not write an event at once, and writes it, waiting
//! for the client; in `handoff` mode it wakes for every event. See [`crate::client::outbox`].

use std::sync::Arc;

use crate::app::App;
use crate::client::outbox::Outbox;
use crate::client::registry::Transport;
use crate::event::batch::batches;
use crate::event::payload::{Encoding, Payload};
use crate::event::{EventId, encode_sse};
use crate::handlers::query::Query;
use crate::http::coding::Coding;
use crate::http::{Persistence, Response};
use crate::hub::broadcaster::Subscriber;
use crate::hub::history::Replay;
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
    let mut first = head(coding).to_bytes_with(connection.fields(), false, Persistence::Close);
    let link = connection.into_event_stream();
    let socket = Arc::clone(link.socket());
    let backlog = Arc::clone(&app.backlog);
    let outbox = Outbox::new(link, app.config.fanout, app.limits(), coding.end(), backlog);
    outbox.drained_by_this_thread();
    guard.set_outbox(&outbox);
    if let Err(error) = app.hangups.watch(&socket, guard.number()) {
        log::warn!("sse {}: a hang-up will not be noticed: {error}", outbox.link().peer());
    }
    drop(socket);

    let subscriber = Subscriber {
        client: guard.number(),
        outbox: Arc::clone(&outbox),
        topics: query.topics_or_all(),
        encoding: Encoding::Sse(coding),
    };
    // Before the greeting: whoever has read it misses nothing that is published from then on.
    let (subscription, replay) = app.hub.subscribe(subscriber, last);
    first.extend_from_slice(&coding.frame(greeting(replay.seen).as_bytes()));
    outbox.write_taken(Payload::Own(first.into()));
    write_replay(&outbox, replay, coding);
    let reason = outbox.run();

    drop(subscription);
    outbox.abort();
    guard.leave(reason);
    Next::Done
}

fn write_replay(outbox: &Outbox, replay: Replay, coding: Coding) {
    if let Some(resumed) = replay.gap {
        let gap = encode_sse(Some(resumed), Some("gap"), &gap_data(resumed));
        outbox.write_taken(Payload::Own(coding.frame(&gap)));
    }
    for batch in batches(&replay.events) {
        outbox.write_taken(Payload::Sse(batch, coding));
    }
}

/// What a `gap` event says: from `resumed` on nothing is missing.
pub fn gap_data(resumed: EventId) -> String {
    format!("{{\"resumed\":\"{resumed}\"}}")
}

/// What a client is told when the server shuts down: when to come back, and that the stream ends here.
/// Spread over two seconds, so that not all of them come at once.
pub fn shutdown_message(client: u64, coding: Coding) -> Vec<u8> {
    // Any number that differs between neighbours will do; this is Knuth's multiplicative hash.
    let jitter = client.wrapping_mul(2_654_435_761) % 2_000;
    let retry = coding.frame(format!("retry: {}\n", 1_000 + jitter).as_bytes());
    [&retry, coding.end()].concat()
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
