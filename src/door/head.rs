//! The head of a request (RFC 9112 sections 2 to 7): where it ends, and what it says.
//!
//! A head is checked as strictly as a front proxy checks it: anything that two programs could read
//! differently is a way to smuggle one request inside another. The checks are about what a request
//! means; the router decides whether the server has a response.
//!
//! [`Scanner`] looks for the head's end while the bytes come. It reads each byte once, so a head in many
//! small pieces costs no more than one in a single piece. It refuses at once what cannot become right
//! any more (a bare line feed, an unknown version, a line that is too long), without waiting for the end.
//! Then `parse` takes the complete head apart; `httparse` reads the field lines.
//!
//! Nothing here reads a socket or waits. The accept thread calls it, and the threads that read heads
//! ([`super::Door::read_head`]). Sections without a name of a document are of RFC 9112.

use std::ops::Range;

use super::error::DoorError;
use crate::http::head::{Framing, Head, is_token, percent_decode};

/// The longest request target, in bytes, percent-encoded.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The longest method, in bytes. The longest one in IANA's registry has 17.
const MAX_METHOD_BYTES: usize = 32;

/// The most field lines.
const MAX_FIELDS: usize = 100;

/// Whether a client begins with a TLS handshake (RFC 8446 section 5.1), which no method does. Such a
/// client would not understand a response.
pub fn is_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x16])
}

/// A reader of one head, which may come in pieces.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The first byte that has not been read.
    position: usize,
    /// The beginning of the line that is not complete.
    line_start: usize,
    /// The beginning of the request line, once this line is complete.
    head_start: Option<usize>,
}

impl Scanner {
    /// Takes the head off `bytes`, which are all that have come, if it is complete. To be called again
    /// with more bytes behind the same ones until it is. `max_head` is the most bytes of a head.
    ///
    /// # Errors
    /// As soon as it is certain that these bytes cannot become a head that is accepted.
    pub fn take(
        &mut self,
        bytes: &mut Vec<u8>,
        max_head: usize,
    ) -> Result<Option<Head>, DoorError> {
        let Some(range) = self.scan(bytes, max_head)? else { return Ok(None) };
        let head = parse(&bytes[range.clone()])?;
        bytes.drain(..range.end);
        Ok(Some(head))
    }

    /// The head's place in `bytes`, if it is complete. Reads what has come since the last call.
    fn scan(&mut self, bytes: &[u8], max_head: usize) -> Result<Option<Range<usize>>, DoorError> {
        while let Some(offset) = bytes[self.position..].iter().position(|byte| *byte == b'\n') {
            let line_feed = self.position + offset;
            let start = std::mem::replace(&mut self.line_start, line_feed + 1);
            self.position = self.line_start;
            // Section 2.2 allows a server to take a bare line feed for a line's end. Some programs do and
            // some do not, so it is refused.
            let Some(line) = bytes[start..line_feed].strip_suffix(b"\r") else {
                let message = "lines end in CR LF; this one ends in LF alone";
                return Err(DoorError::Malformed("bad_line", message));
            };
            match self.head_start {
                // Empty lines in front of a request are skipped (section 2.2).
                None if line.is_empty() => {}
                // Checked here, and again in `parse`: what is wrong must not wait for the head's end.
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
                return Err(DoorError::HeadTooLong(max_head));
            }
        }
        // No more line feeds. A line without an end must not grow up to the limit of the whole head.
        self.position = bytes.len();
        let line_bytes = bytes.len() - self.line_start;
        if self.head_start.is_none() && line_bytes > MAX_TARGET_BYTES + MAX_METHOD_BYTES + 64 {
            return Err(DoorError::TargetTooLong(MAX_TARGET_BYTES));
        }
        if bytes.len() > max_head { Err(DoorError::HeadTooLong(max_head)) } else { Ok(None) }
    }

    /// Whether a part of a request has come. Empty lines do not count.
    pub fn has_begun(&self, bytes: &[u8]) -> bool {
        self.head_start.is_some() || !matches!(bytes[self.line_start..], [] | [b'\r'])
    }
}

/// Takes a head apart that [`Scanner`] has found complete.
// Not inlined: its table of fields, 3 KiB, would be in the frame of every thread that waits for a head,
// and cost each one another resident page of stack.
#[inline(never)]
pub(crate) fn parse(bytes: &[u8]) -> Result<Head, DoorError> {
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
        // httparse is lenient about line ends. The scanner was not, so these are all of the head.
        Ok(httparse::Status::Complete((used, lines))) if used == rest.len() => lines,
        Err(httparse::Error::TooManyHeaders) => {
            return Err(DoorError::TooManyFields(MAX_FIELDS));
        }
        Err(httparse::Error::HeaderName) => {
            let message = "a header field's name is not a token";
            return Err(DoorError::Malformed("bad_header", message));
        }
        _ => {
            let message = "a header field's value holds a control character";
            return Err(DoorError::Malformed("bad_header", message));
        }
    };
    // The fields first: all that follows is read from them.
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
    // An authority in the target replaces Host (section 3.2.2).
    for line in lines.iter().filter(|line| authority.is_none() || !is_host(line)) {
        // Bytes above 127 are opaque data (RFC 9110 section 5.5), and no reason to refuse a request.
        head.fields.push((line.name.to_owned(), String::from_utf8_lossy(line.value).into_owned()));
    }
    head.fields.extend(authority.clone().map(|authority| ("Host".to_owned(), authority)));
    check_host(&head, lines.iter().filter(|line| is_host(line)).count())?;
    head.framing = framing(&head)?;
    // An HTTP/1.0 client must ask for a connection that stays open (section 9.3).
    let has_option = |option| head.has_member("Connection", option);
    let keep_alive = !has_option("close") && (head.is_http_1_1 || has_option("keep-alive"));
    // `Upgrade` counts where `Connection` names it, and not in HTTP/1.0 (RFC 9110 section 7.8). An offer of
    // another protocol is ignored, and the request is served.
    let is_upgrade =
        head.is_http_1_1 && has_option("upgrade") && head.has_member("Upgrade", "websocket");
    if is_upgrade && head.framing != Framing::Length(0) {
        return Err(DoorError::Malformed("bad_handshake", "a WebSocket handshake has no body"));
    }
    let expects_continue = expects_continue(&head)?;
    Ok(Head { keep_alive, is_upgrade, expects_continue, ..head })
}

