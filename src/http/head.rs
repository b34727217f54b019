//! The head of a request, after the [door](crate::door::head) has read and checked it, and the small
//! grammars that fields are made of (RFC 9110 section 5.6).

use std::borrow::Cow;

use super::Response;

/// A request's head. Sections without a name of a document are of RFC 9112.
#[derive(Debug)]
pub struct Head {
    /// The method, a token.
    pub method: String,
    /// Path and query: the origin form (section 3.2.1), whichever form was sent. ASCII.
    pub target: String,
    /// Whether it is HTTP/1.1, not HTTP/1.0.
    pub is_http_1_1: bool,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the client keeps the connection open after the response (section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether it asks for a WebSocket: `Upgrade: websocket`, and `Connection` names it.
    pub is_upgrade: bool,
    /// Names and values, in order.
    pub(crate) fields: Vec<(String, String)>,
}

/// How the end of a body is known (section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 where there is no body.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

impl Head {
    /// The target's path, percent-encoded: all of it in front of the `?`.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// What stands behind the `?` of the target, percent-encoded; `None` without a `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The values of all field lines of that name, in order. Bytes that are not UTF-8 are replaced:
    /// what this server compares is ASCII.
    pub fn values<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        let fields = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str())
    }

    /// The comma-separated members of a field, of all its lines (RFC 9110 section 5.6.1).
    pub fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        // `trim` would also take characters that are not white space here (section 5.6.3).
        let members = self.values(name).flat_map(|value| value.split(','));
        members.map(|member| member.trim_matches([' ', '\t']))
    }

    /// The response for a client that is refused only for a while: the `refusal` itself, or for readers
    /// of event streams [`Response::come_back`], which does not make them give up.
    pub(crate) fn or_come_back(&self, refusal: Response) -> Response {
        if self.wants_event_stream() { Response::come_back(&refusal) } else { refusal }
    }

    /// Whether the client is one that reads event streams, such as an `EventSource`: it names their
    /// media type.
    pub fn wants_event_stream(&self) -> bool {
        let mut types = self.members("Accept").filter_map(|range| range.split(';').next());
        let is_asked_for = |name: &str| name.trim_end().eq_ignore_ascii_case("text/event-stream");
        self.method == "GET" && types.any(is_asked_for)
    }

    /// Whether one of the members of the field is `token`, without regard to case.
    pub fn has_member(&self, name: &str, token: &str) -> bool {
        self.members(name).any(|member| member.eq_ignore_ascii_case(token))
    }
}

/// The first parameter of a query (`application/x-www-form-urlencoded`) that has this name.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// The bytes that a percent-encoded path stands for (RFC 3986 section 2.1); `None` where a percent
/// sign begins no percent-encoding.
pub fn percent_decode(path: &str) -> Option<Cow<'_, [u8]>> {
    let mut behind_signs = path.split('%').skip(1).map(str::as_bytes);
    let is_right = behind_signs.all(
        |behind| matches!(behind, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()),
    );
    is_right.then(|| percent_encoding::percent_decode_str(path).into())
}

/// RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    let extra = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}
