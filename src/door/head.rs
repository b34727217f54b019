//! The head of a request (RFC 9112 sections 2 to 7): where it ends, and what it says.
//!
//! It is checked as strictly as a front proxy does it, because whatever two programs could read
//! differently is a way to smuggle one request inside another. Only what a request means is
//! checked here; whether this server has an answer is the router's business.
//!
//! [`Scanner`] finds the end while the bytes come and looks at each byte once, so that a head of
//! many small pieces costs no more than one of a single piece. What is wrong for certain (a bare
//! line feed, an unknown version, a line that is too long) is refused at once, not when the head is
//! complete. Then the head is taken apart; `httparse` reads the field lines.

use std::ops::Range;

use crate::http::Response;
use crate::http::head::{Framing, Head, is_token, percent_decode};

/// The longest request target, in bytes, percent-encoded.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The longest method. None that is registered is longer than 17 bytes.
const MAX_METHOD_BYTES: usize = 32;

/// The most field lines.
const MAX_FIELDS: usize = 100;

/// Whether a client begins with a TLS handshake (RFC 8446 section 5.1; no method begins with 0x16).
/// It would not understand a response.
pub fn is_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x16])
}

/// A reader of one head, which may come in pieces.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Up to here the bytes have been looked at.
    position: usize,
    /// Where the line begins that is not complete.
    line_start: usize,
    /// Where the request line begins, when it is complete.
    head_start: Option<usize>,
}

impl Scanner {
    /// Takes the head off `bytes`, which are all that have come, if it is complete. It is called
    /// with more bytes until it is.
    ///
    /// # Errors
    /// The response to what cannot become a head that is accepted, as soon as that is certain: 400,
    /// 413, 414, 417, 431, 501 or 505.
    pub fn take(&mut self, bytes: &mut Vec<u8>, max_head: usize) -> Result<Option<Head>, Response> {
        let Some(place) = self.scan(bytes, max_head)? else { return Ok(None) };
        let head = parse(&bytes[place.clone()])?;
        bytes.drain(..place.end);
        Ok(Some(head))
    }

    /// Where the head is, if it is complete. Looks at what has come since the last call.
    fn scan(&mut self, bytes: &[u8], max_head: usize) -> Result<Option<Range<usize>>, Response> {
        while let Some(offset) = bytes[self.position..].iter().position(|byte| *byte == b'\n') {
            let line_feed = self.position + offset;
            let start = std::mem::replace(&mut self.line_start, line_feed + 1);
            self.position = self.line_start;
            // Section 2.2 lets a server take a bare line feed for a line's end. Others do not, so
            // it is refused.
            let Some(line) = bytes[start..line_feed].strip_suffix(b"\r") else {
                return Err(bad("bad_line", "lines end in CR LF; this one ends in LF alone"));
            };
            match self.head_start {
                // Empty lines in front of a request are skipped (section 2.2).
                None if line.is_empty() => {}
                None => {
                    split_request_line(line)?;
                    self.head_start = Some(start);
                }
                Some(head_start) if line.is_empty() && self.position <= max_head => {
                    return Ok(Some(head_start..self.position));
                }
                Some(_) => {}
            }
            if self.position > max_head {
                return Err(too_large(max_head));
            }
        }
        self.position = bytes.len();
        let line_bytes = bytes.len() - self.line_start;
        if self.head_start.is_none() && line_bytes > MAX_TARGET_BYTES + MAX_METHOD_BYTES + 64 {
            return Err(target_too_long());
        }
        if bytes.len() > max_head { Err(too_large(max_head)) } else { Ok(None) }
    }

    /// Whether a part of a request has come; empty lines are none.
    pub fn has_begun(&self, bytes: &[u8]) -> bool {
        self.head_start.is_some() || !matches!(bytes[self.line_start..], [] | [b'\r'])
    }
}

