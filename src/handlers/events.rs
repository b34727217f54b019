//! `GET /events`: what is published, as an event stream.

use super::query::Query;
use crate::event::draft::ALL_TOPICS;
use crate::session::error::HandlerResult;
use crate::session::event_stream::EventStream;

/// Hands out the events on the topics that the query names, or on all.
pub fn events(stream: &mut EventStream) -> HandlerResult {
    // The router has checked the query.
    let query = Query::parse(stream.query())?;
    match query.topics().is_empty() {
        true => stream.follow([ALL_TOPICS])?,
        false => stream.follow(query.topics())?,
    }
    Ok(())
}
