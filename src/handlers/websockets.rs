//! The built-in WebSockets: `/ws` and `/echo`.

use super::commands::{self, Commands};
use super::query::Query;
use crate::event::EventId;
use crate::os::clock::timestamp;
use crate::session::error::HandlerResult;
use crate::session::websocket::WebSocket;

/// `/ws`: a welcome, answers in JSON, and events on the topics that the query names. With the subprotocol
/// [`commands::PROTOCOL`]: commands instead of answers.
pub fn ws(client: &mut WebSocket) -> HandlerResult {
    let topics = Query::topics_in(client.query())?;
    let has_commands = client.protocol() == Some(commands::PROTOCOL);
    // Before the welcome: a client that has read it misses nothing that is published later.
    if topics.is_empty() && !has_commands {
        client.send(welcome(Some(client.newest_event_id())))?;
    } else {
        let last = client.last_event_id();
        let missed = client.subscribe(topics, last.as_deref())?;
        missed.send_first(welcome(missed.last_event_id()));
    }
    if has_commands {
        return Commands::new(client).serve();
    }
    while let Some(message) = client.receive()? {
        match message.text() {
            Ok(text) => client.send(response(text))?,
            Err(_) => client.send(message)?,
        }
    }
    Ok(())
}

/// `/echo`: every message comes back as it was, and nothing else does.
pub fn echo(client: &mut WebSocket) -> HandlerResult {
    while let Some(message) = client.receive()? {
        client.send(message)?;
    }
    Ok(())
}

// Not inlined, nor is the next: their frames would be below every idle client's.
#[inline(never)]
fn response(text: &str) -> String {
    let original = serde_json::Value::from(text);
    let processed = timestamp();
    format!(r#"{{"type":"response","original":{original},"processedAt":"{processed}"}}"#)
}

/// The first message on `/ws`, with the id from which on the client misses nothing if it comes back
/// with it.
#[inline(never)]
fn welcome(seen: Option<EventId>) -> String {
    let id = seen.map(|id| format!(r#","lastEventId":"{id}""#)).unwrap_or_default();
    format!(r#"{{"type":"info","message":"Welcome to WS Server"{id}}}"#)
}
