//! HTTP (RFC 9110, RFC 9112) as plain values: a request's [head](head::Head), what proxies say of a
//! client, and a [`Response`], which is made here and turned into bytes.
//!
//! Whichever thread serves a request calls this. Only [`download`] writes to a socket, and waits.

pub mod coding;
pub mod download;
pub mod forwarded;
pub mod head;
pub mod list;
pub mod origin;

use std::borrow::Cow;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::time::SystemTime;

use serde_json::{Value, json};

use download::FilePart;

const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// What a response says about its connection (RFC 9112 section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It closes after the response.
    Close,
    /// It stays open, as it does in HTTP/1.1 where no field says otherwise.
    Default,
    /// It stays open, which HTTP/1.0 must be told.
    KeepAlive,
}

/// A header field: its name, and its value without a line break.
pub type Field = (&'static str, Cow<'static, str>);

/// Status, header fields and body of one response.
#[derive(Debug)]
pub struct Response {
    /// The status code, for example 404.
    pub status: u16,
    headers: Vec<Field>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Bytes(Cow<'static, [u8]>),
    /// Not part of [`Response::to_bytes`]: it is sent piece by piece.
    File(FilePart),
    /// An event stream: its length is not known.
    Endless,
}

impl Body {
    /// Bytes; `None` where it is not known.
    fn length(&self) -> Option<u64> {
        match self {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::File(part) => Some(part.length),
            Body::Endless => None,
        }
    }
}

impl Response {
    /// A response with a body of the media type `content_type`.
    pub fn new(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Response {
        Response {
            status,
            headers: vec![("Content-Type", content_type.into())],
            body: Body::Bytes(body.into()),
        }
    }

    /// A response with a part of a file, or all of it.
    #[cfg_attr(not(feature = "page"), allow(dead_code))]
    pub(crate) fn file(
        status: u16,
        content_type: impl Into<Cow<'static, str>>,
        part: FilePart,
    ) -> Response {
        let headers = vec![("Content-Type", content_type.into())];
        Response { status, headers, body: Body::File(part) }
    }

    /// A response of status 200 with plain text.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Response {
        let body: Cow<'static, [u8]> = match text.into() {
            Cow::Borrowed(text) => text.as_bytes().into(),
            Cow::Owned(text) => text.into_bytes().into(),
        };
        Response::new(200, "text/plain; charset=utf-8", body)
    }

    /// A response of status 200 with a page.
    pub fn html(page: impl Into<Cow<'static, str>>) -> Response {
        let mut response = Response::text(page);
        response.headers = vec![("Content-Type", "text/html; charset=utf-8".into())];
        response
    }

