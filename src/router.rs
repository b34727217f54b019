//! From a request to its handler.
//!
//! [`Router::route`] runs in the thread that the listener has started for the request, and waits for nothing
//! itself; its handlers do. First come the steps that all requests share: the CORS fields, OPTIONS, and
//! what is refused whatever it asks for.

use std::borrow::Cow;
use std::sync::Arc;

use crate::app::App;
use crate::auth::origin;
#[cfg(feature = "page")]
use crate::handlers::lab::{self, Lab};
#[cfg(feature = "metrics")]
use crate::handlers::metrics;
use crate::handlers::query::Query;
#[cfg(feature = "page")]
use crate::handlers::threads::{self, Threads};
use crate::handlers::{commands, events, history, publish, stats, ticket, websockets};
use crate::http::Response;
use crate::listener::connection::{Connection, Next};
use crate::request::Request;
use crate::routes::Routes;
#[cfg(feature = "page")]
use crate::session::event_stream::StreamHandler;
use crate::session::start::{Endpoint, start};
use crate::session::{event_stream, handshake};

/// Finds the handler of each request.
pub struct Router {
    app: Arc<App>,
    routes: Routes,
    ws: Arc<Endpoint>,
    echo: Arc<Endpoint>,
    #[cfg(feature = "page")]
    threads: Box<StreamHandler>,
    #[cfg(feature = "page")]
    lab: Option<Lab>,
}

impl Router {
    /// Serves `routes` and what is built in.
    pub fn new(app: &Arc<App>, routes: Routes) -> Router {
        let ws = Endpoint { protocols: &[commands::PROTOCOL], handler: Box::new(websockets::ws) };
        let echo = Endpoint { protocols: &[], handler: Box::new(websockets::echo) };
        #[cfg(feature = "page")]
        let prefix = routes.prefix.clone();
        Router {
            app: Arc::clone(app),
            routes,
            ws: Arc::new(ws),
            echo: Arc::new(echo),
            #[cfg(feature = "page")]
            threads: Threads::new(app).handler(),
            #[cfg(feature = "page")]
            lab: Lab::new(app, &prefix),
        }
    }

    /// Serves one request.
    pub fn route(&self, mut connection: Connection) -> Next {
        let app = &self.app;
        let path = connection.head().path().to_owned();
        // The program's own routes first: they may take the place of what is built in.
        if self.routes.has(&path) {
            return self.serve_own(connection, &path);
        }
        let Some(path) = self.routes.builtin(&path) else {
            return connection.respond(&Response::not_found());
        };
        // Before any response: errors, too, say which pages of other origins may read them.
        set_fields(app, &mut connection, path);
        // A preflight is always answered: if it failed, the page would not learn what is wrong with the
        // request itself. Any other OPTIONS is a proxy's check, which must see that the server is draining.
        let is_preflight = connection.header("Access-Control-Request-Method").is_some();
        if connection.method() == "OPTIONS" && (is_preflight || !app.is_draining()) {
            return serve_options(app, connection, path);
        }
        // Before a ticket is used up. Whoever watches the server's health is no client.
        let connection = match self.check(connection, path == "/healthz") {
            Ok(connection) => connection,
            Err(next) => return next,
        };
        let query = match admit(app, &connection, path) {
            Ok(query) => query,
            Err(response) => return refuse(app, connection, response),
        };
        #[cfg(feature = "page")]
        if let Some(lab) = &self.lab
            && matches!(path, "/lab" | "/lab/stream")
            && matches!(connection.method(), "GET" | "HEAD")
        {
            return self.lab(lab, connection, path, &query);
        }
        match (path, connection.method()) {
            ("/ws" | "/ws/", _) => self.websocket(connection, &self.ws, &query),
            ("/echo", _) => self.websocket(connection, &self.echo, &query),
            ("/", _) if handshake::is_asked_for(&connection) => {
                self.websocket(connection, &self.ws, &query)
            }
            ("/events", "GET" | "HEAD") => {
                // It would stay in memory as long as the client.
                drop(query);
                event_stream::serve(app, &app.hub, connection, &events::events)
            }
            #[cfg(feature = "page")]
            ("/threads", "GET" | "HEAD") => {
                drop(query);
                self.threads(connection)
            }
            ("/publish", "POST") => publish::serve(app, connection, &query),
            ("/ticket", "POST") => ticket::serve(app, connection),
            _ => serve_plainly(app, connection, path),
        }
    }

    /// Asks the program whether this client is served, unless the request is free of that. The error is what
    /// becomes of the connection.
    #[inline(never)]
    fn check(&self, connection: Connection, is_free: bool) -> Result<Connection, Next> {
        let Some(check) = self.routes.check.as_ref().filter(|_| !is_free) else {
            return Ok(connection);
        };
        let request = Request::new(connection, self.app.config.max_message);
        let result = check(&request);
        let connection = request.into_connection();
        match result {
            Ok(()) => Ok(connection),
            Err(response) => Err(self.app.refusals.respond(connection, &response)),
        }
    }

