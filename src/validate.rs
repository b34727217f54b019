//! Strictness in front of every handler (RFC 9112): nothing gets through that another HTTP program
//! in front of this server could read differently.
//!
//! tiny_http is lenient: it takes the first of two lengths, ignores one that is no number, and
//! prefers `Transfer-Encoding` over `Content-Length`. Behind a proxy that decides otherwise, the
//! rest of one request would be the beginning of another: request smuggling. Whoever sends such a
//! request gets an error, and the connection is closed, as after every plain answer.
//!
//! (Three things cannot be seen any more behind tiny_http: white space in front of a header line,
//! a vertical tab or form feed around a value, both of which it strips, and words behind the
//! version in the request line. Proxies that matter refuse or mend them, and they cannot be used
//! here, where a connection serves one request.)

use tiny_http::{HTTPVersion, Header, Request};

use crate::http::Answer;

/// The longest request target.
const MAX_TARGET: usize = 8 * 1024;

/// The most header fields, and the most bytes of names and values together.
const MAX_FIELDS: usize = 100;
const MAX_FIELD_BYTES: usize = 32 * 1024;

/// Checks what is common to all requests.
///
/// # Errors
/// The answer that says what is wrong: 400, 413, 414, 431, 501 or 505.
pub fn validate(request: &Request) -> Result<(), Answer> {
    if !matches!(request.http_version(), HTTPVersion(1, 0 | 1)) {
        return Err(Answer::error(505, "unknown_version", "only HTTP/1.0 and HTTP/1.1 are spoken"));
    }
    check_target(request.url())?;
    let fields = request.headers();
    check_fields(fields)?;
    if !is_token(request.method().as_str()) {
        return Err(bad("bad_method", "the method is not a token"));
    }
    check_host(fields, *request.http_version() >= HTTPVersion(1, 1))?;
    check_framing(fields, *request.http_version() >= HTTPVersion(1, 1))
}

fn bad(code: &str, message: impl AsRef<str>) -> Answer {
    Answer::error(400, code, message)
}

/// Only the origin form (section 3.2.1): this server is no proxy.
fn check_target(target: &str) -> Result<(), Answer> {
    let bad = |message| Err(bad("bad_target", message));
    if target.len() > MAX_TARGET {
        let message = format!("the request target is longer than {MAX_TARGET} bytes");
        return Err(Answer::error(414, "target_too_long", message));
    }
    if !target.starts_with('/') {
        return bad("the request target must be a path beginning with /");
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return bad("the request target holds characters that must be percent-encoded");
    }
    let path = target.split('?').next().unwrap_or_default();
    let Some(path) = decode(path) else {
        return bad("the request target holds a % that begins no percent-encoding");
    };
    if path.contains(&0) {
        return bad("the path holds a NUL");
    }
    if path.split(|byte| matches!(byte, b'/' | b'\\')).any(|part| part == b"..") {
        return bad("the path leads upwards");
    }
    Ok(())
}

/// The bytes that a path stands for; `None` where a percent sign begins no percent-encoding.
pub fn decode(path: &str) -> Option<Vec<u8>> {
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                (high * 16 + low) as u8
            }
            plain => plain,
        };
        decoded.push(byte);
    }
    Some(decoded)
}

/// Names are tokens, values have no control characters but the tab (RFC 9110 section 5.5): a bare
/// line feed in a value may be a line end for others.
fn check_fields(fields: &[Header]) -> Result<(), Answer> {
    let size = |field: &Header| field.field.as_str().as_str().len() + field.value.as_str().len();
    if fields.len() > MAX_FIELDS || fields.iter().map(size).sum::<usize>() > MAX_FIELD_BYTES {
        let message = format!("more than {MAX_FIELDS} header fields or {MAX_FIELD_BYTES} bytes");
        return Err(Answer::error(431, "header_too_large", message));
    }
    for field in fields {
        let name = field.field.as_str().as_str();
        if !is_token(name) {
            return Err(bad("bad_header", "a header field's name is not a token"));
        }
        if field.value.as_str().bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
            return Err(bad("bad_header", format!("{name} holds a control character")));
        }
    }
    Ok(())
}

/// Section 3.2: exactly one, from HTTP/1.1 on.
fn check_host(fields: &[Header], required: bool) -> Result<(), Answer> {
    let mut hosts = values(fields, "Host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("bad_host", "Host is there more than once"));
    }
    match host {
        None if required => Err(bad("bad_host", "Host is missing")),
        Some(host) if !host.bytes().all(is_host_byte) => {
            Err(bad("bad_host", "Host is no host name or address with a port"))
        }
        _ => Ok(()),
    }
}

