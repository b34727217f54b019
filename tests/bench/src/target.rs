//! The server under test: where it is and what to ask it for.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::error::{Failure, Result};

const URL_HINT: &str = "give --url as http://HOST:PORT, for example http://127.0.0.1:3000";

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Server-Sent Events on `/events`.
    Sse,
    /// WebSocket on `/ws`.
    Ws,
}

impl Transport {
    /// Its name on the command line and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Ws => "ws",
        }
    }
}

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/events` or `/ws`: a stream of events.
    Events(Transport),
    /// `/echo`: a WebSocket that sends everything back.
    Echo,
}

/// A parsed `--url`, resolved to one address.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address all connections go to.
    pub address: SocketAddr,
    /// Whether a WebSocket on `/ws` is greeted by a first message. Where it is not, a client counts
    /// as connected with the answer to its upgrade.
    pub greets: bool,
    /// Whether `/publish` takes several events in one request, as lines of JSON.
    pub batches: bool,
    host: String,
    prefix: String,
}

/// The sample key of RFC 6455, section 1.3. The server cannot tell, and since the RFC prints the
/// answer too, the handshake can be checked without a SHA-1 in this crate.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer that belongs to [`WEBSOCKET_KEY`].
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

impl Target {
    /// Parses `http://host[:port][/prefix]` and resolves the host.
    ///
    /// `localhost` often means both `::1` and `127.0.0.1`; the first that accepts a connection
    /// is used.
    pub fn parse(url: &str) -> Result<Self> {
        let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://")) else {
            return Err(Failure::new(format!("--url {url} does not start with http://"), URL_HINT));
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let with_port = if authority.rfind(':') > authority.rfind(']') {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let addresses: Vec<SocketAddr> = with_port
            .to_socket_addrs()
            .map_err(|e| Failure::new(format!("--url {url} names no address ({e})"), URL_HINT))?
            .collect();
        let Some(&first) = addresses.first() else {
            return Err(Failure::new(format!("--url {url} names no address"), URL_HINT));
        };
        let address = if addresses.len() == 1 {
            first
        } else {
            let wait = Duration::from_secs(1);
            let answers = |a: &&SocketAddr| TcpStream::connect_timeout(a, wait).is_ok();
            *addresses.iter().find(answers).unwrap_or(&first)
        };
        let prefix = path.split(['?', '#']).next().unwrap_or("").trim_end_matches('/').to_owned();
        Ok(Self { address, greets: true, batches: true, host: authority.to_owned(), prefix })
    }

    /// A target without a name: the reference sender of `floor`.
    pub fn local(address: SocketAddr) -> Self {
        let host = address.to_string();
        Self { address, greets: true, batches: true, host, prefix: String::new() }
    }

    /// The request that opens one client. `seen` is the last event it had before, if it was here.
    pub fn opening(&self, endpoint: Endpoint, topic: Option<&str>, seen: Option<&str>) -> Vec<u8> {
        let path = match endpoint {
            Endpoint::Events(Transport::Sse) => "/events",
            Endpoint::Events(Transport::Ws) => "/ws",
            Endpoint::Echo => "/echo",
        };
        let mut head = format!("GET {}{path}", self.prefix);
        if let Some(topic) = topic {
            head.push_str("?topic=");
            escape(topic, &mut head);
        }
        let _ = write!(head, " HTTP/1.1\r\nHost: {}\r\n", self.host);
        head.push_str(match endpoint {
            Endpoint::Events(Transport::Sse) => "Accept: text/event-stream\r\n",
            _ => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: "
            }
        });
        if endpoint != Endpoint::Events(Transport::Sse) {
            let _ = write!(head, "{WEBSOCKET_KEY}\r\n");
        }
        if let Some(id) = seen {
            let _ = write!(head, "Last-Event-ID: {id}\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Appends a complete publish request to `out`.
    pub fn publish(&self, topic: &str, content_type: &str, body: &[u8], out: &mut Vec<u8>) {
        self.append_publish(topic, &format!("Content-Type: {content_type}\r\n"), body, out);
    }

    /// The same for one event, with the wish that the server closes the connection behind it.
    pub fn publish_and_close(&self, topic: &str, body: &[u8], out: &mut Vec<u8>) {
        let fields = "Content-Type: text/plain\r\nConnection: close\r\n";
        self.append_publish(topic, fields, body, out);
    }

    fn append_publish(&self, topic: &str, fields: &str, body: &[u8], out: &mut Vec<u8>) {
        let mut head = format!("POST {}/publish?topic=", self.prefix);
        escape(topic, &mut head);
        let _ = write!(
            head,
            " HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
    }
}

/// Percent-encodes a query value.
fn escape(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_host_port_and_prefix() {
        let target = Target::parse("http://127.0.0.1:3000/base/").expect("valid");
        assert_eq!(target.address, "127.0.0.1:3000".parse().expect("address"));
        let head = target.opening(Endpoint::Events(Transport::Sse), Some("a b"), Some("7-1"));
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("GET /base/events?topic=a%20b HTTP/1.1\r\nHost: 127.0.0.1:3000"));
        assert!(head.ends_with("\r\nLast-Event-ID: 7-1\r\n\r\n"));
    }

    #[test]
    fn default_port_and_ipv6() {
        assert_eq!(Target::parse("http://127.0.0.1").expect("valid").address.port(), 80);
        assert_eq!(Target::parse("http://[::1]:9/").expect("valid").address.port(), 9);
        assert_eq!(Target::parse("http://[::1]").expect("valid").address.port(), 80);
    }

    #[test]
    fn refuses_what_it_cannot_speak() {
        let error = Target::parse("https://127.0.0.1").expect_err("no TLS").to_string();
        assert!(error.contains("http://127.0.0.1:3000"), "{error}");
        assert!(Target::parse("http://").is_err());
    }

    #[test]
    fn upgrade_asks_for_a_websocket() {
        let target = Target::parse("http://127.0.0.1:1").expect("valid");
        let head = String::from_utf8(target.opening(Endpoint::Echo, None, None)).expect("text");
        assert!(head.starts_with("GET /echo HTTP/1.1\r\n"));
        assert!(head.contains("Upgrade: websocket\r\n"));
        assert!(head.ends_with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"));
    }
}
