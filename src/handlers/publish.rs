//! `POST /publish`: one event, or with `application/x-ndjson` one in each line.
//!
//! The connection's thread waits for two things: for the body, until it is here, the client closes, or
//! the time for it is over; and in [`Hub::publish`](crate::hub::Hub::publish) for a broadcaster that is
//! behind.

use serde_json::json;

use super::error::HandlerError;
use super::query::Query;
use crate::app::App;
use crate::auth::access::bearer_token;
use crate::auth::permission::PublishPermission;
use crate::event::Draft;
use crate::event::draft::{DEFAULT_TOPIC, MAX_KEY, check_text};
use crate::http::Response;
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
    PublishPermission::new(token, app.is_loopback(), given).check()?;
    let topic = query.single_topic()?.unwrap_or(DEFAULT_TOPIC);
    let name = query.event.as_deref();
    let coding = connection.header("Content-Encoding").unwrap_or("identity");
    if !coding.eq_ignore_ascii_case("identity") {
        return Err(HandlerError::UnknownCoding.into());
    }
    let is_ndjson = is_ndjson(connection.header("Content-Type").unwrap_or_default());
    let key = connection.header("Idempotency-Key").map(parse_key).transpose()?;

    let body = connection.read_body(app.config.max_message)?;
    let body = String::from_utf8(body).map_err(|_| HandlerError::NotUtf8)?;
    // All lines are checked before the first is published: either all events are published, or none.
    let mut drafts = match is_ndjson {
        true => parse_lines(&body, topic, name)?,
        false => vec![Draft::new(topic, name, &body).map_err(HandlerError::BadEvent)?],
    };

    if let Some(key) = key {
        set_keys(&mut drafts, &key);
    }
    let events = drafts.len();
    let receipt = app.hub.publish_all(drafts).map_err(HandlerError::NotPublished)?;
    let receipt = receipt.ok_or(HandlerError::NoEvents)?;
    let mut body = json!({"id": receipt.id.to_string(), "subscribers": receipt.subscribers});
    if is_ndjson {
        body["events"] = events.into();
    }
    Ok(Response::json(200, &body))
}

/// The key in an `Idempotency-Key` field: a string in quotes, as the draft has it, or as many send it, bare.
fn parse_key(field: &str) -> Result<String, HandlerError> {
    let quoted = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let key = quoted.unwrap_or(field);
    check_text("the key", key, MAX_KEY).map_err(HandlerError::BadKey)?;
    Ok(key.to_owned())
}

/// Gives the key of a request to its events: in several lines each gets one of its own, unless it has one.
fn set_keys(drafts: &mut [Draft], key: &str) {
    let is_single = drafts.len() == 1;
    for (index, draft) in drafts.iter_mut().enumerate().filter(|(_, draft)| draft.key().is_none()) {
        draft.set_key(if is_single { key.to_owned() } else { format!("{key} line {index}") });
    }
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
            Draft::from_line(line, topic, name)
                .map_err(|error| HandlerError::BadLine(index + 1, error))
        })
        .collect()
}
