//! From a request to its handler.

use std::sync::Arc;

use crate::app::App;
use crate::assets;
use crate::auth::origin;
use crate::handlers::query::Query;
use crate::handlers::websocket::handshake;
use crate::handlers::websocket::session::Kind;
use crate::handlers::websocket::start::start;
use crate::handlers::{publish, sse, stats, ticket};
use crate::http::Response;
use crate::listener::connection::{Connection, Next};

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
        ("/ticket", "POST") => ticket::serve(app, connection),
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
        return Err(Response::draining());
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
        app.access.check(connection, query.ticket.as_deref())?;
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
        _ if is_read => app.assets.respond(connection.head()),
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
    let ticket = query.ticket.as_deref();
    match app.origins.check(&connection).and_then(|_| app.access.check(&connection, ticket)) {
        Ok(()) => start(app, connection, kind, query),
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

fn health(app: &App) -> Response {
    match app.is_draining() {
        true => Response::draining(),
        false => Response::json(200, &serde_json::json!({"status": "ok"})),
    }
}