/// Method, target and version (section 3): exactly three words with one space between them.
fn split_request_line(line: &[u8]) -> Result<(&str, &[u8], &[u8]), DoorError> {
    let bad = |message| Err(DoorError::Malformed("bad_request_line", message));
    let mut words = line.split(|byte| *byte == b' ');
    let [Some(method), Some(target), Some(version), None] = [(); 4].map(|()| words.next()) else {
        return bad("send a method, a target and a version: GET / HTTP/1.1");
    };
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        // A right version, but of another HTTP; anything else is no version.
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(DoorError::UnknownVersion);
        }
        _ => return bad("the version is not HTTP/1.1 or HTTP/1.0"),
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(DoorError::TargetTooLong(MAX_TARGET_BYTES));
    }
    let method = std::str::from_utf8(method).ok().filter(|method| is_token(method));
    let method = method.ok_or(DoorError::Malformed("bad_method", "the method is not a token"))?;
    if method.len() > MAX_METHOD_BYTES {
        return Err(DoorError::UnknownMethod(MAX_METHOD_BYTES));
    }
    Ok((method, target, version))
}

/// The origin form of a target (section 3.2.1), and the authority of the absolute form (3.2.2).
fn origin_form(target: &[u8]) -> Result<(String, Option<String>), DoorError> {
    let bad = |message| Err(DoorError::Malformed("bad_target", message));
    if !target.iter().all(|byte| matches!(byte, b'!'..=b'~' | 0x80..) && *byte != b'#') {
        return bad("the request target holds characters that must be percent-encoded");
    }
    // Bytes above 127 count as if they were percent-encoded: curl sends them as the user typed them.
    let mut text = percent_encoding::percent_encode(target, percent_encoding::CONTROLS).to_string();
    // Checked again, since this makes three bytes of one.
    if text.len() > MAX_TARGET_BYTES {
        return Err(DoorError::TargetTooLong(MAX_TARGET_BYTES));
    }
    // The absolute form: the authority stands where Host would, the rest is in origin form.
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
    // What a path must not hold is refused for all handlers, though only files would be hurt.
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

/// One `Host` field and no more, which HTTP/1.0 may leave out (section 3.2). `sent` is how many came, also
/// where the target's authority replaces them.
fn check_host(head: &Head, sent: usize) -> Result<(), DoorError> {
    let bad = |message| Err(DoorError::Malformed("bad_host", message));
    match head.values("Host").next() {
        _ if sent > 1 => bad("Host is there more than once"),
        _ if sent == 0 && head.is_http_1_1 => bad("Host is missing"),
        Some(host) if !host.bytes().all(is_host_byte) => {
            bad("Host is no host name or address with a port")
        }
        _ => Ok(()),
    }
}

/// Where the body ends (section 6). A head that says it twice is refused: that is how requests are
/// smuggled.
fn framing(head: &Head) -> Result<Framing, DoorError> {
    let lengths: Vec<&str> = head.values("Content-Length").collect();
    let codings: Vec<&str> = head.values("Transfer-Encoding").collect();
    // `parse` alone would accept a sign.
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let bad = |message| Err(DoorError::Malformed("bad_framing", message));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) if is_number(length) => {
            length.parse().map(Framing::Length).map_err(|_| DoorError::LengthTooLarge)
        }
        ([_], []) => bad("Content-Length is no number"),
        ([], [_]) if !head.is_http_1_1 => bad("HTTP/1.0 has no Transfer-Encoding"),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([], [_]) => Err(DoorError::UnknownCoding),
        ([_], [_]) => bad("send Content-Length or Transfer-Encoding, not both"),
        _ => bad("the length of the body is given more than once"),
    }
}

/// Whether the client waits for `100 Continue` (RFC 9110 section 10.1.1). Any other expectation is
/// refused. HTTP/1.0 has none.
fn expects_continue(head: &Head) -> Result<bool, DoorError> {
    let mut is_expected = false;
    for member in head.members("Expect").filter(|member| head.is_http_1_1 && !member.is_empty()) {
        if !member.eq_ignore_ascii_case("100-continue") {
            return Err(DoorError::UnknownExpectation);
        }
        is_expected = true;
    }
    // Without a body there is nothing to wait for.
    Ok(is_expected && head.framing != Framing::Length(0))
}

/// The bytes of host names, IP addresses and ports (RFC 3986 section 3.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}
