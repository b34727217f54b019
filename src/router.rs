//! From a request to its handler.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::door::head::percent_decode;
use crate::http::Response;
use crate::hub::event::check_name;
use crate::hub::{ALL, Topics};
use crate::listener::connection::{Connection, Next};
use crate::websocket::handshake;
use crate::websocket::session::{self, Kind};
use crate::{App, access, assets, origin, publish, sse, stats};

/// The query parameters that any handler understands. Others are ignored, unless they are nearly
/// one of these.
#[derive(Debug, Default)]
pub struct Query {
    topics: BTreeSet<String>,
    /// `event=`: the name of a published event.
    pub event: Option<String>,
    /// `last_event_id=`: for clients that cannot send the header field.
    pub last_event_id: Option<String>,
    /// `ticket=`: for clients that cannot send the subscribe token (see [`access`]).
    pub ticket: Option<String>,
}

impl Query {
    /// Reads the part of a request target behind the `?`.
    ///
    /// # Errors
    /// A topic or event that could not have been published (see [`check_name`]), a parameter that is
    /// nearly one of ours, and percent-encoding that is not UTF-8: two such topics would be one.
    pub fn parse(query: &str) -> Result<Query, Response> {
        let bad = |message: String| Response::error(400, "bad_query", message);
        let mut parsed = Query::default();
        if percent_decode(query).is_some_and(|bytes| std::str::from_utf8(&bytes).is_err()) {
            return Err(bad("the query holds percent-encoding that is not UTF-8".into()));
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "topic" => {
                    check_name("topic", &value).map_err(|why| bad(why.0))?;
                    parsed.topics.insert(value.into_owned());
                }
                "event" => {
                    check_name("event", &value).map_err(|why| bad(why.0))?;
                    parsed.event = Some(value.into_owned());
                }
                // Polyfills of EventSource have each their own name for it.
                "last_event_id" | "lastEventId" | "last-event-id" => {
                    parsed.last_event_id = Some(value.into_owned());
                }
                "ticket" => parsed.ticket = Some(value.into_owned()),
                unknown => {
                    if let Some(meant) = nearly(unknown) {
                        let message = format!("there is no parameter {unknown:?}; use {meant}=");
                        return Err(bad(message));
                    }
                }
            }
        }
        Ok(parsed)
    }

    /// The topics asked for, if any were; `*` asks for all.
    pub fn topics(&self) -> Option<Topics> {
        (!self.topics.is_empty()).then(|| Topics::asked_for(&self.topics))
    }

    /// Their names, as they were asked for.
    pub fn topic_names(&self) -> &BTreeSet<String> {
        &self.topics
    }

    /// The topics asked for, or all.
    pub fn topics_or_all(&self) -> Topics {
        self.topics().unwrap_or(Topics::All)
    }

    /// The one topic to publish on, if it was named.
    ///
    /// # Errors
    /// Where several were, or the name is reserved.
    pub fn single_topic(&self) -> Result<Option<&str>, Response> {
        let bad = |message| Err(Response::error(400, "bad_query", message));
        match self.topics.len() {
            0 | 1 if self.topics.contains(ALL) => bad("topic * means all; publish on one"),
            0 | 1 => Ok(self.topics.first().map(String::as_str)),
            _ => bad("an event has one topic; name it once"),
        }
    }
}

/// The parameter that somebody means who writes `name`. Ignored, it would mean "all topics".
fn nearly(name: &str) -> Option<&'static str> {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match letters.to_ascii_lowercase().as_str() {
        "topic" | "topics" | "channel" | "channels" => Some("topic"),
        "event" | "events" | "eventname" => Some("event"),
        "lasteventid" | "lastid" => Some("last_event_id"),
        "ticket" | "tickets" => Some("ticket"),
        _ => None,
    }
}

