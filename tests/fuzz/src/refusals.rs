//! What a strict server makes of the bytes on a connection: a request's head, or why there is none
//! (RFC 9110, RFC 9112, and this server's contract). Written from the standards; it shares no code
//! with the server, and agrees with it exactly: what is not refused here is accepted there.

/// The longest target, percent-encoded.
const MAX_TARGET_BYTES: usize = 8192;

/// The longest method.
const MAX_METHOD_BYTES: usize = 32;

/// A request line of more bytes may be refused before it ends, and one that has no end must be.
const MAX_REQUEST_LINE_BYTES: usize = MAX_TARGET_BYTES + MAX_METHOD_BYTES + 64;

/// The most field lines.
const MAX_FIELDS: usize = 100;

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: String,
    /// The target in origin form.
    pub target: String,
    /// Whether it is HTTP/1.1, not HTTP/1.0.
    pub is_http_1_1: bool,
    /// Names and values, in order. `Host` is last where it comes from an absolute target.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// Whether the client may wait for `100 Continue`.
    pub expects_continue: bool,
    /// Whether it asks for a WebSocket.
    pub is_upgrade: bool,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
}

/// A reason to refuse, and the status that tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub u16, pub &'static str);

/// What a strict reader makes of bytes.
#[derive(Debug)]
pub enum Reading {
    /// Nothing has come, but for empty lines.
    Silent,
    /// A TLS handshake: the end of the connection, without a response.
    Tls,
    /// The head has no end yet, and nothing of it is wrong for certain.
    Incomplete,
    /// It is refused, for one of these reasons.
    Refused(Vec<Fault>),
    /// It is accepted, and so many bytes long.
    Head(Box<Head>, usize),
}

impl Head {
    /// The values of a field, in order.
    pub fn values(&self, wanted: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| value.as_slice()).collect()
    }

    fn has_member(&self, field: &str, token: &str) -> bool {
        members(&self.values(field)).any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// The members of a list (RFC 9110 section 5.6.1): white space is spaces and tabs, nothing else.
fn members<'a>(values: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    let parts: Vec<&[u8]> = values.iter().flat_map(|value| value.split(|b| *b == b',')).collect();
    parts.into_iter().map(trim)
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Reads the first head in `bytes`.
pub fn read(bytes: &[u8], max_head: usize) -> Reading {
    if bytes.first() == Some(&0x16) {
        return Reading::Tls;
    }
    let mut start = 0;
    while bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    let (mut lines, mut faults, mut position) = (Vec::new(), Vec::new(), start);
    let end = loop {
        let rest = &bytes[position..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else { break None };
        position += length + 1;
        match rest[..length].strip_suffix(b"\r") {
            None => {
                faults.push(Fault(400, "a line ends in LF alone"));
                break None;
            }
            Some([]) => break Some(position),
            Some(line) => lines.push(line),
        }
    };
    if end.unwrap_or(bytes.len()) > max_head {
        faults.push(Fault(431, "the head is too long"));
    }
    let Some((request_line, lines)) = lines.split_first() else {
        if bytes.len() - start > MAX_REQUEST_LINE_BYTES {
            faults.push(Fault(414, "the request line does not end"));
        }
        return match &bytes[start..] {
            _ if !faults.is_empty() => Reading::Refused(faults),
            [] | [b'\r'] => Reading::Silent,
            _ => Reading::Incomplete,
        };
    };
    if request_line.len() >= MAX_REQUEST_LINE_BYTES {
        faults.push(Fault(414, "the request line is too long"));
    }
    let words = request_line_words(request_line, &mut faults);
    let (Some(end), Some([method, target, version])) = (end, words) else {
        return if faults.is_empty() { Reading::Incomplete } else { Reading::Refused(faults) };
    };
    let head = head(method, target, version, lines, &mut faults);
    match faults.is_empty() {
        true => Reading::Head(Box::new(head), end),
        false => Reading::Refused(faults),
    }
}

/// RFC 9112 section 3: what can be known as soon as the line has ended.
fn request_line_words<'a>(line: &'a [u8], faults: &mut Vec<Fault>) -> Option<[&'a [u8]; 3]> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let Ok([method, target, version]) = <[&[u8]; 3]>::try_from(words) else {
        faults.push(Fault(400, "the request line is not three words"));
        return None;
    };
    let digits = version.strip_prefix(b"HTTP/").unwrap_or_default();
    match (version, digits) {
        (b"HTTP/1.1" | b"HTTP/1.0", _) => {}
        (_, [b'0'..=b'9', b'.', b'0'..=b'9']) => {
            faults.push(Fault(505, "a version that is not spoken here"));
        }
        _ => faults.push(Fault(400, "the third word is no version")),
    }
    if target.len() > MAX_TARGET_BYTES {
        faults.push(Fault(414, "the target is too long"));
    }
    if !is_token(method) {
        faults.push(Fault(400, "the method is no token"));
    } else if method.len() > MAX_METHOD_BYTES {
        faults.push(Fault(501, "the method is too long"));
    }
    Some([method, target, version])
}

