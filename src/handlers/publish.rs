//! `POST /publish`: one event, or with `application/x-ndjson` one a line.

use std::borrow::Cow;

use serde_json::json;

use crate::app::App;
use crate::auth::access::sends_bearer;
use crate::event::members::Members;
use crate::event::{DEFAULT_TOPIC, Draft};
use crate::handlers::query::Query;
use crate::http::Response;
use crate::hub::Stopped;
use crate::hub::topics::ALL;
use crate::listener::connection::{Connection, Next};

/// The names under which a body of one JSON text a line is sent. None is registered.
const NDJSON: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

/// Serves the request: checks who asks, reads the body, publishes, and answers
/// `{"id":…,"subscribers":N}` (of the last event, with `"events":N`, for several).
pub fn serve(app: &App, connection: Connection, query: &Query) -> Next {
    app.origins.serve_post(connection, |connection| accept(app, connection, query))
}

fn accept(app: &App, connection: &mut Connection, query: &Query) -> Result<Response, Response> {
    authorise(app, connection)?;
    let topic = query.single_topic()?.unwrap_or(DEFAULT_TOPIC).to_owned();
    let coding = connection.header("Content-Encoding").unwrap_or("identity");
    if !coding.eq_ignore_ascii_case("identity") {
        let message = "send the body as it is, without Content-Encoding";
        return Err(Response::error(415, "unknown_coding", message));
    }
    let limit = app.config.max_message;
    let body = String::from_utf8(connection.read_body(limit)?)
        .map_err(|_| Response::error(400, "not_utf8", "events are text; send UTF-8"))?;
    let content_type = connection.header("Content-Type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if NDJSON.iter().any(|known| media_type.eq_ignore_ascii_case(known)) {
        return publish_lines(app, &body, &topic, query.event.as_deref());
    }
    let draft = Draft::new(&topic, query.event.as_deref(), &body)
        .map_err(|why| Response::error(400, "bad_event", why.0))?;
    let receipt = app.hub.publish(draft).map_err(|Stopped| Response::draining())?;
    let answer = json!({"id": receipt.id.to_string(), "subscribers": receipt.subscribers});
    Ok(Response::json(200, &answer))
}

/// All lines are checked before the first is published: either all are, or none.
fn publish_lines(
    app: &App,
    body: &str,
    topic: &str,
    name: Option<&str>,
) -> Result<Response, Response> {
    let mut drafts = Vec::new();
    for (number, line) in body.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let draft = parse_line(line, topic, name).map_err(|why| {
            Response::error(400, "bad_line", format!("line {}: {why}", number + 1))
        })?;
        drafts.push(draft);
    }
    let events = drafts.len();
    let receipts: Result<Vec<_>, _> =
        drafts.into_iter().map(|draft| app.hub.publish(draft)).collect();
    let receipts = receipts.map_err(|Stopped| Response::draining())?;
    let Some(last) = receipts.last() else {
        return Err(Response::error(400, "no_events", "the body holds no lines"));
    };
    let answer =
        json!({"id": last.id.to_string(), "subscribers": last.subscribers, "events": events});
    Ok(Response::json(200, &answer))
}

/// One line: `{"topic":…,"event":…,"data":…}`, the first two optional.
fn parse_line(line: &str, topic: &str, name: Option<&str>) -> Result<Draft, String> {
    let mut members = Members::parse(line).map_err(|error| match error.is_data() {
        true => "no JSON object with \"data\"".to_owned(),
        false => format!("no JSON: {error}"),
    })?;
    if let Some(name) = members.repeated() {
        return Err(format!("the member {name:?} is there twice"));
    }
    take_draft(&mut members, topic, name)
}

/// Takes an event's members out of a JSON object; `topic` and `name` are what it has where it
/// names none. Data that is a string is published as it is, anything else as its JSON: the very
/// bytes that were sent.
pub(crate) fn take_draft(
    members: &mut Members,
    topic: &str,
    name: Option<&str>,
) -> Result<Draft, String> {
    let own_topic = members.take_string("topic")?;
    let own_name = members.take_string("event")?;
    let data: Cow<str> = match members.take("data") {
        None => return Err("\"data\" is missing".to_owned()),
        Some(text) if text.starts_with('"') => {
            let decoded: Result<String, _> = serde_json::from_str(text);
            decoded.map_err(|error| format!("\"data\" is no text: {error}"))?.into()
        }
        Some(json) => json.into(),
    };
    let topic = own_topic.as_deref().unwrap_or(topic);
    if topic == ALL {
        return Err("topic * means all; publish on one".to_owned());
    }
    Draft::new(topic, own_name.as_deref().or(name), &data).map_err(|why| why.0)
}

/// Who may publish: with a token those who know it, without one those on this machine.
///
/// # Errors
/// 401 or 403, with the reason.
fn authorise(app: &App, connection: &Connection) -> Result<(), Response> {
    match permission(app, |token| sends_bearer(connection, token)) {
        PublishPermission::Granted => Ok(()),
        PublishPermission::OnlyFromLoopback => {
            Err(Response::error(403, "forbidden", ONLY_FROM_LOOPBACK))
        }
        PublishPermission::TokenMissing => {
            let message = "send 'Authorization: Bearer' with the server's token";
            Err(Response::error(401, "unauthorized", message).with("WWW-Authenticate", "Bearer"))
        }
    }
}

/// Whether somebody may publish. The address that counts is the one the server listens on; who
/// a client says it is, or a proxy says, decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishPermission {
    /// Yes.
    Granted,
    /// Not without the server's token.
    TokenMissing,
    /// Nobody may: see [`ONLY_FROM_LOOPBACK`].
    OnlyFromLoopback,
}

/// What [`PublishPermission::OnlyFromLoopback`] means.
pub const ONLY_FROM_LOOPBACK: &str =
    "publishing needs --token unless the server listens on loopback only";

/// The permission of somebody of whom `has_token` tells whether they know the server's token.
pub fn permission(app: &App, has_token: impl FnOnce(&str) -> bool) -> PublishPermission {
    match &app.config.token {
        Some(token) if has_token(token) => PublishPermission::Granted,
        Some(_) => PublishPermission::TokenMissing,
        None if app.is_loopback => PublishPermission::Granted,
        None => PublishPermission::OnlyFromLoopback,
    }
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