/// Serves one request, in its own thread.
pub fn route(app: &Arc<App>, mut connection: Connection) -> Next {
    let path = connection.head().target.split('?').next().unwrap_or_default().to_owned();
    // Before anything is answered: an error, too, says which pages of other origins may read it.
    set_fields(app, &mut connection, &path);
    // Whatever is wrong with the request to come, or with the server: a page sees nothing of it
    // where the preflight fails. Proxies that check by OPTIONS must see that the server is draining.
    let is_preflight = connection.header("Access-Control-Request-Method").is_some();
    if connection.method() == "OPTIONS" && (is_preflight || !app.is_draining()) {
        return serve_options(app, connection, &path);
    }
    let query = match admit(app, &connection, &path) {
        Ok(query) => query,
        Err(response) => return refuse(app, connection, response),
    };
    match (&*path, connection.method()) {
        ("/ws" | "/ws/", _) => websocket(app, connection, Kind::Client, &query),
        ("/echo", _) => websocket(app, connection, Kind::Echo, &query),
        ("/", _) if handshake::is_asked_for(&connection) => {
            websocket(app, connection, Kind::Client, &query)
        }
        ("/events", "GET") => sse::serve(app, connection, &query),
        ("/publish", "POST") => publish::serve(app, connection, &query),
        ("/ticket", "POST") => access::serve(app, connection),
        _ => serve_plainly(app, connection, &path),
    }
}

fn set_fields(app: &App, connection: &mut Connection, path: &str) {
    let is_public = match path {
        "/events" | "/stats" => app.access.is_public(),
        "/publish" | "/ticket" => false,
        _ => return,
    };
    let fields = app.origins.cors(connection.head(), is_public);
    connection.set_fields(fields);
}

/// The query of a request that may go on, or the response to one that may not, whatever serves it.
// Not inlined, as the two below: what is left of these would be in the frame below every client's,
// and a page more of each idle one's stack resident.
#[inline(never)]
fn admit(app: &App, connection: &Connection, path: &str) -> Result<Query, Response> {
    let query = connection.head().target.split_once('?').map_or("", |(_, query)| query);
    let query = match Query::parse(query) {
        // The query of a page is the page's.
        Err(_) if !is_endpoint(path) && !handshake::is_asked_for(connection) => Query::default(),
        query => query?,
    };
    if app.is_draining() && path != "/healthz" {
        return Err(draining());
    }
    let method = connection.method();
    let has_websocket = path == "/" || is_websocket(path);
    if method == "GET" && !has_websocket && handshake::is_attempted(connection) {
        let message = "there is no WebSocket here; connect to /ws";
        return Err(Response::error(404, "not_found", message));
    }
    // What shows events or clients; WebSockets have a check of their own. `/healthz`, `/metrics` and
    // the page stay open: they hold sums and files, nothing of any client.
    if matches!(method, "GET" | "HEAD") && matches!(path, "/events" | "/stats") {
        app.access.check(connection, &query)?;
    }
    if (path, method) == ("/events", "GET") && connection.has_body() {
        return Err(Response::error(400, "unexpected_body", "GET /events takes no body"));
    }
    Ok(query)
}

/// Responds to what is refused whatever it asks for. Handshakes are logged.
#[inline(never)]
fn refuse(app: &App, connection: Connection, response: Response) -> Next {
    if handshake::is_asked_for(&connection) {
        return app.refusals.respond(connection, &response);
    }
    // To an `EventSource` a close without a response is a network error, after which it comes back.
    if app.is_draining() && connection.head().wants_event_stream() {
        return connection.close();
    }
    connection.respond(&response)
}

/// Responds to what needs no body, and keeps no thread.
#[inline(never)]
fn serve_plainly(app: &App, connection: Connection, path: &str) -> Next {
    let is_read = matches!(connection.method(), "GET" | "HEAD");
    let response = match path {
        "/publish" | "/ticket" => method_not_allowed(allowed_methods(path)),
        "/events" if is_read => sse::head(connection.coding()),
        "/healthz" if is_read => health(app),
        "/metrics" if is_read => stats::metrics(app),
        "/stats" if is_read => stats::stats(app, stats::may_list_clients(app, &connection)),
        _ if is_read => app.assets.answer(connection.head()),
        _ if is_endpoint(path) || app.assets.has(path) => method_not_allowed(allowed_methods(path)),
        _ => assets::not_found(),
    };
    connection.respond(&response)
}

/// Responds to OPTIONS.
#[inline(never)]
fn serve_options(app: &App, connection: Connection, path: &str) -> Next {
    let response = options(app, &connection, path);
    connection.respond(&response)
}

