//! The opening handshake, server side (RFC 6455 section 4.2).

use tungstenite::handshake::derive_accept_key;

use crate::http::Response;
use crate::listener::connection::Connection;
use crate::ws::deflate::Window;
use crate::ws::negotiation::negotiate;

/// The only version there is (section 4.1).
const VERSION: &str = "13";

/// Whether a request asks for a WebSocket, rightly or wrongly.
pub fn is_asked_for(connection: &Connection) -> bool {
    connection.head().has_member("Upgrade", "websocket")
}

/// Whether a client tries to open a WebSocket, not only a proxy that offers to on every request.
pub fn is_attempted(connection: &Connection) -> bool {
    is_asked_for(connection) && connection.header("Sec-WebSocket-Key").is_some()
}

/// Whether a client offers to speak `protocol`. Names are compared as they are (section 4.2.2).
pub fn is_offered(connection: &Connection, protocol: &str) -> bool {
    connection.head().members("Sec-WebSocket-Protocol").any(|offered| offered == protocol)
}

/// A request that is right.
#[derive(Debug)]
pub struct Accepted {
    /// The answer's head, `101 Switching Protocols`.
    pub head: Vec<u8>,
    /// For compressed messages to the client, if they were agreed on.
    pub deflate: Option<Window>,
}

/// Checks an upgrade request. The answer names the `protocol` that was chosen among those offered;
/// none where the server speaks no offered one (section 4.2.2, step 5). It accepts an offer to
/// compress if there is one that can be met and `deflate` allows it.
///
/// # Errors
/// The answer that says what is missing: 426 for a request for something else or another
/// version, 405 for a method other than GET, 400 for anything malformed. Origins are the
/// router's business.
pub fn check(
    connection: &Connection,
    protocol: Option<&str>,
    deflate: bool,
) -> Result<Accepted, Response> {
    let bad = |message: &str| Err(Response::error(400, "bad_handshake", message));
    if connection.method() != "GET" {
        return Err(Response::error(405, "method_not_allowed", "a WebSocket starts with GET")
            .with("Allow", "GET, OPTIONS"));
    }
    if !is_asked_for(connection) {
        return Err(upgrade_required("this is a WebSocket: connect with a WebSocket client"));
    }
    if !connection.head().is_http_1_1 {
        return bad("a WebSocket handshake is an HTTP/1.1 request");
    }
    if !connection.head().is_upgrade {
        return bad("send 'Connection: Upgrade'");
    }
    match connection.header("Sec-WebSocket-Version") {
        Some(VERSION) => {}
        Some(_) => return Err(upgrade_required("only WebSocket version 13 is spoken here")),
        None => return bad("Sec-WebSocket-Version is missing; send 13"),
    }
    let key = match connection.header("Sec-WebSocket-Key") {
        Some(key) if is_key(key) => key,
        Some(_) => return bad("Sec-WebSocket-Key must be 16 bytes in base64"),
        None => return bad("Sec-WebSocket-Key is missing"),
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Connection: Upgrade\r\n\
         Upgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(protocol) = protocol {
        head += &format!("Sec-WebSocket-Protocol: {protocol}\r\n");
    }
    let agreed = deflate.then(|| negotiate(connection.head().values("Sec-WebSocket-Extensions")));
    let deflate = agreed.flatten().map(|agreed| {
        head += &format!("Sec-WebSocket-Extensions: {}\r\n", agreed.response);
        agreed.window
    });
    head += "\r\n";
    Ok(Accepted { head: head.into_bytes(), deflate })
}

/// Section 4.4: the versions that would be understood are named.
fn upgrade_required(message: &str) -> Response {
    Response::error(426, "upgrade_required", message)
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", VERSION)
}

/// 16 bytes in base64 are 22 digits and two signs of padding; the last digit carries two bits.
fn is_key(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let Some(digits) = key.strip_suffix("==").map(str::as_bytes) else {
        return false;
    };
    digits.len() == 22 && digits.iter().all(|byte| digit(*byte)) && b"AQgw".contains(&digits[21])
}

#[cfg(test)]
mod tests {
    use super::is_key;

    #[test]
    fn keys_are_sixteen_bytes_in_base64() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ==")); // the one of RFC 6455 section 1.3
        assert!(is_key("AAAAAAAAAAAAAAAAAAAAAA=="));
        for bad in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZQ==x",
            "dGhlIHNhbXBsZSBub25jZ!==",
        ] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