/// Section 6: one way to tell where the body ends.
fn check_framing(fields: &[Header], chunks: bool) -> Result<(), Answer> {
    let mut lengths = values(fields, "Content-Length");
    let mut codings = values(fields, "Transfer-Encoding");
    let (length, coding) = (lengths.next(), codings.next());
    if length.is_some() && coding.is_some() {
        return Err(bad("bad_framing", "send Content-Length or Transfer-Encoding, not both"));
    }
    if lengths.next().is_some() || codings.next().is_some() {
        return Err(bad("bad_framing", "the length of the body is given more than once"));
    }
    // With an upgrade, tiny_http leaves the framing of the body to us, and we know no chunks.
    if coding.is_some() && values(fields, "Connection").any(has_upgrade) {
        return Err(bad("bad_framing", "send Content-Length together with an upgrade"));
    }
    if let Some(length) = length {
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad("bad_framing", "Content-Length is no number"));
        }
        // tiny_http would take a length that it cannot hold for none at all.
        if length.parse::<usize>().is_err() {
            let message = "no body can be as long as Content-Length says";
            return Err(Answer::error(413, "too_large", message));
        }
    }
    match coding {
        Some(_) if !chunks => Err(bad("bad_framing", "HTTP/1.0 has no Transfer-Encoding")),
        Some(coding) if !coding.eq_ignore_ascii_case("chunked") => {
            let message = "the only Transfer-Encoding understood is chunked";
            Err(Answer::error(501, "unknown_coding", message))
        }
        _ => Ok(()),
    }
}

fn has_upgrade(value: &str) -> bool {
    value.to_ascii_lowercase().contains("upgrade")
}

fn values<'a>(fields: &'a [Header], name: &'static str) -> impl Iterator<Item = &'a str> {
    fields.iter().filter(move |field| field.field.equiv(name)).map(|field| field.value.as_str())
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
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

    fn fields(lines: &[&str]) -> Vec<Header> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    fn status(result: Result<(), Answer>) -> u16 {
        result.map_or_else(|answer| answer.status, |()| 200)
    }

    #[test]
    fn only_plain_paths_are_targets() {
        for good in ["/", "/a/b?c=d&e=%0A", "/..a", "/a..", "/%41", "/?x=../.."] {
            assert_eq!(status(check_target(good)), 200, "{good}");
        }
        for bad in [
            "",
            "*",
            "a",
            "http://h/",
            "h:80",
            "/a b",
            "/\u{e4}",
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
            "/%5c..%5c",
            "/a#b",
            "/a\tb",
        ] {
            assert_eq!(status(check_target(bad)), 400, "{bad}");
        }
        assert_eq!(status(check_target(&format!("/{}", "x".repeat(MAX_TARGET)))), 414);
    }

    #[test]
    fn the_length_of_a_body_is_told_once_and_well() {
        let framing = |lines: &[&str]| status(check_framing(&fields(lines), true));
        assert_eq!(framing(&[]), 200);
        assert_eq!(framing(&["Content-Length: 5"]), 200);
        assert_eq!(framing(&["transfer-encoding: Chunked"]), 200);
        for bad in ["+5", "-5", "5,5", "0x5", "5 5", "", "abc", "5;"] {
            assert_eq!(framing(&[&format!("Content-Length: {bad}")]), 400, "{bad}");
        }
        assert_eq!(framing(&["Content-Length: 5", "Content-Length: 5"]), 400);
        assert_eq!(framing(&["Content-Length: 5", "Transfer-Encoding: chunked"]), 400);
        assert_eq!(framing(&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]), 400);
        assert_eq!(framing(&["Content-Length: 99999999999999999999"]), 413);
        for unknown in ["gzip, chunked", "chunked, identity", "identity", "xchunked", "chunked;a"] {
            assert_eq!(framing(&[&format!("Transfer-Encoding: {unknown}")]), 501, "{unknown}");
        }
        assert_eq!(status(check_framing(&fields(&["Transfer-Encoding: chunked"]), false)), 400);
        assert_eq!(framing(&["Transfer-Encoding: chunked", "Connection: Upgrade"]), 400);
    }

    #[test]
    fn there_is_one_host() {
        let host = |lines: &[&str]| status(check_host(&fields(lines), true));
        assert_eq!(host(&["Host: example.org:3000"]), 200);
        assert_eq!(host(&["Host: [::1]:3000"]), 200);
        assert_eq!(host(&["Host: "]), 200);
        assert_eq!(host(&[]), 400);
        assert_eq!(host(&["Host: a", "Host: a"]), 400);
        for bad in ["a b", "a/b", "user@a", "a\\b", "a?b", "a#b"] {
            assert_eq!(host(&[&format!("Host: {bad}")]), 400, "{bad}");
        }
        assert_eq!(status(check_host(&[], false)), 200);
    }

    #[test]
    fn fields_hold_no_control_characters_and_are_not_too_many() {
        let check = |lines: &[&str]| status(check_fields(&fields(lines)));
        assert_eq!(check(&["X: a\tb"]), 200);
        for bad in ["X: a\nContent-Length: 5", "X: a\0b", "X: a\rb", "X\u{1}: a", "X(: a", ": a"] {
            assert_eq!(check(&[bad]), 400, "{bad:?}");
        }
        assert_eq!(check(&["X: a"; MAX_FIELDS]), 200);
        assert_eq!(check(&["X: a"; MAX_FIELDS + 1]), 431);
        assert_eq!(check(&[&format!("X: {}", "a".repeat(MAX_FIELD_BYTES))]), 431);
    }
}