    fn websocket(&self, connection: Connection, endpoint: &Arc<Endpoint>, query: &Query) -> Next {
        let (app, ticket) = (&self.app, query.ticket.as_deref());
        // The origin first: a refused page must not use a ticket up.
        match app.origins.check(&connection).and_then(|()| app.access.check(&connection, ticket)) {
            Ok(()) => start(app, connection, endpoint),
            Err(error) => app.refusals.respond(connection, &error.into()),
        }
    }

    /// Serves a viewer of the threads.
    #[cfg(feature = "page")]
    #[inline(never)]
    fn threads(&self, connection: Connection) -> Next {
        let app = &self.app;
        if let Err(error) = threads::check(app, &connection) {
            return connection.respond(&error.into());
        }
        event_stream::serve(app, &app.hub, connection, &self.threads)
    }

    /// Serves whoever experiments: under the same conditions as who sees the threads.
    #[cfg(feature = "page")]
    #[inline(never)]
    fn lab(&self, lab: &Lab, connection: Connection, path: &str, query: &Query) -> Next {
        let app = &self.app;
        if let Err(error) = threads::check(app, &connection) {
            return app.refusals.respond(connection, &error.into());
        }
        if path == "/lab" {
            return self.websocket(connection, lab.endpoint(), query);
        }
        if let Err(error) = app.access.check(&connection, query.ticket.as_deref()) {
            return connection.respond(&error.into());
        }
        match lab.hub(connection.head().query().unwrap_or_default()) {
            Some(hub) => event_stream::serve(app, hub, connection, &lab::stream),
            None => {
                let message = "use fanout=direct or fanout=handoff";
                connection.respond(&Response::error(400, "bad_query", message))
            }
        }
    }

    /// Serves a route of the embedding program.
    #[inline(never)]
    fn serve_own(&self, mut connection: Connection, path: &str) -> Next {
        let (app, routes) = (&self.app, &self.routes);
        // A stream is as public as `/events`. What a plain route says is not for pages of other origins, unless
        // they are allowed, or its own response allows them.
        let is_public = routes.streams.contains_key(path) && app.access.is_public();
        connection.set_fields(app.origins.cors(connection.head(), is_public));
        // The query is the program's own, but for a ticket.
        let query = Query::parse(connection.head().query().unwrap_or_default()).unwrap_or_default();
        if app.is_draining() {
            return refuse(app, connection, Response::draining());
        }
        if connection.method() == "OPTIONS" {
            let allow = routes.allowed_methods(path);
            let response = Response::empty(204).with("Allow", allow.clone());
            let response = match connection.header("Access-Control-Request-Method") {
                Some(_) => origin::preflight(response, connection.head(), allow),
                None => response,
            };
            return connection.respond(&response);
        }
        let connection = match self.check(connection, false) {
            Ok(connection) => connection,
            Err(next) => return next,
        };
        let websocket = routes.websockets.get(path);
        if let Some(endpoint) = websocket.filter(|_| handshake::is_asked_for(&connection)) {
            return self.websocket(connection, endpoint, &query);
        }
        if let Some(handler) = routes.streams.get(path)
            && matches!(connection.method(), "GET" | "HEAD")
        {
            if let Err(error) = app.access.check(&connection, query.ticket.as_deref()) {
                return connection.respond(&error.into());
            }
            return event_stream::serve(app, &app.hub, connection, handler);
        }
        match (routes.plain(connection.method(), path), websocket) {
            (Some(handler), _) => {
                // A browser lets any page post: only those of allowed origins may change something here.
                let is_safe = matches!(connection.method(), "GET" | "HEAD");
                if !is_safe && let Err(error) = app.origins.check(&connection) {
                    return app.refusals.respond(connection, &error.into());
                }
                let mut request = Request::new(connection, app.config.max_message);
                let response = handler(&mut request);
                request.respond(&response)
            }
            // The response says what to connect with.
            (None, Some(endpoint)) if connection.method() == "GET" => {
                self.websocket(connection, endpoint, &query)
            }
            _ => connection.respond(&method_not_allowed(routes.allowed_methods(path))),
        }
    }
}

/// Sets the CORS fields of an endpoint's responses. Files of the page have none.
fn set_fields(app: &App, connection: &mut Connection, path: &str) {
    let is_public = match path {
        "/events" | "/history" | "/stats" => app.access.is_public(),
        "/publish" | "/ticket" => false,
        _ => return,
    };
    let fields = app.origins.cors(connection.head(), is_public);
    connection.set_fields(fields);
}

