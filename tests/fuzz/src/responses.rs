//! A strict reader of answers (RFC 9112): everything that came on a connection must be one answer,
//! whole and well formed, possibly behind a `100 Continue`.

use crate::live::find;

/// One answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    fields: Vec<(String, String)>,
    /// Where its body begins.
    body: usize,
}

/// How much of an answer is there.
#[derive(Debug)]
pub enum Reading {
    /// More must come, or nothing will.
    Partial,
    /// One that goes on until the connection ends, or as another protocol.
    Streaming(Response),
    /// All of one.
    Whole(Response),
}

/// The statuses of this server and of tiny_http under it. (503 is not among them: nothing that one
/// client at a time sends may overload the server.)
const STATUSES: &[u16] =
    &[101, 200, 204, 304, 400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 426, 431, 501, 505];

impl Response {
    /// The value of a field that may be there once.
    fn field(&self, name: &str) -> Result<Option<&str>, String> {
        let mut values = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(format!("{name} is there twice: {:?}", self.fields)),
            (value, None) => Ok(value.map(|(_, value)| value.as_str())),
        }
    }
}

/// Reads what has come so far. `maybe_head` is true where the request may have been understood as
/// a HEAD request, whose answer has no body.
///
/// # Errors
/// Where it cannot be, or become, one answer.
pub fn read(mut bytes: &[u8], maybe_head: bool) -> Result<Reading, String> {
    loop {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(Reading::Partial) };
        let response = head(&bytes[..end], end + 4)?;
        if response.status == 100 {
            bytes = &bytes[response.body..];
            continue;
        }
        return body(response, bytes, maybe_head);
    }
}

fn head(bytes: &[u8], body: usize) -> Result<Response, String> {
    let wrong = |what: &str| format!("{what} in the answer {:?}", String::from_utf8_lossy(bytes));
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("no text"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    // Section 4: the space before the reason is there even without one.
    let version = |version: &str| first.strip_prefix(version);
    let rest = version("HTTP/1.1 ").or_else(|| version("HTTP/1.0 "));
    // Where tiny_http refuses a request by itself it repeats that one's version, whatever it is.
    let repeated = || ["HTTP/0.9 4", "HTTP/2.0 4", "HTTP/3.0 4"].iter().find_map(|v| version(v));
    let rest = rest.or_else(|| repeated().map(|_| &first[9..]));
    let rest = rest.ok_or_else(|| wrong("another version"))?.as_bytes();
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', reason @ ..] = rest else {
        return Err(wrong("no status"));
    };
    let status = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
    if status != 100 && !STATUSES.contains(&status) {
        return Err(wrong("a status that must not be"));
    }
    let is_text = |bytes: &[u8]| bytes.iter().all(|&b| b == b'\t' || (b' '..=b'~').contains(&b));
    if !is_text(reason) {
        return Err(wrong("control characters"));
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("a line without a colon"))?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) || !is_text(value.as_bytes()) {
            return Err(wrong("a malformed field"));
        }
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Ok(Response { status, fields, body })
}

fn body(response: Response, bytes: &[u8], maybe_head: bool) -> Result<Reading, String> {
    let length = response.field("Content-Length")?;
    let body = bytes.len() - response.body;
    if response.field("Transfer-Encoding")?.is_some() {
        return Err(format!("an answer in chunks: {:?}", response.fields));
    }
    let stream = response.field("Content-Type")? == Some("text/event-stream");
    match (response.status, length) {
        (101 | 204 | 304, Some(_)) => Err(format!("{} with a length", response.status)),
        (101, None) => Ok(Reading::Streaming(response)),
        (204 | 304, None) if body == 0 => Ok(Reading::Whole(response)),
        // The answer to HEAD has no length either: that of GET has none.
        (200, None) if stream => Ok(Reading::Streaming(response)),
        (status, None) => Err(format!("{status} without a length: {:?}", response.fields)),
        (status, Some(length)) => {
            let length: usize = length.parse().map_err(|_| format!("a length of {length:?}"))?;
            match body {
                body if body == length => Ok(Reading::Whole(response)),
                0 if maybe_head => Ok(Reading::Whole(response)),
                body if body < length => Ok(Reading::Partial),
                body => {
                    Err(format!("{status} with {body} bytes of {length}: more than one answer?"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match read(text.as_bytes(), false) {
            Ok(Reading::Partial) => "partial".into(),
            Ok(Reading::Streaming(response)) => format!("streaming {}", response.status),
            Ok(Reading::Whole(response)) => format!("whole {}", response.status),
            Err(_) => "wrong".into(),
        }
    }

    #[test]
    fn one_whole_answer_is_right() {
        assert_eq!(kind("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), "whole 200");
        assert_eq!(kind("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"), "partial");
        assert_eq!(kind("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc"), "wrong");
        assert_eq!(kind("HTTP/1.1 200 OK\r\n\r\n"), "wrong");
        assert_eq!(kind("HTTP/1.1 400\r\nContent-Length: 0\r\n\r\n"), "wrong");
        assert_eq!(kind("HTTP/2.0 200 \r\nContent-Length: 0\r\n\r\n"), "wrong");
        assert_eq!(kind("HTTP/1.1 204 \r\n\r\n"), "whole 204");
        let late = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(kind(late), "whole 404");
    }
}
