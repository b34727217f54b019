//! Which requests must be refused (RFC 9110, RFC 9112, and this server's contract): everything
//! that two HTTP programs could read in two ways. Written from the standards.

/// The head of a request, cut into its parts.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Vec<u8>,
    /// The target.
    pub target: Vec<u8>,
    /// The version.
    pub version: Vec<u8>,
    /// Names and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a strict reader makes of bytes.
#[derive(Debug)]
pub enum Reading {
    /// The head has no end.
    Incomplete,
    /// It cannot be read.
    Broken(&'static str),
    /// It has something in it that this server is documented to be lenient about.
    Doubtful,
    /// It can be read.
    Head(Head),
}

/// Reads the head.
pub fn read(bytes: &[u8]) -> Reading {
    let Some(end) = crate::live::find(bytes, b"\r\n\r\n") else { return Reading::Incomplete };
    let mut lines = split(&bytes[..end], b"\r\n");
    let first = lines.remove(0);
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    // `threadcast::validate` says why white space around a line, and words behind the version,
    // are not seen.
    if first.first().is_some_and(is_space) || first.last().is_some_and(is_space) {
        return Reading::Doubtful;
    }
    let words = split(first, b" ");
    let [method, target, version, more @ ..] = &words[..] else {
        return Reading::Broken("the request line has less than three words");
    };
    if !more.is_empty() {
        return Reading::Doubtful;
    }
    let mut fields = Vec::new();
    for line in lines {
        if line.first().is_some_and(is_space) || line.last().is_some_and(is_space) {
            return Reading::Doubtful;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Reading::Broken("a field without a colon");
        };
        let value = &line[colon + 1..];
        let spaces = value.iter().take_while(|byte| is_space(byte)).count();
        let (spaces, value) = value.split_at(spaces);
        if !spaces.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            // So is what tiny_http trims a value of beyond the standard.
            return Reading::Doubtful;
        }
        fields.push((line[..colon].to_vec(), value.to_vec()));
    }
    let [method, target, version] = [method, target, version].map(|part| part.to_vec());
    Reading::Head(Head { method, target, version, fields })
}

fn split<'a>(mut bytes: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = crate::live::find(bytes, by) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + by.len()..];
    }
    parts.push(bytes);
    parts
}

/// Why the request must not be served, if it must not.
pub fn refusal(head: &Head) -> Option<&'static str> {
    let Head { method, target, version, fields } = head;
    let one_dot_one = match &version[..] {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Some("no version that is spoken here"),
    };
    if !is_token(method) {
        return Some("the method is no token");
    }
    if let Some(why) = bad_target(target) {
        return Some(why);
    }
    for (name, value) in fields {
        if !is_token(name) {
            return Some("a field's name is no token");
        }
        if value.iter().any(|&byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) {
            return Some("a field's value holds a control character");
        }
    }
    let values = |wanted: &str| -> Vec<&[u8]> {
        let named = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(wanted.as_bytes()));
        named.map(|(_, value)| value.as_slice()).collect()
    };
    match values("Host")[..] {
        [] if one_dot_one => return Some("no Host"),
        [_, _, ..] => return Some("several Hosts"),
        _ => {}
    }
    let (lengths, codings) = (values("Content-Length"), values("Transfer-Encoding"));
    match (&lengths[..], &codings[..]) {
        ([_, ..], [_, ..]) => Some("a length and a coding"),
        ([_, _, ..], _) | (_, [_, _, ..]) => Some("a length or coding more than once"),
        ([length], _) if length.is_empty() || !length.iter().all(u8::is_ascii_digit) => {
            Some("the length is no number")
        }
        (_, [_]) if !one_dot_one => Some("a coding in HTTP/1.0"),
        (_, [coding]) if !coding.eq_ignore_ascii_case(b"chunked") => Some("an unknown coding"),
        _ => None,
    }
}

fn bad_target(target: &[u8]) -> Option<&'static str> {
    if target.first() != Some(&b'/') {
        return Some("the target is no path");
    }
    if target.len() > 8192 {
        return Some("the target is too long");
    }
    if !target.iter().all(|&byte| (0x21..0x7f).contains(&byte) && byte != b'#') {
        return Some("the target holds what must be encoded");
    }
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let Some(path) = decode(path) else { return Some("a malformed percent-encoding") };
    if path.contains(&0) {
        return Some("the path holds a NUL");
    }
    // Also encoded, and also as Windows writes it.
    let upwards = path.split(|byte| b"/\\".contains(byte)).any(|part| part == b"..");
    upwards.then_some("the path leads upwards")
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

fn is_token(text: &[u8]) -> bool {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        match read(text.as_bytes()) {
            Reading::Head(head) => refusal(&head).unwrap_or("good").to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        assert_eq!(why("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "good");
        assert_eq!(why("GET / HTTP/1.0\r\n\r\n"), "good");
        assert_eq!(why("GET / HTTP/1.1\r\n\r\n"), "no Host");
        assert_eq!(why("GET / HTTP/1.1\r\nHost: a\r\n"), "Incomplete");
        assert_eq!(why("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), "Doubtful");
        assert_eq!(why("GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n"), "a field's name is no token");
        let both =
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(why(both), "a length and a coding");
        assert_eq!(why("GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n"), "the path leads upwards");
    }
}
