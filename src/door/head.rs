//! The head of a request (RFC 9112 sections 2 to 7): where it ends, and what it says.
//!
//! It is checked as strictly as a front proxy does it, because whatever two programs could read
//! differently is a way to smuggle one request inside another. Only what a request means is
//! checked here; whether this server has an answer is the router's business.
//!
//! [`Scanner`] finds the end while the bytes come and looks at each byte once, so that a head of
//! many small pieces costs no more than one of a single piece. What is wrong for certain (a bare
//! line feed, an unknown version, a line that is too long) is refused at once, not when the head is
//! complete. [`parse`] then takes a complete head apart; `httparse` reads the field lines.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use crate::http::Response;

/// The longest request target, in bytes, percent-encoded.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The longest method. None that is registered is longer than 17 bytes.
const MAX_METHOD_BYTES: usize = 32;

/// The most field lines.
const MAX_FIELDS: usize = 100;

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
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
    text: String,
    fields: Vec<(Range<usize>, Range<usize>)>,
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
    /// The values of all field lines of that name, in order. Bytes that are not UTF-8 are replaced:
    /// what this server compares is ASCII.
    pub fn values<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]));
        fields.filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The comma-separated members of a field, of all its lines (RFC 9110 section 5.6.1).
    pub fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        // Only these two are white space (section 5.6.3); `trim` would know more.
        let members = self.values(name).flat_map(|value| value.split(','));
        members.map(|member| member.trim_matches([' ', '\t']))
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

/// Why there is no request.
#[derive(Debug)]
pub enum Refusal {
    /// The response that says what is wrong. The connection closes after it.
    Respond(Response),
    /// The client speaks TLS: it would not understand a response.
    Tls,
}

impl From<Response> for Refusal {
    fn from(response: Response) -> Refusal {
        Refusal::Respond(response)
    }
}

/// Finds the end of a head.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Up to here the bytes have been looked at.
    position: usize,
    line_start: usize,
    /// Where the request line is, when it is complete.
    request_line: Option<Range<usize>>,
}

impl Scanner {
    /// Looks at what has come since the last call. `bytes` is all of it, from the first byte on.
    /// Returns the head's place in `bytes` when it is complete.
    ///
    /// # Errors
    /// What cannot become a head that is accepted, as soon as that is certain.
    pub fn scan(&mut self, bytes: &[u8], max_head: usize) -> Result<Option<Range<usize>>, Refusal> {
        // A TLS record of type handshake (RFC 8446 section 5.1); 0x16 begins no method.
        if self.position == 0 && bytes.starts_with(&[0x16]) {
            return Err(Refusal::Tls);
        }
        while let Some(offset) = bytes[self.position..].iter().position(|byte| *byte == b'\n') {
            let line = self.line_start..self.position + offset;
            self.position = line.end + 1;
            self.line_start = self.position;
            // Section 2.2 lets a server take a bare line feed for a line's end. Others do not, so
            // it is refused.
            if bytes[line.clone()].last() != Some(&b'\r') {
                return Err(bad("bad_line", "lines end in CR LF; this one ends in LF alone").into());
            }
            let line = line.start..line.end - 1;
            match &self.request_line {
                // Empty lines in front of a request are skipped (section 2.2).
                None if line.is_empty() => {}
                None => {
                    split_request_line(&bytes[line.clone()])?;
                    self.request_line = Some(line);
                }
                Some(first) if line.is_empty() && self.position <= max_head => {
                    return Ok(Some(first.start..self.position));
                }
                Some(_) if line.is_empty() => return Err(too_large(max_head).into()),
                Some(_) => {}
            }
            if self.position > max_head {
                return Err(too_large(max_head).into());
            }
        }
        self.position = bytes.len();
        let line_bytes = bytes.len() - self.line_start;
        if self.request_line.is_none() && line_bytes > MAX_TARGET_BYTES + MAX_METHOD_BYTES + 64 {
            return Err(target_too_long().into());
        }
        if bytes.len() > max_head {
            return Err(too_large(max_head).into());
        }
        Ok(None)
    }

    /// Whether a part of a request has come; empty lines are none.
    pub fn has_begun(&self, bytes: &[u8]) -> bool {
        self.request_line.is_some() || !matches!(bytes[self.line_start..], [] | [b'\r'])
    }
}

