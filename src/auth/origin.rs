//! Which web pages may connect and publish, and what pages of other origins may read.
//!
//! A browser lets any page open a WebSocket to any server and post to it, and names the page in the
//! `Origin` header field. A page cannot forge this field, so checking it protects (RFC 6455 section
//! 10.2). Programs send none.
//!
//! A browser shows the response to a page of another origin only if the response allows that, and it
//! asks in a request of its own, a preflight, before it sends anything unusual (CORS: WHATWG Fetch
//! section 3.3). All of these fields are decided here: [`Origins::cors`] and [`preflight`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::error::AuthError;
use crate::http::forwarded::Proxies;
use crate::http::head::{Head, is_token};
use crate::http::origin::{default_port, normalized_origin};
use crate::http::{Field, Response};
use crate::listener::connection::Connection;

/// How many refused origins are warned of. Somebody who makes origins up cannot fill the log.
const MAX_WARNINGS: usize = 100;

/// The longest origin that is warned of, in bytes: a host's name has 253 at most.
const MAX_ORIGIN: usize = 300;

/// How long a browser may reuse the response to a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// The most bytes of `Access-Control-Request-Headers` that are repeated to a browser.
const MAX_REQUESTED_BYTES: usize = 1024;

/// The origins allowed besides the server's own.
#[derive(Debug)]
pub struct Origins {
    allowed: Vec<String>,
    /// The proxies whose word about the host that a client used counts.
    proxies: Proxies,
    /// The refused origins that the log has named, each once.
    warned: Mutex<BTreeSet<String>>,
}

impl Origins {
    /// `allowed` as in [`crate::Config::add_allow_origin`].
    pub fn new(allowed: Vec<String>, proxies: Proxies) -> Origins {
        Origins { allowed, proxies, warned: Mutex::default() }
    }

    /// Whether a request comes from a program, or from a page of the server's own host or of an
    /// allowed origin.
    pub fn permit(&self, connection: &Connection) -> bool {
        self.stranger(connection).is_none()
    }

    /// The same, with a warning in the log where the request is refused.
    ///
    /// # Errors
    /// [`AuthError::ForbiddenOrigin`].
    pub fn check(&self, connection: &Connection) -> Result<(), AuthError> {
        let Some((origin, host)) = self.stranger(connection) else { return Ok(()) };
        self.warn_once(origin, host);
        Err(AuthError::ForbiddenOrigin { origin: origin.to_owned(), host: host.to_owned() })
    }

    /// The origin and the host of a request that comes from a page of another server.
    fn stranger<'a>(&self, connection: &'a Connection) -> Option<(&'a str, &'a str)> {
        let origin = connection.header("Origin")?;
        let host = connection.header("Host").unwrap_or_default();
        // Safe though a client sends it: a page cannot, since a browser asks for these fields by a
        // preflight.
        let forwarded = || self.proxies.host(connection.socket_peer(), connection.head());
        let is_permitted = is_own(origin, host)
            || forwarded().is_some_and(|host| is_own(origin, &host))
            || self.allows(origin);
        (!is_permitted).then_some((origin, host))
    }

    /// Warns the operator. Behind a proxy that sends another host, the server's own page is refused, and
    /// only the operator can tell it from a page of another server.
    fn warn_once(&self, origin: &str, host: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_bounded = origin.len() <= MAX_ORIGIN && warned.len() < MAX_WARNINGS;
        if is_bounded && warned.insert(normalized_origin(origin)) {
            log::warn!(
                "refused a page of the origin {origin:?}, since its request names the host {host:?}. If \
                 the page is this server's own, behind a proxy, then the proxy must pass the host on: in \
                 nginx 'proxy_set_header Host $http_host;', or in X-Forwarded-Host to a server with \
                 --trust-proxy. If it is another's and may connect: --allow-origin"
            );
        }
    }

    /// The CORS fields of every response to a request for an endpoint. Errors have them too: without
    /// them a page could not read what is wrong. `is_public` says that anybody may read.
    pub fn cors(&self, head: &Head, is_public: bool) -> Vec<Field> {
        let mut fields: Vec<Field> = Vec::new();
        let named = head.values("Origin").next().filter(|origin| self.names(origin));
        if let Some(origin) = named {
            fields.push(("Access-Control-Allow-Origin", origin.to_owned().into()));
            // Any page becomes one of origin `null` in a sandboxed frame. It gets nothing by cookies.
            if origin != "null" {
                fields.push(("Access-Control-Allow-Credentials", "true".into()));
            }
        } else if is_public || self.allows_all() {
            // With `*` a browser shows the page no response to a request that has cookies.
            fields.push(("Access-Control-Allow-Origin", "*".into()));
        }
        if !fields.is_empty() {
            fields.push(("Access-Control-Expose-Headers", "Retry-After".into()));
        }
        // A cache must not give one origin's response to another.
        if self.allowed.iter().any(|one| one != "*") {
            fields.push(("Vary", "Origin".into()));
        }
        fields
    }

    /// Whether an origin is allowed by its name.
    fn names(&self, origin: &str) -> bool {
        let origin = normalized_origin(origin);
        origin != "*" && self.allowed.contains(&origin)
    }

    fn allows_all(&self) -> bool {
        self.allowed.iter().any(|one| one == "*")
    }

    fn allows(&self, origin: &str) -> bool {
        self.allows_all() || self.names(origin)
    }
}

