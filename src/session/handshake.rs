//! The opening handshake of a WebSocket, server side (RFC 6455 section 4.2): checks the request's head,
//! and makes the response's. It reads and writes nothing.

use std::{error, fmt};

use tungstenite::handshake::derive_accept_key;

use crate::http::Response;
use crate::listener::connection::Connection;
use crate::ws::deflate::Window;
use crate::ws::negotiation::negotiate;

/// The only version of the protocol (section 4.1).
const VERSION: &str = "13";

/// Whether a request asks for a WebSocket. Its handshake may still be wrong.
pub fn is_asked_for(connection: &Connection) -> bool {
    connection.head().has_member("Upgrade", "websocket")
}

/// Whether a client tries to open a WebSocket. Some proxies send `Upgrade` with every request, but no
/// key.
pub fn is_attempted(connection: &Connection) -> bool {
    is_asked_for(connection) && connection.header("Sec-WebSocket-Key").is_some()
}

/// Whether a client offers the subprotocol `protocol`. Case matters (section 4.2.2).
pub fn is_offered(connection: &Connection, protocol: &str) -> bool {
    connection.head().members("Sec-WebSocket-Protocol").any(|offered| offered == protocol)
}

/// Why a handshake is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It is malformed; the text says what to send.
    Malformed(&'static str),
    /// It has another method than GET.
    NotGet,
    /// The request is no handshake of a version that the server speaks.
    UpgradeRequired(&'static str),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::Malformed(message) | HandshakeError::UpgradeRequired(message) => {
                message
            }
            HandshakeError::NotGet => "a WebSocket starts with GET",
        })
    }
}

impl error::Error for HandshakeError {}

impl From<HandshakeError> for Response {
    fn from(error: HandshakeError) -> Response {
        let response = |status, code| Response::error(status, code, error.to_string());
        match error {
            HandshakeError::Malformed(_) => response(400, "bad_handshake"),
            HandshakeError::NotGet => {
                response(405, "method_not_allowed").with("Allow", "GET, OPTIONS")
            }
            // Section 4.4: the versions that the server speaks are named.
            HandshakeError::UpgradeRequired(_) => response(426, "upgrade_required")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", VERSION),
        }
    }
}

/// A handshake that is accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The response's head, `101 Switching Protocols`.
    pub head: Vec<u8>,
    /// The window for compressed messages to the client, if both sides agreed on compression.
    pub deflate: Option<Window>,
}

/// Checks a handshake. The response names the subprotocol `protocol`, which is one that the client offers,
/// or none (section 4.2.2, step 5). If `deflate` allows it, the response accepts the first offer of
/// compression that the server can meet.
///
/// # Errors
/// 426 for a request that asks for something else or for another version, 405 for a method other than
/// GET, 400 for anything malformed. The router checks origin and token.
pub fn check(
    connection: &Connection,
    protocol: Option<&str>,
    deflate: bool,
) -> Result<Accepted, HandshakeError> {
    let bad = |message| Err(HandshakeError::Malformed(message));
    // In the order in which somebody who tries things out gets them right.
    if connection.method() != "GET" {
        return Err(HandshakeError::NotGet);
    }
    if !is_asked_for(connection) {
        let message = "this is a WebSocket: connect with a WebSocket client";
        return Err(HandshakeError::UpgradeRequired(message));
    }
    if !connection.head().is_http_1_1 {
        return bad("a WebSocket handshake is an HTTP/1.1 request");
    }
    if !connection.head().is_upgrade {
        return bad("send 'Connection: Upgrade'");
    }
    match connection.header("Sec-WebSocket-Version") {
        Some(VERSION) => {}
        Some(_) => {
            let message = "only WebSocket version 13 is spoken here";
            return Err(HandshakeError::UpgradeRequired(message));
        }
        None => return bad("Sec-WebSocket-Version is missing; send 13"),
    }
    let key = match connection.header("Sec-WebSocket-Key") {
        Some(key) if is_key(key) => key,
        Some(_) => return bad("Sec-WebSocket-Key must be 16 bytes in base64"),
        None => return bad("Sec-WebSocket-Key is missing"),
    };
    // The key's hash proves to the client that this server read its handshake.
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
