//! A strict reader of responses (RFC 9112): what comes on a connection must be responses, each
//! whole and well formed.

use crate::live::find;

/// One response.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    fields: Vec<(String, String)>,
    /// The body; empty in a response to HEAD.
    pub body: Vec<u8>,
}

/// How much of a response is there.
#[derive(Debug)]
pub enum Reading {
    /// More must come, or nothing will.
    Partial,
    /// One that goes on until the connection ends, or as another protocol.
    Streaming(Response),
    /// All of one, and how many bytes that are.
    Whole(Response, usize),
}

/// The statuses of this server. (Neither 500 nor 503 is among them: nothing that clients send may
/// make the server fail, and those of this fuzzer are too few to overload it.)
const STATUSES: &[u16] = &[
    100, 101, 200, 204, 304, 400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 426, 431, 501, 505,
];

impl Response {
    /// The value of a field that may be there once.
    fn field(&self, name: &str) -> Result<Option<&str>, String> {
        let mut values = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(format!("{name} is there twice: {:?}", self.fields)),
            (value, None) => Ok(value.map(|(_, value)| value.as_str())),
        }
    }

    /// Whether `Connection` names `option`.
    pub fn has_option(&self, option: &str) -> bool {
        let value = self.field("Connection").ok().flatten().unwrap_or_default();
        value.split(", ").any(|one| one.eq_ignore_ascii_case(option))
    }

    /// The code of an error: `{"error":{"code":…}}`.
    pub fn code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(body["error"]["code"].as_str()?.to_owned())
    }
}

/// Reads the first response in what has come so far. The response to HEAD has no body.
///
/// # Errors
/// Where it cannot be, or become, a response.
pub fn read(bytes: &[u8], is_to_head: bool) -> Result<Reading, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(Reading::Partial) };
    let mut response = head(&bytes[..end])?;
    let rest = &bytes[end + 4..];
    let length = response.field("Content-Length")?;
    let is_stream = response.field("Content-Type")? == Some("text/event-stream; charset=utf-8");
    match response.field("Transfer-Encoding")? {
        None => {}
        Some("chunked") if is_stream && length.is_none() => {}
        Some(_) => return Err(format!("a response in chunks: {:?}", response.fields)),
    }
    let length = match (response.status, length) {
        (100 | 101 | 204 | 304, Some(_)) => {
            return Err(format!("{} with a length", response.status));
        }
        (101, None) => return Ok(Reading::Streaming(response)),
        (100 | 204 | 304, None) => 0,
        // The length of the response to GET is not known, and so that to HEAD has none.
        (200, None) if is_stream && is_to_head && response.has_option("close") => 0,
        (200, None) if is_stream && response.has_option("close") => {
            return Ok(Reading::Streaming(response));
        }
        (status, None) => return Err(format!("{status} without a length: {:?}", response.fields)),
        (_, Some(length)) => {
            let length = length.parse().map_err(|_| format!("a length of {length:?}"))?;
            if is_to_head { 0 } else { length }
        }
    };
    match rest.get(..length) {
        None => Ok(Reading::Partial),
        Some(body) => {
            response.body = body.to_vec();
            Ok(Reading::Whole(response, end + 4 + length))
        }
    }
}

fn head(bytes: &[u8]) -> Result<Response, String> {
    let wrong = |what: &str| format!("{what} in the response {:?}", String::from_utf8_lossy(bytes));
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("no text"))?;
    let mut lines = text.split("\r\n");
    // RFC 9112 section 4: the space before the reason is there even without one.
    let rest = lines.next().unwrap_or_default().strip_prefix("HTTP/1.1 ");
    let rest = rest.ok_or_else(|| wrong("another version"))?.as_bytes();
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', reason @ ..] = rest else {
        return Err(wrong("no status"));
    };
    let status = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
    if !STATUSES.contains(&status) {
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
    Ok(Response { status, fields, body: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        match read(text.as_bytes(), false) {
            Ok(Reading::Partial) => "partial".into(),
            Ok(Reading::Streaming(response)) => format!("streaming {}", response.status),
            Ok(Reading::Whole(response, length)) => format!("{length} of {}", response.status),
            Err(_) => "wrong".into(),
        }
    }

    #[test]
    fn one_whole_response_is_right() {
        assert_eq!(kind("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc"), "40 of 200");
        assert_eq!(kind("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"), "partial");
        assert_eq!(kind("HTTP/1.1 200 OK\r\n\r\n"), "wrong");
        assert_eq!(kind("HTTP/1.1 400\r\nContent-Length: 0\r\n\r\n"), "wrong");
        assert_eq!(kind("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"), "wrong");
        assert_eq!(kind("HTTP/1.1 204 \r\n\r\n"), "17 of 204");
        assert_eq!(kind("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404"), "25 of 100");
    }
}