/// What can be known when the head has ended. What it returns counts only without faults.
fn head(
    method: &[u8],
    target: &[u8],
    version: &[u8],
    lines: &[&[u8]],
    faults: &mut Vec<Fault>,
) -> Head {
    let (target, authority) = match (method, target) {
        // The asterisk form (section 3.2.4).
        (b"OPTIONS", b"*") => ("*".to_owned(), None),
        _ => origin_form(target, faults),
    };
    let mut head = Head {
        method: String::from_utf8_lossy(method).into_owned(),
        target,
        is_http_1_1: version == b"HTTP/1.1",
        fields: Vec::new(),
        framing: Framing::Length(0),
        keep_alive: false,
        expects_continue: false,
        is_upgrade: false,
    };
    if lines.len() > MAX_FIELDS {
        faults.push(Fault(431, "too many fields"));
    }
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            faults.push(Fault(400, "a field without a colon"));
            continue;
        };
        if !is_token(name) {
            faults.push(Fault(400, "a field's name is no token"));
        }
        let value = trim(value);
        if value.iter().any(|&byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) {
            faults.push(Fault(400, "a field's value holds a control character"));
        }
        head.fields.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    host(&mut head, authority, faults);
    framing(&mut head, faults);
    let (close, keep) =
        (head.has_member("Connection", "close"), head.has_member("Connection", "keep-alive"));
    head.keep_alive = !close && (head.is_http_1_1 || keep);
    head.is_upgrade = head.is_http_1_1
        && head.has_member("Connection", "upgrade")
        && head.has_member("Upgrade", "websocket");
    if head.is_upgrade && head.framing != Framing::Length(0) {
        faults.push(Fault(400, "a handshake with a body"));
    }
    if head.is_http_1_1 {
        let values = head.values("Expect");
        let all: Vec<&[u8]> = members(&values).filter(|member| !member.is_empty()).collect();
        if !all.iter().all(|member| member.eq_ignore_ascii_case(b"100-continue")) {
            faults.push(Fault(417, "an unknown expectation"));
        }
        head.expects_continue = !all.is_empty() && head.framing != Framing::Length(0);
    }
    head
}

/// RFC 9112 section 3.2: the path and query, and the authority of an absolute target.
fn origin_form(target: &[u8], faults: &mut Vec<Fault>) -> (String, Option<Vec<u8>>) {
    let mut wrong = |what| faults.push(Fault(400, what));
    let mut encoded = Vec::new();
    for byte in target {
        match byte {
            0x80.. => encoded.extend(format!("%{byte:02X}").bytes()),
            _ => encoded.push(*byte),
        }
    }
    if encoded.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'#') {
        wrong("the target holds what must be encoded");
    }
    let is_too_long = encoded.len() > MAX_TARGET_BYTES;
    let scheme = encoded.to_ascii_lowercase();
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|one| scheme.starts_with(one));
    let mut authority = None;
    if let Some(scheme) = scheme {
        let mut rest = encoded.split_off(scheme.len());
        let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
        let path = rest.split_off(end);
        if rest.is_empty() || !rest.iter().all(is_host_byte) {
            wrong("the target names no host");
        }
        let slash: &[u8] = if path.starts_with(b"/") { b"" } else { b"/" };
        (encoded, authority) = ([slash, &path].concat(), Some(rest));
    }
    if encoded.first() != Some(&b'/') {
        wrong("the target is no path");
    }
    let path = encoded.split(|&byte| byte == b'?').next().unwrap_or_default();
    match decode(path) {
        None => wrong("a malformed percent-encoding"),
        Some(path) => {
            if path.contains(&0) {
                wrong("the path holds a NUL");
            }
            // Also encoded, and also as Windows writes it.
            if path.split(|byte| b"/\\".contains(byte)).any(|part| part == b"..") {
                wrong("the path leads upwards");
            }
        }
    }
    if is_too_long {
        faults.push(Fault(414, "the target is too long when it is encoded"));
    }
    (String::from_utf8_lossy(&encoded).into_owned(), authority)
}