/// What may be done with a path, and by which pages of other origins.
fn options(app: &App, connection: &Connection, path: &str) -> Response {
    let methods = allowed_methods(path);
    // Who may not post is told before the browser sends anything.
    if matches!(path, "/publish" | "/ticket")
        && let Err(answer) = app.origins.check(connection)
    {
        return answer;
    }
    let answer = Response::empty(204).with("Allow", methods);
    match connection.header("Access-Control-Request-Method") {
        Some(_) => origin::preflight(answer, connection.head(), methods),
        None => answer,
    }
}

fn websocket(app: &Arc<App>, connection: Connection, kind: Kind, query: &Query) -> Next {
    match app.origins.check(&connection).and_then(|_| app.access.check(&connection, query)) {
        Ok(()) => session::start(app, connection, kind, query),
        Err(answer) => app.refusals.respond(connection, &answer),
    }
}

/// Whether a path is a WebSocket's, but for `/`, which is also the page's.
fn is_websocket(path: &str) -> bool {
    matches!(path, "/ws" | "/ws/" | "/echo")
}

/// Whether a path is one of the contract's own, and no file.
fn is_endpoint(path: &str) -> bool {
    let plain = ["/events", "/publish", "/ticket", "/healthz", "/metrics", "/stats"];
    is_websocket(path) || plain.contains(&path)
}

/// What `Allow` says of a path (RFC 9110 section 10.2.1), also of one that leads nowhere: HAProxy's
/// check asks for any.
fn allowed_methods(path: &str) -> &'static str {
    match path {
        "/publish" | "/ticket" => "POST, OPTIONS",
        "/ws" | "/ws/" | "/echo" => "GET, OPTIONS",
        "*" => "GET, HEAD, POST, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    }
}

fn method_not_allowed(allow: &'static str) -> Response {
    let message = format!("use {allow}");
    Response::error(405, "method_not_allowed", message).with("Allow", allow)
}

/// The answer to whoever comes while the server shuts down.
pub fn draining() -> Response {
    Response::error(503, "draining", "the server is shutting down; connect again later")
        .with("Retry-After", "1")
}

fn health(app: &App) -> Response {
    match app.is_draining() {
        true => draining(),
        false => Response::json(200, &serde_json::json!({"status": "ok"})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_decoded_and_deduplicated() {
        let query = Query::parse("topic=a&topic=b%20c&topic=a&x=1&event=e").unwrap();
        assert_eq!(query.topics(), Some(Topics::named(["a", "b c"])));
        assert_eq!(query.event.as_deref(), Some("e"));
        assert_eq!(Query::parse("").unwrap().topics(), None);
        assert_eq!(Query::parse("topic=a&topic=*").unwrap().topics(), Some(Topics::All));
    }

    #[test]
    fn a_publisher_names_one_topic() {
        let single = |query| {
            let query = Query::parse(query).unwrap();
            query.single_topic().map(|topic| topic.map(str::to_owned)).map_err(|_| ())
        };
        assert_eq!(single(""), Ok(None));
        assert_eq!(single("topic=a"), Ok(Some("a".to_owned())));
        assert_eq!(single("topic=a&topic=b"), Err(()));
        assert_eq!(single("topic=*"), Err(()));
    }

    #[test]
    fn what_is_nearly_a_parameter_is_refused() {
        for bad in ["topics=a", "Topic=a", "topic[]=a", "channel=a", "eventName=a", "topic=caf%E9"]
        {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        for (name, id) in [("last_event_id", "1-0"), ("lastEventId", "1-1"), ("last-event-id", "x")]
        {
            let query = Query::parse(&format!("{name}={id}&_=17&access_token=x")).unwrap();
            assert_eq!(query.last_event_id.as_deref(), Some(id));
        }
        assert!(Query::parse("topic=caf%C3%A9").is_ok());
    }

    #[test]
    fn line_breaks_in_names_are_refused() {
        assert!(Query::parse("topic=a%0Ab").is_err());
        assert!(Query::parse("event=a%0Db").is_err());
        assert!(Query::parse("topic=").is_err());
    }
}
