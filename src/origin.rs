//! Which web pages may connect and publish.
//!
//! A browser lets any page open a WebSocket to any server and post to it, and says in the `Origin`
//! header field which page it was. It cannot be forged from a page, so it is worth checking (RFC
//! 6455 section 10.2). Programs send none.

use crate::http::Response;
use crate::listener::connection::{Connection, Next};

/// The origins allowed besides the server's own.
#[derive(Debug)]
pub struct Origins {
    allowed: Vec<String>,
}

impl Origins {
    /// `allowed` as in [`crate::Config::allow_origin`].
    pub fn new(allowed: Vec<String>) -> Origins {
        Origins { allowed }
    }

    /// Checks a request. Returns the origin where it is a foreign one that is allowed: the answer
    /// must then carry it in `Access-Control-Allow-Origin`.
    ///
    /// # Errors
    /// The 403 that says which origin was refused.
    pub fn check(&self, connection: &Connection) -> Result<Option<String>, Response> {
        let host = connection.header("Host").unwrap_or_default();
        match connection.header("Origin") {
            None => Ok(None),
            Some(origin) if is_own(origin, host) => Ok(None),
            Some(origin) if self.allows(origin) => Ok(Some(origin.to_owned())),
            Some(origin) => {
                log::info!(
                    "{}: origin {origin} is neither {host:?} nor allowed",
                    connection.peer()
                );
                let message = format!("origin {origin} is not allowed; see --allow-origin");
                Err(Response::error(403, "forbidden_origin", message))
            }
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
        let origins = Origins::new(vec!["https://a.example".into()]);
        assert!(origins.allows("https://A.example"));
        assert!(!origins.allows("https://a.example.evil"));
        assert!(!origins.allows("null"));
        assert!(origins.allows("https://a.example:443"));
        assert!(Origins::new(vec!["*".into()]).allows("null"));
        assert!(Origins::new(vec!["file://".into()]).allows("file://"));
    }
}