    /// A response without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Body::Bytes(Cow::Borrowed(&[])) }
    }

    /// A response with JSON: what `json` displays, such as a `serde_json::Value`, and a line's end. Caches
    /// must not keep it.
    pub fn json(status: u16, json: &impl Display) -> Response {
        let mut body = json.to_string().into_bytes();
        body.push(b'\n');
        Response::new(status, "application/json", body).with("Cache-Control", "no-store")
    }

    /// The one form of every error: `{"error":{"code":…,"message":…}}`. `message` says what was
    /// wrong and what to do.
    pub fn error(status: u16, code: &str, message: impl AsRef<str>) -> Response {
        Response::json(status, &json!({"error": {"code": code, "message": message.as_ref()}}))
    }

    /// The response to a client that cannot be served at the moment, and why.
    pub(crate) fn overloaded(why: &str) -> Response {
        Response::error(503, "overloaded", format!("{why}; try again later"))
            .with("Retry-After", "1")
    }

    /// The response for a path that leads nowhere.
    pub fn not_found() -> Response {
        Response::error(404, "not_found", "there is nothing here; the README lists what there is")
    }

    /// The response to a request that comes while the server shuts down.
    pub(crate) fn draining() -> Response {
        Response::error(503, "draining", "the server is shutting down; connect again later")
            .with("Retry-After", "1")
    }

    /// What an `EventSource` gets instead of a `refusal` that will not last. Any status but 200 would
    /// end it for good (WHATWG HTML, section 9.2.3): it gets a stream that says why, when to come back
    /// (in 5 to 10 seconds, so that not all come at once), and ends.
    pub(crate) fn come_back(refusal: &Response) -> Response {
        let why = refusal.error_message().unwrap_or_default();
        // A source of random numbers without a crate: each `RandomState` has other keys.
        let random = RandomState::new().build_hasher().finish();
        let retry_ms = 5_000 + random % 5_000;
        let body = format!(": {why}\nretry: {retry_ms}\n").into_bytes();
        Response::new(200, EVENT_STREAM, body).with_stream_fields()
    }

    /// The head of an event stream, which ends when the connection does, or with its last chunk.
    pub(crate) fn event_stream() -> Response {
        let headers = vec![("Content-Type", EVENT_STREAM.into())];
        Response { status: 200, headers, body: Body::Endless }.with_stream_fields()
    }

    /// `no-transform` and `X-Accel-Buffering` keep proxies from holding events back.
    fn with_stream_fields(self) -> Response {
        self.with("Cache-Control", "no-cache, no-transform").with("X-Accel-Buffering", "no")
    }

    /// Whether its end can be told without closing the connection: whether its length is known.
    pub(crate) fn has_end(&self) -> bool {
        self.body.length().is_some()
    }

    /// The part of a file that follows [`Response::to_bytes`], if there is one.
    pub(crate) fn file_part(&self) -> Option<&FilePart> {
        match &self.body {
            Body::File(part) => Some(part),
            _ => None,
        }
    }

    /// The message of an [error](Response::error), for the log; `None` for another response.
    pub(crate) fn error_message(&self) -> Option<String> {
        let Body::Bytes(bytes) = &self.body else { return None };
        let body: Value = serde_json::from_slice(bytes).ok()?;
        body["error"]["message"].as_str().map(str::to_owned)
    }

    /// The same response with one more header field.
    ///
    /// # Panics
    /// If the value holds a line break or NUL: what follows would be read as another field.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        let value = value.into();
        assert!(!value.contains(['\r', '\n', '\0']), "a header field is one line");
        self.headers.push((name, value));
        self
    }

    /// The response as it goes over the wire, but for a [file](Response::file_part). For a HEAD
    /// request the body is left out, its length is not (RFC 9110 section 9.3.2).
    pub(crate) fn to_bytes(&self, head_only: bool, persistence: Persistence) -> Vec<u8> {
        self.to_bytes_with(&[], head_only, persistence)
    }

    /// [`Response::to_bytes`] with more header fields, behind the response's own.
    pub(crate) fn to_bytes_with(
        &self,
        more: &[Field],
        head_only: bool,
        persistence: Persistence,
    ) -> Vec<u8> {
        let body: &[u8] = match &self.body {
            Body::Bytes(body) if !head_only => body,
            _ => &[],
        };
        // Room for the fields of most responses.
        let mut bytes = Vec::with_capacity(256 + body.len());
        let status = self.status;
        let _ = write!(bytes, "HTTP/1.1 {status} {}\r\n", reason(status));
        let _ = write!(bytes, "Date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
        for (name, value) in self.headers.iter().chain(more) {
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        // RFC 9110 section 8.6: no length where there cannot be a body, and none that lies.
        if let Some(length) = self.body.length().filter(|_| !matches!(status, 204 | 304)) {
            let _ = write!(bytes, "Content-Length: {length}\r\n");
        }
        // A browser is to believe the media type, whatever the body looks like to it.
        bytes.extend_from_slice(b"X-Content-Type-Options: nosniff\r\n");
        // RFC 9110 section 7.8: whoever sends Upgrade names it here as well.
        let upgrade = self.headers.iter().any(|(name, _)| *name == "Upgrade");
        bytes.extend_from_slice(match (persistence, upgrade) {
            (Persistence::Close, false) => b"Connection: close\r\n",
            (Persistence::Close, true) => b"Connection: close, upgrade\r\n",
            (Persistence::KeepAlive, false) => b"Connection: keep-alive\r\n",
            (Persistence::KeepAlive, true) => b"Connection: keep-alive, upgrade\r\n",
            (Persistence::Default, false) => b"",
            (Persistence::Default, true) => b"Connection: upgrade\r\n",
        });
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        bytes
    }
}

/// The reason phrase of every status that this server sends.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::{Persistence, Response};

    #[test]
    fn head_keeps_the_length_and_leaves_out_the_body() {
        let response = Response::new(200, "text/plain", &b"hello"[..]);
        let full = String::from_utf8(response.to_bytes(false, Persistence::Close)).unwrap();
        let head = String::from_utf8(response.to_bytes(true, Persistence::Close)).unwrap();
        assert!(full.starts_with("HTTP/1.1 200 OK\r\nDate: "));
        assert!(full.ends_with(
            "Content-Length: 5\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\nhello"
        ));
        assert!(head.ends_with(
            "Content-Length: 5\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        ));
    }

    #[test]
    fn a_response_that_cannot_have_a_body_has_no_length() {
        for status in [204, 304] {
            let bytes =
                String::from_utf8(Response::empty(status).to_bytes(false, Persistence::Default))
                    .unwrap();
            assert!(!bytes.contains("Content-Length"), "{bytes}");
        }
    }

    #[test]
    fn errors_have_one_form() {
        let response = Response::error(404, "not_found", "no \"such\" page");
        let bytes = response.to_bytes(false, Persistence::Close);
        let text = String::from_utf8(bytes).unwrap();
        let body = text.split("\r\n\r\n").nth(1).unwrap();
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["error"]["code"], "not_found");
        assert_eq!(value["error"]["message"], "no \"such\" page");
    }
}
