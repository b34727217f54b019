//! `POST /publish`: one event, or with `application/x-ndjson` one in each line.
//!
//! The connection's thread waits for two things: for the body, until it is here, the client closes, or
//! the time for it is over; and in [`Hub::publish`](crate::hub::Hub::publish) for a broadcaster that is
//! behind.

use std::borrow::Cow;

use serde_json::json;

use super::error::HandlerError;
use super::query::Query;
use crate::app::App;
use crate::auth::access::bearer_token;
use crate::auth::permission::PublishPermission;
use crate::event::members::Members;
use crate::event::{DEFAULT_TOPIC, Draft};
use crate::http::Response;
use crate::hub::Stopped;
use crate::hub::topics::ALL;
use crate::listener::connection::{Connection, Next};

/// The media types of a body with one JSON text in each line. None of them is registered with IANA.
const NDJSON: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

/// Publishes, and responds `{"id":…,"subscribers":N}`, for several events with the id of the last one
/// and `"events":N`.
pub fn serve(app: &App, mut connection: Connection, query: &Query) -> Next {
    let (Ok(response) | Err(response)) = publish(app, &mut connection, query);
    connection.respond(&response)
}

fn publish(app: &App, connection: &mut Connection, query: &Query) -> Result<Response, Response> {
    // All that the head decides comes first: nobody uploads a body that is refused anyway.
    app.origins.check(connection)?;
    let (token, given) = (app.config.token.as_deref(), bearer_token(connection));
    PublishPermission::new(token, app.is_loopback, given).check()?;
    let topic = query.single_topic()?.unwrap_or(DEFAULT_TOPIC);
    let name = query.event.as_deref();
    let coding = connection.header("Content-Encoding").unwrap_or("identity");
    if !coding.eq_ignore_ascii_case("identity") {
        return Err(HandlerError::UnknownCoding.into());
    }
    let is_ndjson = is_ndjson(connection.header("Content-Type").unwrap_or_default());

    let body = connection.read_body(app.config.max_message)?;
    let body = String::from_utf8(body).map_err(|_| HandlerError::NotUtf8)?;
    // All lines are checked before the first is published: either all events are published, or none.
    let drafts = match is_ndjson {
        true => parse_lines(&body, topic, name)?,
        false => vec![draft(topic, name, &body)?],
    };

    let (events, mut last) = (drafts.len(), None);
    for draft in drafts {
        last = Some(app.hub.publish(draft).map_err(|Stopped| Response::draining())?);
    }
    let receipt = last.ok_or(HandlerError::NoEvents)?;
    let mut body = json!({"id": receipt.id.to_string(), "subscribers": receipt.subscribers});
    if is_ndjson {
        body["events"] = events.into();
    }
    Ok(Response::json(200, &body))
}

fn is_ndjson(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    NDJSON.iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// The events of all lines that are not blank.
fn parse_lines(body: &str, topic: &str, name: Option<&str>) -> Result<Vec<Draft>, HandlerError> {
    let lines = body.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            parse_line(line, topic, name)
                .map_err(|error| HandlerError::BadLine(index + 1, Box::new(error)))
        })
        .collect()
}

/// One line: `{"topic":…,"event":…,"data":…}`, the first two optional.
fn parse_line(line: &str, topic: &str, name: Option<&str>) -> Result<Draft, HandlerError> {
    let mut members = Members::parse(line).map_err(|error| match error.is_data() {
        true => bad("no JSON object with \"data\""),
        false => bad(format!("no JSON: {error}")),
    })?;
    if let Some(name) = members.repeated() {
        return Err(bad(format!("the member {name:?} is there twice")));
    }
    take_draft(&mut members, topic, name)
}

/// Takes an event's members out of a JSON object. Without a member of its own the event gets `topic` and
/// `name`. Data that is a string is published as its text, any other JSON byte for byte as it was sent.
pub(super) fn take_draft(
    members: &mut Members,
    topic: &str,
    name: Option<&str>,
) -> Result<Draft, HandlerError> {
    let own_topic = members.take_string("topic").map_err(bad)?;
    let own_name = members.take_string("event").map_err(bad)?;
    let data: Cow<str> = match members.take("data") {
        None => return Err(bad("\"data\" is missing")),
        Some(text) if text.starts_with('"') => {
            let decoded: Result<String, _> = serde_json::from_str(text);
            decoded.map_err(|error| bad(format!("\"data\" is no text: {error}")))?.into()
        }
        Some(json) => json.into(),
    };
    let topic = own_topic.as_deref().unwrap_or(topic);
    if topic == ALL {
        return Err(bad("topic * means all; publish on one"));
    }
    draft(topic, own_name.as_deref().or(name), &data)
}

fn draft(topic: &str, name: Option<&str>, data: &str) -> Result<Draft, HandlerError> {
    Draft::new(topic, name, data).map_err(|error| bad(error.0))
}

fn bad(message: impl Into<String>) -> HandlerError {
    HandlerError::BadEvent(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_name_topic_and_event() {
        let parse = |line| parse_line(line, "t", Some("e"));
        let draft = |topic, name, data| Ok(Draft::new(topic, name, data).unwrap());
        assert_eq!(parse(r#"{"data":"x"}"#), draft("t", Some("e"), "x"));
        assert_eq!(parse(r#"{"data":{"a":[1]}}"#), draft("t", Some("e"), r#"{"a":[1]}"#));
        let line = r#"{"topic":"u","event":"f","data":"two\nlines"}"#;
        assert_eq!(parse(line), draft("u", Some("f"), "two\nlines"));
        for bad in ["", "1", "{}", r#"{"data":"x","topic":1}"#, r#"{"data":"x","event":"a\nb"}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