/// Takes a head apart that [`Scanner`] has found complete.
///
/// # Errors
/// The response that says what is wrong: 400, 413, 414, 417, 431, 501 or 505.
pub fn parse(bytes: &[u8]) -> Result<Head, Response> {
    let line_end = bytes.windows(2).position(|two| two == b"\r\n").unwrap_or(bytes.len());
    let (method, target, version) = split_request_line(&bytes[..line_end])?;
    let (target, authority) = match (method, target) {
        // The asterisk form (section 3.2.4): the server as a whole.
        ("OPTIONS", b"*") => ("*".to_owned(), None),
        _ => origin_form(target)?,
    };
    let mut lines = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let rest = bytes.get(line_end + 2..).unwrap_or_default();
    let lines = match httparse::parse_headers(rest, &mut lines) {
        // It is lenient about line ends; the scanner was not, so all of the head is used.
        Ok(httparse::Status::Complete((used, lines))) if used == rest.len() => lines,
        Err(httparse::Error::TooManyHeaders) => {
            let message = format!("send at most {MAX_FIELDS} header fields");
            return Err(Response::error(431, "header_too_large", message));
        }
        Err(httparse::Error::HeaderName) => {
            return Err(bad("bad_header", "a header field's name is not a token"));
        }
        _ => return Err(bad("bad_header", "a header field's value holds a control character")),
    };
    let (mut text, mut fields) =
        (String::with_capacity(rest.len()), Vec::with_capacity(lines.len()));
    let mut append = |part: &str| {
        text.push_str(part);
        text.len() - part.len()..text.len()
    };
    for line in lines {
        // The authority in the target counts, whatever Host says (section 3.2.2).
        if authority.is_some() && line.name.eq_ignore_ascii_case("Host") {
            continue;
        }
        // Bytes above 127 are opaque data (RFC 9110 section 5.5), not a reason to refuse.
        fields.push((append(line.name), append(&String::from_utf8_lossy(line.value))));
    }
    if let Some(authority) = &authority {
        fields.push((append("Host"), append(authority)));
    }
    let is_http_1_1 = version == b"HTTP/1.1";
    let mut head = Head {
        method: method.to_owned(),
        target,
        is_http_1_1,
        framing: Framing::Length(0),
        keep_alive: false,
        expects_continue: false,
        is_upgrade: false,
        text,
        fields,
    };
    check_host(&head, lines.iter().filter(|line| line.name.eq_ignore_ascii_case("Host")).count())?;
    head.framing = framing(&head)?;
    head.keep_alive = match is_http_1_1 {
        true => !head.has_member("Connection", "close"),
        false => {
            head.has_member("Connection", "keep-alive") && !head.has_member("Connection", "close")
        }
    };
    // Section 7.8 of RFC 9110: not in HTTP/1.0, and only what `Connection` names as well. Offers of
    // other protocols are ignored, and the request is served.
    head.is_upgrade = is_http_1_1
        && head.has_member("Connection", "upgrade")
        && head.has_member("Upgrade", "websocket");
    if head.is_upgrade && head.framing != Framing::Length(0) {
        return Err(bad("bad_handshake", "a WebSocket handshake has no body"));
    }
    head.expects_continue = expects_continue(&head)?;
    Ok(head)
}

fn bad(code: &str, message: impl AsRef<str>) -> Response {
    Response::error(400, code, message)
}

fn too_large(max_head: usize) -> Response {
    let message = format!("the request's head is longer than {max_head} bytes (--max-head)");
    Response::error(431, "header_too_large", message)
}

fn target_too_long() -> Response {
    let message = format!("the request target is longer than {MAX_TARGET_BYTES} bytes");
    Response::error(414, "target_too_long", message)
}