/// Takes a head apart that [`Scanner`] has found complete.
// Not inlined: its table of fields, 3 KiB, would be in the frame of every thread that waits for a head,
// and a page more of each one's stack resident.
#[inline(never)]
pub(crate) fn parse(bytes: &[u8]) -> Result<Head, Response> {
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
    let mut head = Head {
        method: method.to_owned(),
        target,
        is_http_1_1: version == b"HTTP/1.1",
        framing: Framing::Length(0),
        keep_alive: false,
        expects_continue: false,
        is_upgrade: false,
        fields: Vec::with_capacity(lines.len()),
    };
    let is_host = |line: &httparse::Header| line.name.eq_ignore_ascii_case("Host");
    // The authority in the target counts, whatever Host says (section 3.2.2).
    for line in lines.iter().filter(|line| authority.is_none() || !is_host(line)) {
        // Bytes above 127 are opaque data (RFC 9110 section 5.5), not a reason to refuse.
        head.fields.push((line.name.to_owned(), String::from_utf8_lossy(line.value).into_owned()));
    }
    head.fields.extend(authority.clone().map(|authority| ("Host".to_owned(), authority)));
    check_host(&head, lines.iter().filter(|line| is_host(line)).count())?;
    head.framing = framing(&head)?;
    let has_option = |option| head.has_member("Connection", option);
    let keep_alive = !has_option("close") && (head.is_http_1_1 || has_option("keep-alive"));
    // Section 7.8 of RFC 9110: not in HTTP/1.0, and only what `Connection` names as well. Offers of
    // other protocols are ignored, and the request is served.
    let is_upgrade =
        head.is_http_1_1 && has_option("upgrade") && head.has_member("Upgrade", "websocket");
    if is_upgrade && head.framing != Framing::Length(0) {
        return Err(bad("bad_handshake", "a WebSocket handshake has no body"));
    }
    let expects_continue = expects_continue(&head)?;
    Ok(Head { keep_alive, is_upgrade, expects_continue, ..head })
}

fn bad(code: &str, message: &str) -> Response {
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
        let message = "send a method, a target and a version: GET / HTTP/1.1";
        return Err(bad("bad_request_line", message));
    };
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            let message = "only HTTP/1.1 and HTTP/1.0 are spoken here";
            return Err(Response::error(505, "unknown_version", message));
        }
        _ => return Err(bad("bad_request_line", "the version is not HTTP/1.1 or HTTP/1.0")),
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(target_too_long());
    }
    let method = std::str::from_utf8(method).ok().filter(|method| is_token(method));
    let method = method.ok_or_else(|| bad("bad_method", "the method is not a token"))?;
    if method.len() > MAX_METHOD_BYTES {
        let message = format!("no method is longer than {MAX_METHOD_BYTES} bytes");
        return Err(Response::error(501, "unknown_method", message));
    }
    Ok((method, target, version))
}

/// The origin form of a target (section 3.2.1), and the authority of the absolute form (3.2.2).
fn origin_form(target: &[u8]) -> Result<(String, Option<String>), Response> {
    let bad = |message| Err(bad("bad_target", message));
    if !target.iter().all(|byte| matches!(byte, b'!'..=b'~' | 0x80..) && *byte != b'#') {
        return bad("the request target holds characters that must be percent-encoded");
    }
    // Bytes above 127 are taken as if they were percent-encoded: curl sends them as they were typed.
    let mut text = percent_encoding::percent_encode(target, percent_encoding::CONTROLS).to_string();
    if text.len() > MAX_TARGET_BYTES {
        return Err(target_too_long());
    }
    let begins_with = |scheme: &&str| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let mut authority = None;
    if let Some(scheme) = ["http://", "https://"].into_iter().find(begins_with) {
        let rest = &text[scheme.len()..];
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return bad("the request target names no host");
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        (authority, text) = (Some(host.to_owned()), format!("{slash}{path}"));
    }
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
    let lengths: Vec<&str> = head.values("Content-Length").collect();
    let codings: Vec<&str> = head.values("Transfer-Encoding").collect();
    // `parse` would take a sign as well.
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let bad = |message| Err(bad("bad_framing", message));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) if is_number(length) => length.parse().map(Framing::Length).map_err(|_| {
            let message = "no body can be as long as Content-Length says";
            Response::error(413, "too_large", message)
        }),
        ([_], []) => bad("Content-Length is no number"),
        ([], [_]) if !head.is_http_1_1 => bad("HTTP/1.0 has no Transfer-Encoding"),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([], [_]) => {
            let message = "the only Transfer-Encoding understood is chunked";
            Err(Response::error(501, "unknown_coding", message))
        }
        ([_], [_]) => bad("send Content-Length or Transfer-Encoding, not both"),
        _ => bad("the length of the body is given more than once"),
    }
}

/// RFC 9110 section 10.1.1: an expectation that cannot be met is refused; HTTP/1.0 has none.
fn expects_continue(head: &Head) -> Result<bool, Response> {
    let mut is_expected = false;
    for member in head.members("Expect").filter(|member| head.is_http_1_1 && !member.is_empty()) {
        if !member.eq_ignore_ascii_case("100-continue") {
            let message = "the only expectation met is 100-continue";
            return Err(Response::error(417, "unknown_expectation", message));
        }
        is_expected = true;
    }
    // Without a body there is nothing to wait for.
    Ok(is_expected && head.framing != Framing::Length(0))
}

/// What may stand in a registered name, an IP address or a port (RFC 3986 section 3.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}
