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
        self.allowed.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(origin))
    }
}

/// Whether a page of `origin` came from the host that the request is addressed to. The scheme is
/// not compared: behind a proxy that ends TLS it is not known.
fn is_own(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(default).unwrap_or(authority).to_owned();
    !host.is_empty() && bare(authority).eq_ignore_ascii_case(&bare(host))
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
        assert!(Origins::new(vec!["*".into()]).allows("null"));
    }
}