/// Method, target and version (section 3): exactly three words, single spaces in between.
fn split_request_line(line: &[u8]) -> Result<(&str, &[u8], &[u8]), Response> {
    let mut words = line.split(|byte| *byte == b' ');
    let [Some(method), Some(target), Some(version), None] = [(); 4].map(|()| words.next()) else {
        return Err(bad(
            "bad_request_line",
            "send a method, a target and a version: GET / HTTP/1.1",
        ));
    };
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            let message = "only HTTP/1.1 and HTTP/1.0 are spoken here";
            return Err(Response::error(505, "unknown_version", message));
        }
        _ => return Err(bad("bad_request_line", "the version is not HTTP/1.1 or HTTP/1.0")),
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(target_too_long());
    }
    match std::str::from_utf8(method) {
        Ok(method) if is_token(method) && method.len() <= MAX_METHOD_BYTES => {
            Ok((method, target, version))
        }
        Ok(method) if is_token(method) => {
            let message = format!("no method is longer than {MAX_METHOD_BYTES} bytes");
            Err(Response::error(501, "unknown_method", message))
        }
        _ => Err(bad("bad_method", "the method is not a token")),
    }
}

/// The origin form of a target (section 3.2.1), and the authority of the absolute form (3.2.2).
/// Bytes above 127 are taken as if they were percent-encoded: curl sends them as they were typed.
fn origin_form(target: &[u8]) -> Result<(String, Option<String>), Response> {
    let bad = |message: &str| Err(bad("bad_target", message));
    let mut text = String::with_capacity(target.len());
    for byte in target {
        match byte {
            0x80.. => write!(text, "%{byte:02X}").unwrap_or_default(),
            b'!'..=b'~' if *byte != b'#' => text.push(char::from(*byte)),
            _ => return bad("the request target holds characters that must be percent-encoded"),
        }
    }
    if text.len() > MAX_TARGET_BYTES {
        return Err(target_too_long());
    }
    let scheme = |scheme: &str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let (text, authority) = match ["http://", "https://"].into_iter().find(|one| scheme(one)) {
        Some(prefix) => {
            let rest = &text[prefix.len()..];
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if authority.is_empty() || !authority.bytes().all(is_host_byte) {
                return bad("the request target names no host");
            }
            let slash = if path.starts_with('/') { "" } else { "/" };
            (format!("{slash}{path}"), Some(authority.to_owned()))
        }
        None => (text, None),
    };
    if !text.starts_with('/') {
        return bad("the request target must be a path beginning with /");
    }
    let Some(path) = percent_decode(text.split('?').next().unwrap_or_default()) else {
        return bad("the request target holds a % that begins no percent-encoding");
    };
    if path.contains(&0) {
        return bad("the path holds a NUL");
    }
    if path.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| part == b"..") {
        return bad("the path leads upwards");
    }
    Ok((text, authority))
}

/// The bytes that a percent-encoded path stands for (RFC 3986 section 2.1); `None` where a percent
/// sign begins no percent-encoding.
pub fn percent_decode(path: &str) -> Option<Cow<'_, [u8]>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path.as_bytes()));
    }
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                (high * 16 + low) as u8
            }
            plain => plain,
        });
    }
    Some(Cow::Owned(decoded))
}

/// Section 3.2: exactly one, from HTTP/1.1 on; one that an absolute target replaces counts too.
fn check_host(head: &Head, sent: usize) -> Result<(), Response> {
    match head.values("Host").next() {
        _ if sent > 1 => Err(bad("bad_host", "Host is there more than once")),
        _ if sent == 0 && head.is_http_1_1 => Err(bad("bad_host", "Host is missing")),
        Some(host) if !host.bytes().all(is_host_byte) => {
            Err(bad("bad_host", "Host is no host name or address with a port"))
        }
        _ => Ok(()),
    }
}

/// Section 6: one way to tell where the body ends.
fn framing(head: &Head) -> Result<Framing, Response> {
    let mut lengths = head.values("Content-Length");
    let mut codings = head.values("Transfer-Encoding");
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() {
        return Err(bad("bad_framing", "the length of the body is given more than once"));
    }
    match (length, coding) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(_), Some(_)) => {
            Err(bad("bad_framing", "send Content-Length or Transfer-Encoding, not both"))
        }
        (Some(length), None) => {
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad("bad_framing", "Content-Length is no number"));
            }
            length.parse().map(Framing::Length).map_err(|_| {
                let message = "no body can be as long as Content-Length says";
                Response::error(413, "too_large", message)
            })
        }
        (None, Some(_)) if !head.is_http_1_1 => {
            Err(bad("bad_framing", "HTTP/1.0 has no Transfer-Encoding"))
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (None, Some(_)) => {
            let message = "the only Transfer-Encoding understood is chunked";
            Err(Response::error(501, "unknown_coding", message))
        }
    }
}

