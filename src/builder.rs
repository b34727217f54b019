//! How an embedding program makes a server.

use std::sync::Arc;

use crate::config::{Config, ConfigError};
use crate::http::Response;
use crate::request::Request;
use crate::routes::Routes;
use crate::server::{Server, StartError};
use crate::session::error::HandlerResult;
use crate::session::event_stream::EventStream;
use crate::session::start::Endpoint;
use crate::session::websocket::WebSocket;

impl Server {
    /// A server with the default settings, to be changed and started.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// A server that is not started yet: its settings, and what it serves.
#[derive(Default)]
pub struct Builder {
    config: Config,
    /// The first setting that is wrong.
    error: Option<ConfigError>,
    routes: Routes,
}

impl Builder {
    /// Sets the address to listen on, such as `127.0.0.1:3000`; port 0 lets the system choose.
    pub fn listen(self, address: &str) -> Builder {
        self.configure(|config| config.set_listen(address))
    }

    /// Changes settings. What is wrong with one is the error of [`Builder::start`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use threadcast::Server;
    ///
    /// let builder = Server::builder().configure(|config| {
    ///     config.set_queue(16)?;
    ///     config.set_drain(Duration::from_secs(1))
    /// });
    /// ```
    pub fn configure(
        mut self,
        change: impl FnOnce(&mut Config) -> Result<(), ConfigError>,
    ) -> Builder {
        let result = change(&mut self.config);
        self.error = self.error.or(result.err());
        self
    }

    /// Serves requests of this method for this path. The handler runs in the thread of its connection, and
    /// may block. A path that is built in can be taken. Pages of other origins may not send other methods than
    /// GET and HEAD, unless they are allowed (see [`Config::add_allow_origin`]). The handler of GET serves HEAD as well. Pages of other
    /// origins may read the response if [`Config::add_allow_origin`] names them, or the response's own fields.
    ///
    /// ```
    /// use threadcast::{Response, Server};
    ///
    /// let builder = Server::builder().route("GET", "/hello", |_| Response::text("hello"));
    /// ```
    pub fn route(
        mut self,
        method: &str,
        path: &str,
        handler: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> Builder {
        let here = self.routes.plain.entry(path.to_owned()).or_default();
        here.insert(method.to_owned(), Box::new(handler));
        self
    }

    /// Serves WebSockets at this path. The handler runs in the client's own thread, for as long as the
    /// client is connected, and may block. When it returns, the connection is closed.
    pub fn websocket(
        self,
        path: &str,
        handler: impl Fn(&mut WebSocket) -> HandlerResult + Send + Sync + 'static,
    ) -> Builder {
        self.websocket_with(path, &[], handler)
    }

    /// The same with subprotocols (RFC 6455 section 1.9). The first of `protocols` that a client offers is
    /// agreed on; see [`WebSocket::protocol`].
    pub fn websocket_with(
        mut self,
        path: &str,
        protocols: &'static [&'static str],
        handler: impl Fn(&mut WebSocket) -> HandlerResult + Send + Sync + 'static,
    ) -> Builder {
        let endpoint = Endpoint { protocols, handler: Box::new(handler) };
        self.routes.websockets.insert(path.to_owned(), Arc::new(endpoint));
        self
    }

    /// Serves event streams at this path. The handler runs in the client's own thread, for as long as the
    /// client is connected, and may block. When it returns, the stream ends, after an error without its last
    /// chunk. A stream comes before a plain route of the same path.
    pub fn stream(
        mut self,
        path: &str,
        handler: impl Fn(&mut EventStream) -> HandlerResult + Send + Sync + 'static,
    ) -> Builder {
        self.routes.streams.insert(path.to_owned(), Box::new(handler));
        self
    }

    /// Asks `check` for each request whether it is served: for WebSockets, event streams, plain routes, and
    /// what is built in, but for `/healthz` and OPTIONS. It sees the request's head and the client's address.
    /// The response that it returns otherwise is logged.
    ///
    /// ```
    /// use threadcast::{Response, Server};
    ///
    /// let builder = Server::builder().check(|request| match request.header("X-Key") {
    ///     Some("1") => Ok(()),
    ///     _ => Err(Response::error(403, "no_key", "send the header field X-Key")),
    /// });
    /// ```
    pub fn check(
        mut self,
        check: impl Fn(&Request) -> Result<(), Response> + Send + Sync + 'static,
    ) -> Builder {
        self.routes.check = Some(Box::new(check));
        self
    }

    /// Puts what is built in (`/events`, `/ws`, `/publish`, the page and so on) under a prefix, such as
    /// `/live`.
    pub fn prefix(mut self, prefix: &str) -> Builder {
        self.routes.prefix = prefix.trim_end_matches('/').to_owned();
        self
    }

    /// Serves nothing that is built in.
    pub fn bare(mut self) -> Builder {
        self.routes.is_bare = true;
        self
    }

    /// Listens, and starts the threads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<Server, StartError> {
        if let Some(route) = self.routes.unreachable() {
            return Err(StartError::Route(route));
        }
        match self.error {
            Some(error) => Err(StartError::Config(error)),
            None => Server::start_with(self.config, self.routes),
        }
    }
}
