//! `GET /events`: what is published, as an event stream.

use std::collections::BTreeSet;

use super::error::HandlerError;
use super::query::Query;
use crate::event::draft::ALL_TOPICS;
use crate::session::error::HandlerResult;
use crate::session::event_stream::EventStream;

/// Hands out the events on the topics that the query names, or on all.
pub fn events(stream: &mut EventStream) -> HandlerResult {
    let topics = topics(stream.query())?;
    Ok(stream.follow(topics)?)
}

// Not inlined: its frame would be below every idle client's.
#[inline(never)]
fn topics(query: &str) -> Result<BTreeSet<String>, HandlerError> {
    // The router has checked the query.
    let query = Query::parse(query)?;
    Ok(match query.topics().is_empty() {
        true => BTreeSet::from([ALL_TOPICS.to_owned()]),
        false => query.topics().clone(),
    })
}
