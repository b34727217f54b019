//! `GET /history`: what is kept, as JSON, a page at a time, for programs that want no stream.
//!
//! The connection's thread reads from the store's window, which locks it for a step at a time.

use std::sync::Arc;

use serde_json::{Value, json};

use super::error::HandlerError;
use super::query::Query;
use crate::app::App;
use crate::event::Event;
use crate::event::last_seen::LastSeen;
use crate::event::topics::{ALL_TOPICS, Topics};
use crate::http::Response;
use crate::http::head::parameter;

/// How many events a page has at the most, and unless the request says something else.
const MAX_EVENTS: usize = 1_000;
const DEFAULT_EVENTS: usize = 100;

/// The most bytes of data in a page, but for its first event.
const MAX_BYTES: usize = 4 << 20;

/// The response to `GET /history` with this query: the events that are kept of the topics that it names, or of all,
/// after an id, or from the beginning.
pub fn history(app: &App, query: &str) -> Response {
    page(app, query).unwrap_or_else(Response::from)
}

fn page(app: &App, query: &str) -> Result<Response, HandlerError> {
    // 1. What is asked for.
    let names = Query::topics_in(query)?;
    let topics = match names.is_empty() {
        true => Topics::named([ALL_TOPICS]),
        false => Topics::asked_for(&names),
    };
    let (last, limit) = (after(query)?, limit(query)?);

    // 2. One event more than fits shows that there is another page.
    let (mut replay, newest) = app.hub.read(last, &topics);
    let mut events: Vec<Arc<Event>> = Vec::new();
    let (mut gap, mut next, mut bytes) = (None, None, 0);
    for event in std::iter::from_fn(|| replay.next_batch()).flatten() {
        if event.is_gap() {
            gap.get_or_insert(event.id);
            continue;
        }
        bytes += event.data().len();
        if events.len() == limit || (bytes > MAX_BYTES && !events.is_empty()) {
            next = events.last().map(|last| last.id.to_string());
            break;
        }
        events.push(event);
    }

    // 3. The page.
    let gap = gap.map(|resumed| json!({"resumed": resumed.to_string()}));
    let events: Vec<Value> = events.iter().map(|event| describe(event)).collect();
    let body = json!({"events": events, "gap": gap, "newest": newest.to_string(), "next": next});
    Ok(Response::json(200, &body))
}

/// As a WebSocket's client gets it, without the type.
fn describe(event: &Event) -> Value {
    json!({
        "id": event.id.to_string(),
        "topic": &*event.topic,
        "event": event.name().unwrap_or("message"),
        "data": event.data(),
    })
}

fn after(query: &str) -> Result<LastSeen, HandlerError> {
    let text = parameter(query, "after").filter(|text| !text.is_empty());
    match LastSeen::parse(Some(text.as_deref().unwrap_or("earliest"))) {
        known @ (LastSeen::Earliest | LastSeen::Event(_)) => Ok(known),
        _ => Err(HandlerError::BadQuery("after is an event's id, or earliest".to_owned())),
    }
}

fn limit(query: &str) -> Result<usize, HandlerError> {
    let Some(text) = parameter(query, "limit") else { return Ok(DEFAULT_EVENTS) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_EVENTS).contains(limit));
    limit.ok_or_else(|| HandlerError::BadQuery(format!("limit is a number from 1 to {MAX_EVENTS}")))
}