/// Adds what a browser asks for in a preflight: that a page may use `methods`, and all the fields that
/// the browser names. Polyfills and tracing libraries send fields that cannot be listed here, and `*`
/// does not cover `Authorization`.
pub fn preflight(
    response: Response,
    head: &Head,
    methods: impl Into<Cow<'static, str>>,
) -> Response {
    let response = response
        .with("Access-Control-Allow-Methods", methods.into())
        .with("Access-Control-Max-Age", PREFLIGHT_SECONDS);
    let is_list = |names: &&str| {
        let mut members = names.split(',').map(|name| name.trim_matches([' ', '\t']));
        names.len() <= MAX_REQUESTED_BYTES && members.all(is_token)
    };
    match head.values("Access-Control-Request-Headers").next().filter(is_list) {
        Some(names) => response.with("Access-Control-Allow-Headers", names.to_owned()),
        None => response,
    }
}

/// Whether a page of `origin` came from the host that the request is addressed to. The scheme is
/// not compared: behind a proxy that terminates TLS the server does not know it. Some libraries send an
/// origin with the WebSocket's scheme, `ws://` or `wss://`.
fn is_own(origin: &str, host: &str) -> bool {
    let origin = normalized_origin(origin);
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let Some(port) = default_port(scheme) else { return false };
    !host.is_empty() && authority.eq_ignore_ascii_case(host.strip_suffix(port).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_host_is_recognised() {
        assert!(is_own("http://localhost:3000", "localhost:3000"));
        assert!(is_own("https://Example.org", "example.org"));
        assert!(is_own("https://example.org", "example.org:443"));
        assert!(is_own("http://[::1]:3000", "[::1]:3000"));
        assert!(is_own("ws://localhost:3000", "localhost:3000"));
        assert!(is_own("wss://example.org:443/", "Example.org"));
        assert!(!is_own("http://localhost:3001", "localhost:3000"));
        assert!(!is_own("https://example.org.evil.example", "example.org"));
        assert!(!is_own("null", "localhost"));
        assert!(!is_own("http://", ""));
        assert!(!is_own("file://", ""));
    }

    #[test]
    fn allowed_origins_match_whole() {
        let origins = Origins::new(vec!["https://a.example".into()], Proxies::default());
        assert!(origins.allows("https://A.example"));
        assert!(!origins.allows("https://a.example.evil"));
        assert!(!origins.allows("null"));
        assert!(origins.allows("https://a.example:443"));
        let only = |origin: &str| Origins::new(vec![origin.into()], Proxies::default());
        assert!(only("*").allows("null"));
        assert!(only("file://").allows("file://"));
    }
}