/// Section 3.2. The authority of an absolute target counts instead of the field (3.2.2).
fn host(head: &mut Head, authority: Option<Vec<u8>>, faults: &mut Vec<Fault>) {
    let hosts = head.values("Host");
    match hosts[..] {
        [] if head.is_http_1_1 => faults.push(Fault(400, "no Host")),
        [_, _, ..] => faults.push(Fault(400, "several Hosts")),
        [host] if authority.is_none() && !host.iter().all(is_host_byte) => {
            faults.push(Fault(400, "Host is no host"));
        }
        _ => {}
    }
    if let Some(authority) = authority {
        head.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("Host"));
        head.fields.push(("Host".to_owned(), authority));
    }
}

/// Section 6.
fn framing(head: &mut Head, faults: &mut Vec<Fault>) {
    let (lengths, codings) = (head.values("Content-Length"), head.values("Transfer-Encoding"));
    let fault = match (&lengths[..], &codings[..]) {
        ([], []) => return,
        ([_, ..], [_, ..]) => Fault(400, "a length and a coding"),
        ([_, _, ..], _) | (_, [_, _, ..]) => Fault(400, "a length or coding more than once"),
        ([length], _) if length.is_empty() || !length.iter().all(u8::is_ascii_digit) => {
            Fault(400, "the length is no number")
        }
        ([length], _) => match String::from_utf8_lossy(length).parse() {
            Ok(length) => {
                head.framing = Framing::Length(length);
                return;
            }
            Err(_) => Fault(413, "a length that nothing has"),
        },
        (_, [_]) if !head.is_http_1_1 => Fault(400, "a coding in HTTP/1.0"),
        (_, [coding]) if coding.eq_ignore_ascii_case(b"chunked") => {
            head.framing = Framing::Chunked;
            return;
        }
        _ => Fault(501, "an unknown coding"),
    };
    faults.push(fault);
}

/// What a percent-encoded text stands for.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'%' {
            let digits = std::str::from_utf8(text.get(at + 1..at + 3)?).ok()?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            decoded.push(text[at]);
            at += 1;
        }
    }
    Some(decoded)
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(token)
}

/// RFC 3986 section 3.2, without user information.
fn is_host_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        match read(text.as_bytes(), 1000) {
            Reading::Head(head, _) => format!("good: {}", head.target),
            Reading::Refused(faults) => {
                let all: Vec<_> =
                    faults.iter().map(|Fault(status, _)| status.to_string()).collect();
                all.join(" ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        assert_eq!(why("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "good: /");
        assert_eq!(why("\r\nGET http://b?c HTTP/1.0\r\n\r\n"), "good: /?c");
        assert_eq!(why("GET / HTTP/1.1\r\n\r\n"), "400");
        assert_eq!(why("GET / HTTP/1.1\r\nHost: a\r\n"), "Incomplete");
        assert_eq!(why("\r\n\r\n\r"), "Silent");
        assert_eq!(why("\x16\x03"), "Tls");
        assert_eq!(why("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), "400 400");
        assert_eq!(why("GET / HTTP/2.0\r\nX : a\n"), "400 505");
        let both =
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(why(both), "400");
        assert_eq!(why("GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n"), "400");
        assert_eq!(why(&"a".repeat(1001)), "431");
    }
}
