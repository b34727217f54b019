//! Which web pages may connect and publish.
//!
//! A browser lets any page open a WebSocket to any server and post to it, and says in the `Origin`
//! header field which page it was. It cannot be forged from a page, so it is worth checking (RFC
//! 6455 section 10.2). Programs send none.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::forwarded::Proxies;
use crate::http::Response;
use crate::listener::connection::{Connection, Next};

/// How many refused origins are warned of. Whoever makes origins up would fill the log.
const MAX_WARNINGS: usize = 100;

/// The longest origin that is warned of, in bytes: a host's name has 253 at most.
const MAX_ORIGIN: usize = 300;

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

    /// Checks a request. Returns the origin where it is a foreign one that is allowed: the answer
    /// must then carry it in `Access-Control-Allow-Origin`.
    ///
    /// # Errors
    /// The 403 that says which origin was refused.
    pub fn check(&self, connection: &Connection) -> Result<Option<String>, Response> {
        let Some(origin) = connection.header("Origin") else { return Ok(None) };
        let host = connection.header("Host").unwrap_or_default();
        // A page cannot send the fields that name it: browsers ask by a preflight whether it may.
        let named = || self.proxies.host(connection.socket_peer(), connection.head());
        if is_own(origin, host) || named().is_some_and(|named| is_own(origin, &named)) {
            return Ok(None);
        }
        if self.allows(origin) {
            return Ok(Some(origin.to_owned()));
        }
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

    /// Serves a POST that pages of allowed origins may send, and the OPTIONS that their browsers ask
    /// before (the CORS preflight). Credentials are not allowed: a foreign page must know the token
    /// itself, its reader's cookie does not help it to read the answer.
    pub fn serve_post(
        &self,
        mut connection: Connection,
        accept: impl FnOnce(&mut Connection) -> Result<Response, Response>,
    ) -> Next {
        let origin = match self.check(&connection) {
            Ok(origin) => origin,
            Err(answer) => return connection.respond(&answer),
        };
        let answer = match connection.method() {
            "OPTIONS" => Response::empty(204)
                .with("Allow", "POST, OPTIONS")
                .with("Access-Control-Allow-Methods", "POST")
                .with("Access-Control-Allow-Headers", "authorization, content-type")
                .with("Access-Control-Max-Age", "600"),
            _ => match accept(&mut connection) {
                Ok(answer) | Err(answer) => answer,
            },
        };
        // Errors too: without the field a page could not read what is wrong.
        connection.respond(&match origin {
            Some(origin) => {
                answer.with("Access-Control-Allow-Origin", origin).with("Vary", "Origin")
            }
            None => answer,
        })
    }

    fn allows(&self, origin: &str) -> bool {
        let origin = normalized_origin(origin);
        self.allowed.iter().any(|one| one == "*" || *one == origin)
    }
}

/// An origin as browsers send it (RFC 6454 section 6.2): in lower case, without the port that its
/// scheme has anyway, and without a slash at the end.
pub fn normalized_origin(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let Some((scheme, rest)) = origin.split_once("://") else { return origin };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let rest = default_port(scheme).and_then(|port| rest.strip_suffix(port)).unwrap_or(rest);
    format!("{scheme}://{rest}")
}

fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some(":80"),
        "https" | "wss" => Some(":443"),
        _ => None,
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
