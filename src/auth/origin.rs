//! Which web pages may connect and publish, and what pages of other origins may read.
//!
//! A browser lets any page open a WebSocket to any server and post to it, and says in the `Origin`
//! header field which page it was. It cannot be forged from a page, so it is worth checking (RFC
//! 6455 section 10.2). Programs send none.
//!
//! What comes back, a browser shows to a page of another origin only where the response allows it,
//! and it asks before it sends anything unusual (CORS: WHATWG Fetch section 3.3). All of these
//! fields are decided here: [`Origins::cors`] and [`preflight`].

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::http::forwarded::Proxies;
use crate::http::head::{Head, is_token};
use crate::http::origin::{default_port, normalized_origin};
use crate::http::{Field, Response};
use crate::listener::connection::{Connection, Next};

/// How many refused origins are warned of. Whoever makes origins up would fill the log.
const MAX_WARNINGS: usize = 100;

/// The longest origin that is warned of, in bytes: a host's name has 253 at most.
const MAX_ORIGIN: usize = 300;

/// How long a browser may remember what it was told before it sent a request, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// The most bytes of names of fields that are repeated to a browser.
const MAX_REQUESTED_BYTES: usize = 1024;

/// The origins allowed besides the server's own.
#[derive(Debug)]
pub struct Origins {
    allowed: Vec<String>,
    /// Who is believed about the host that a client used.
    proxies: Proxies,
    /// The refused origins that were warned of.
    warned: Mutex<BTreeSet<String>>,
}

impl Origins {
    /// `allowed` as in [`crate::Config::allow_origin`].
    pub fn new(allowed: Vec<String>, proxies: Proxies) -> Origins {
        Origins { allowed, proxies, warned: Mutex::default() }
    }

    /// Whether a request comes from a program, or from a page of the server's own host or of an
    /// allowed origin.
    pub fn permit(&self, connection: &Connection) -> bool {
        let Some(origin) = connection.header("Origin") else { return true };
        let host = connection.header("Host").unwrap_or_default();
        // A page cannot send the fields that name it: browsers ask by a preflight whether it may.
        let named = || self.proxies.host(connection.socket_peer(), connection.head());
        is_own(origin, host)
            || named().is_some_and(|named| is_own(origin, &named))
            || self.allows(origin)
    }

    /// Checks the same.
    ///
    /// # Errors
    /// The 403 that says which origin was refused.
    pub fn check(&self, connection: &Connection) -> Result<(), Response> {
        if self.permit(connection) {
            return Ok(());
        }
        let origin = connection.header("Origin").unwrap_or_default();
        let host = connection.header("Host").unwrap_or_default();
        self.warn_once(origin, host);
        let message = format!(
            "origin {origin} is neither this request's host, {host}, nor allowed; see --allow-origin"
        );
        Err(Response::error(403, "forbidden_origin", message))
    }

    /// Behind a proxy that names another host, the server's own page is refused. Only the operator
    /// can tell that from a page of a stranger.
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

    /// Serves a POST that pages of allowed origins may send.
    pub fn serve_post(
        &self,
        mut connection: Connection,
        accept: impl FnOnce(&mut Connection) -> Result<Response, Response>,
    ) -> Next {
        let result = self.check(&connection).and_then(|()| accept(&mut connection));
        let (Ok(answer) | Err(answer)) = result;
        connection.respond(&answer)
    }

    /// The fields of every response to a request for an endpoint, also of errors: without them a
    /// page could not read what is wrong. `is_public` says that anybody may read.
    pub fn cors(&self, head: &Head, is_public: bool) -> Vec<Field> {
        let mut fields: Vec<Field> = Vec::new();
        let named = head.values("Origin").next().filter(|origin| self.names(origin));
        if let Some(origin) = named {
            fields.push(("Access-Control-Allow-Origin", origin.to_owned().into()));
            // Any page can make itself one of origin `null`, in a sandboxed frame: not with cookies.
            if origin != "null" {
                fields.push(("Access-Control-Allow-Credentials", "true".into()));
            }
        } else if is_public || self.allows_all() {
            // Browsers give no page that was let in by `*` what takes a cookie.
            fields.push(("Access-Control-Allow-Origin", "*".into()));
        }
        if !fields.is_empty() {
            fields.push(("Access-Control-Expose-Headers", "Retry-After".into()));
        }
        // Caches must know that a page of another origin gets another response.
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

/// Adds what a browser asks before it sends a request (a preflight): that `methods` may be used, and
/// whatever fields it names. Polyfills and tracing libraries send fields that nobody can list here,
/// and `*` would leave `Authorization` out.
pub fn preflight(answer: Response, head: &Head, methods: &'static str) -> Response {
    let answer = answer
        .with("Access-Control-Allow-Methods", methods)
        .with("Access-Control-Max-Age", PREFLIGHT_SECONDS);
    let is_list = |names: &&str| {
        let mut members = names.split(',').map(|name| name.trim_matches([' ', '\t']));
        names.len() <= MAX_REQUESTED_BYTES && members.all(is_token)
    };
    match head.values("Access-Control-Request-Headers").next().filter(is_list) {
        Some(names) => answer.with("Access-Control-Allow-Headers", names.to_owned()),
        None => answer,
    }
}

/// Whether a page of `origin` came from the host that the request is addressed to. The scheme is
/// not compared: behind a proxy that ends TLS it is not known. Libraries on telephones and small
/// devices send the WebSocket's own, `ws://` or `wss://`.
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