/// The checks that do not depend on the handler. Returns the request's query.
///
/// # Errors
/// The response to a request that is refused.
// Not inlined, nor are the three below: `route` is below every client's frames, so its own must be
// small. Inlined, they cost each idle client another resident page of stack.
#[inline(never)]
fn admit(app: &App, connection: &Connection, path: &str) -> Result<Query, Response> {
    let query = match Query::parse(connection.head().query().unwrap_or_default()) {
        // The query of the page and its files is not for the server.
        Err(_) if !is_endpoint(path) && !handshake::is_asked_for(connection) => Query::default(),
        query => query?,
    };
    // `/healthz` reports the draining itself.
    if app.is_draining() && path != "/healthz" {
        return Err(Response::draining());
    }
    // Without this, a client that misspells `/ws` would get the page's 404, which does not help it.
    let method = connection.method();
    let has_lab = path == "/lab" && app.config.demo;
    let has_websocket = path == "/" || is_websocket(path) || has_lab;
    if method == "GET" && !has_websocket && handshake::is_attempted(connection) {
        let message = "there is no WebSocket here; connect to /ws";
        return Err(Response::error(404, "not_found", message));
    }
    // Reading events, or about clients, takes the subscribe token; WebSockets are checked in
    // `websocket`. `/healthz`, `/metrics` and the page are public: they show sums and files, and nothing
    // about a client.
    if matches!(method, "GET" | "HEAD")
        && matches!(path, "/events" | "/history" | "/stats" | "/threads")
    {
        app.access.check(connection, query.ticket.as_deref())?;
    }
    // Nobody would read it: an event stream's socket is only written.
    if matches!((path, method), ("/events" | "/threads" | "/lab/stream", "GET"))
        && connection.has_body()
    {
        let message = format!("GET {path} takes no body");
        return Err(Response::error(400, "unexpected_body", message));
    }
    Ok(query)
}

/// Responds to a request that [`admit`] refuses. Refused handshakes are logged.
#[inline(never)]
fn refuse(app: &App, connection: Connection, response: Response) -> Next {
    if handshake::is_asked_for(&connection) {
        return app.refusals.respond(connection, &response);
    }
    // For an `EventSource` a close without a response is a network error, after which it reconnects. A
    // 503 would end it for good.
    if app.is_draining() && connection.head().wants_event_stream() {
        return connection.close();
    }
    connection.respond(&response)
}

/// Responds to requests whose response is complete at once.
#[inline(never)]
fn serve_plainly(app: &App, connection: Connection, path: &str) -> Next {
    let is_read = matches!(connection.method(), "GET" | "HEAD");
    let response = match path {
        "/publish" | "/ticket" => method_not_allowed(allowed_methods(path)),
        "/history" if is_read => {
            history::history(app, connection.head().query().unwrap_or_default())
        }
        "/healthz" if is_read => health(app),
        #[cfg(feature = "metrics")]
        "/metrics" if is_read => metrics::metrics(app),
        "/stats" if is_read => stats::stats(app, stats::may_list_clients(app, &connection)),
        #[cfg(feature = "page")]
        _ if is_read => app.assets.respond(path, connection.head()),
        // Other methods: 405 where there is something to read, 404 where there is nothing.
        _ if is_endpoint(path) => method_not_allowed(allowed_methods(path)),
        #[cfg(feature = "page")]
        _ if app.assets.has(path) => method_not_allowed(allowed_methods(path)),
        _ => Response::not_found(),
    };
    connection.respond(&response)
}

/// Responds to OPTIONS.
#[inline(never)]
fn serve_options(app: &App, connection: Connection, path: &str) -> Next {
    let (Ok(response) | Err(response)) = options(app, &connection, path);
    connection.respond(&response)
}

/// Which methods a path has, and which pages of other origins may use them.
fn options(app: &App, connection: &Connection, path: &str) -> Result<Response, Response> {
    // A page that may not post is refused before its browser sends the body.
    if matches!(path, "/publish" | "/ticket") {
        app.origins.check(connection)?;
    }
    let methods = allowed_methods(path);
    let response = Response::empty(204).with("Allow", methods);
    Ok(match connection.header("Access-Control-Request-Method") {
        Some(_) => origin::preflight(response, connection.head(), methods),
        None => response,
    })
}

/// Whether a path is only a WebSocket's. `/` is the page's as well.
fn is_websocket(path: &str) -> bool {
    matches!(path, "/ws" | "/ws/" | "/echo")
}

/// Whether a path is an endpoint of the contract, and no file.
fn is_endpoint(path: &str) -> bool {
    let plain = ["/events", "/history", "/publish", "/ticket", "/healthz", "/stats"];
    is_websocket(path)
        || plain.contains(&path)
        || cfg!(feature = "metrics") && path == "/metrics"
        || cfg!(feature = "page") && path == "/threads"
}

/// The methods of a path, for `Allow` (RFC 9110 section 10.2.1). A path that leads nowhere has some as
/// well, since HAProxy's check sends OPTIONS for any path.
fn allowed_methods(path: &str) -> &'static str {
    match path {
        "/publish" | "/ticket" => "POST, OPTIONS",
        "/ws" | "/ws/" | "/echo" => "GET, OPTIONS",
        "*" => "GET, HEAD, POST, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    }
}

fn method_not_allowed(allow: impl Into<Cow<'static, str>>) -> Response {
    let allow = allow.into();
    let message = format!("use {allow}");
    Response::error(405, "method_not_allowed", message).with("Allow", allow)
}

fn health(app: &App) -> Response {
    if app.is_draining() {
        return Response::draining();
    }
    // Clients are served on while nothing can be published: no reason to take them elsewhere.
    let body = match app.hub.store_status().problem {
        None => serde_json::json!({"status": "ok"}),
        Some(problem) => serde_json::json!({"status": "degraded", "store": problem}),
    };
    Response::json(200, &body)
}
