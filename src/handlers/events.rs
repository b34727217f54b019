//! `GET /events`: what is published, as an event stream.

use super::query::Query;
use crate::event::topics::ALL_TOPICS;
use crate::session::error::HandlerResult;
use crate::session::event_stream::EventStream;

/// Hands out the events on the topics that the query names, or on all.
pub fn events(stream: &mut EventStream) -> HandlerResult {
    let mut topics = Query::topics_in(stream.query())?;
    if topics.is_empty() {
        topics.insert(ALL_TOPICS.to_owned());
    }
    Ok(stream.follow(topics)?)
}