/// RFC 9110 section 10.1.1: an expectation that cannot be met is refused; HTTP/1.0 has none.
fn expects_continue(head: &Head) -> Result<bool, Response> {
    if !head.is_http_1_1 {
        return Ok(false);
    }
    let mut members = head.members("Expect").filter(|member| !member.is_empty()).peekable();
    let is_any = members.peek().is_some();
    if members.all(|member| member.eq_ignore_ascii_case("100-continue")) {
        return Ok(is_any && head.framing != Framing::Length(0));
    }
    Err(Response::error(417, "unknown_expectation", "the only expectation met is 100-continue"))
}

/// RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    let extra = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

/// What may stand in a registered name, an IP address or a port (RFC 3986 section 3.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(request: &[u8]) -> Result<Head, u16> {
        let refused = |refusal| match refusal {
            Refusal::Respond(response) => response.status,
            Refusal::Tls => 0,
        };
        let place = Scanner::default().scan(request, 32 * 1024).map_err(refused)?.ok_or(1_u16)?;
        parse(&request[place]).map_err(|response| response.status)
    }

    fn get(target: &str) -> Result<String, u16> {
        head(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).map(|head| head.target)
    }

    fn with(lines: impl std::fmt::Display) -> Result<Head, u16> {
        head(format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n").as_bytes())
    }

    #[test]
    fn targets_are_paths_that_lead_nowhere_else() {
        for good in ["/", "/a/b?c=d&e=%0A", "/..a", "/a..", "/%41", "/?x=../.."] {
            assert_eq!(get(good).as_deref(), Ok(good));
        }
        assert_eq!(get("/k\u{e4}se").as_deref(), Ok("/k%C3%A4se"));
        for (sent, path) in [("http://h", "/"), ("HTTP://h:1/a?b", "/a?b"), ("https://h?b", "/?b")]
        {
            assert_eq!(get(sent).as_deref(), Ok(path));
        }
        for bad in [
            "",
            "*",
            "a",
            "h:80",
            "ftp://h/",
            "http:///",
            "http://u@h/",
            "/a b",
            "/a\0",
            "/a%00",
            "/%",
            "/%2",
            "/%zz",
            "/..",
            "/a/../b",
            "/%2e%2E/b",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/a#b",
            "/a\tb",
            "http://h/../a",
        ] {
            assert_eq!(get(bad), Err(400), "{bad}");
        }
        assert_eq!(get(&format!("/{}", "x".repeat(MAX_TARGET_BYTES))), Err(414));
        assert_eq!(get(&format!("/{}", "\u{e4}".repeat(MAX_TARGET_BYTES / 4))), Err(414));
    }

    #[test]
    fn the_authority_of_an_absolute_target_is_the_host() {
        let host = |request: &str| {
            head(request.as_bytes())
                .map(|head| head.values("host").map(str::to_owned).collect::<Vec<_>>())
        };
        let absolute = "GET http://target:1/ HTTP/1.1\r\n";
        assert_eq!(host(&format!("{absolute}Host: other\r\n\r\n")), Ok(vec!["target:1".into()]));
        assert_eq!(host(&format!("{absolute}\r\n")), Err(400), "Host is needed all the same");
        assert_eq!(host(&format!("{absolute}Host: a\r\nHost: a\r\n\r\n")), Err(400));
        assert_eq!(host("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), Err(400));
        assert_eq!(host("GET / HTTP/1.0\r\n\r\n"), Ok(vec![]));
    }

    #[test]
    fn the_length_of_a_body_is_told_once_and_well() {
        let framing = |lines: &str| with(lines).map(|head| head.framing);
        assert_eq!(framing("X: y"), Ok(Framing::Length(0)));
        assert_eq!(framing("Content-Length: 5"), Ok(Framing::Length(5)));
        assert_eq!(framing("transfer-encoding: Chunked"), Ok(Framing::Chunked));
        for bad in ["+5", "-5", "5,5", "0x5", "5 5", "", "abc", "5;", "5\r\nContent-Length: 5"] {
            assert_eq!(framing(&format!("Content-Length: {bad}")), Err(400), "{bad}");
        }
        assert_eq!(framing("Content-Length: 5\r\nTransfer-Encoding: chunked"), Err(400));
        assert_eq!(framing("Content-Length: 99999999999999999999"), Err(413));
        for unknown in ["gzip, chunked", "identity", "xchunked", "chunked;a", "\u{b}chunked"] {
            let status = framing(&format!("Transfer-Encoding: {unknown}"));
            assert!(matches!(status, Err(400 | 501)), "{unknown}: {status:?}");
        }
    }

    #[test]
    fn connection_is_one_list() {
        let upgrade = "Connection: keep-alive\r\nConnection: x, Upgrade\r\nUpgrade: WebSocket";
        assert!(with(upgrade).unwrap().is_upgrade);
        assert_eq!(with(format!("{upgrade}\r\nContent-Length: 1")).unwrap_err(), 400);
        let h2c = with("Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1").unwrap();
        assert_eq!(
            (h2c.is_upgrade, h2c.framing, h2c.keep_alive),
            (false, Framing::Length(1), true)
        );
        assert!(!with("Connection: a\r\nConnection: b, Close").unwrap().keep_alive);
        assert!(!with("Upgrade: websocket").unwrap().is_upgrade, "Connection must name it");
        assert!(with("Connection: close\u{3000}").unwrap().keep_alive, "no white space in HTTP");
        let old = |lines: &str| head(format!("GET / HTTP/1.0\r\n{lines}\r\n").as_bytes()).unwrap();
        assert!(!old("").keep_alive && old("Connection: Keep-Alive\r\n").keep_alive);
    }

    #[test]
    fn fields_are_opaque_and_bounded() {
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nCookie: n=Zo\xeb; a=b \r\nX:\tA\tB\r\n\r\n";
        let parsed = head(request).unwrap();
        assert_eq!(parsed.values("cookie").next(), Some("n=Zo\u{fffd}; a=b"));
        assert_eq!(parsed.values("x").next(), Some("A\tB"));
        for bad in
            ["X: a\0b", "X: a\rb", "X\u{1}: a", "X(: a", ": a", " X: a", "X : a", "X: a\r\n b"]
        {
            assert_eq!(with(bad).unwrap_err(), 400, "{bad:?}");
        }
        assert!(with(["X: a"; MAX_FIELDS - 1].join("\r\n")).is_ok());
        assert_eq!(with(["X: a"; MAX_FIELDS].join("\r\n")).unwrap_err(), 431);
        assert_eq!(with(format!("X: {}", "a".repeat(32 * 1024))).unwrap_err(), 431);
    }

    #[test]
    fn what_is_wrong_is_known_as_soon_as_it_comes() {
        for (bytes, status) in [
            (&b"GET / HTTP/2.0\r\n"[..], 505),
            (b"PRI * HTTP/2.0\r\n", 505),
            (b"GET / HTTP/1.2\r\n", 505),
            (b"GET / HTTP/1.1\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\n", 400),
            (b"GET /\r\n", 400),
            (b"GET / HTTP/1.1 x\r\n", 400),
            (b"GET  / HTTP/1.1\r\n", 400),
            (b"\n", 400),
            (b"\x16\x03\x01", 0),
        ] {
            assert_eq!(head(bytes).unwrap_err(), status, "{}", bytes.escape_ascii());
        }
        assert_eq!(head(&[b'a'; 9000]).unwrap_err(), 414);
        assert_eq!(head(&b"\r\n".repeat(20_000)).unwrap_err(), 431);
        assert!(head(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n").is_ok(), "empty lines are skipped");
    }

    #[test]
    fn a_head_in_pieces_is_the_same() {
        let request = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        let mut scanner = Scanner::default();
        for end in 0..request.len() - 4 {
            assert!(scanner.scan(&request[..end], 100).unwrap().is_none());
            assert_eq!(scanner.has_begun(&request[..end]), end > 2);
        }
        assert_eq!(scanner.scan(request, 100).unwrap(), Some(2..request.len() - 4));
    }
}
