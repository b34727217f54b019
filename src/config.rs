//! The settings of a server, with their defaults. [`crate::flags`] reads them from a command line; an
//! embedding program fills them in itself. They do not change while the server runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::http::forwarded::Cidr;

/// Everything that can be set. The fields have the names of the flags; a flag's text is in
/// [`crate::flags::HELP`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Address and port to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Folder served instead of the page inside the binary.
    pub www: Option<PathBuf>,
    /// How often a metrics event is published; zero: never.
    pub tick: Duration,
    /// The time without an event after which an SSE client gets a comment line; zero: never.
    pub heartbeat: Duration,
    /// How often a WebSocket client is pinged; silent for two of these, it is closed. Zero: never.
    pub ping: Duration,
    /// How many events are kept for clients that come back with the id of the last one they saw.
    pub history: usize,
    /// How many messages may wait for one client; with more it is closed.
    pub queue: usize,
    /// How many bytes may wait for all clients together; above it the slowest client is closed.
    pub max_backlog_bytes: usize,
    /// How many SSE and WebSocket clients there may be; `None`: as many as there is room for (see
    /// [`crate::os::limits`]).
    pub max_clients: Option<usize>,
    /// How many of them one address may have (an IPv6 network of 64 bits counts as one address);
    /// `None`: no limit of its own.
    pub max_clients_per_ip: Option<usize>,
    /// The longest body, and the longest WebSocket message, in bytes.
    pub max_message: usize,
    /// Whether WebSocket clients that offer it get compressed messages (RFC 7692).
    pub deflate: bool,
    /// How long a request's head may take, and its body again.
    pub header_timeout: Duration,
    /// How long a request's head may be, in bytes.
    pub max_head: usize,
    /// How long clients may take to leave when the server shuts down; then they are cut off.
    pub drain: Duration,
    /// Origins besides the server's own that browsers may connect and publish from; `*`: any.
    pub allow_origin: Vec<String>,
    /// The proxies whose word on a client's address counts (see [`crate::http::forwarded`]).
    pub trust_proxy: Vec<Cidr>,
    /// The token that publishers must send; `None`: without one, but only on a server that listens on
    /// loopback.
    pub token: Option<String>,
    /// The token that readers must send (see [`crate::auth::access`]); `None`: reading is public.
    pub subscribe_token: Option<String>,
    /// Who writes an event to a client's socket.
    pub fanout: Fanout,
    /// The least severe messages that are logged.
    pub log: LevelFilter,
}

/// Who writes an event to a client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fanout {
    /// The broadcaster, as long as it need not wait; else the client's own thread.
    Direct,
    /// The client's own thread, which every event reaches through the client's channel.
    Handoff,
}

impl Fanout {
    /// How many threads a client has at the most.
    pub fn threads_per_client(self) -> u64 {
        match self {
            Fanout::Direct => 1,
            // A WebSocket's own thread is blocked in `read`: another one writes.
            Fanout::Handoff => 2,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            www: None,
            tick: Duration::from_secs(2),
            heartbeat: Duration::from_secs(15),
            ping: Duration::from_secs(30),
            history: 1000,
            queue: 256,
            max_backlog_bytes: 256 << 20,
            max_clients: None,
            max_clients_per_ip: None,
            max_message: 1 << 20,
            deflate: false,
            header_timeout: Duration::from_secs(10),
            max_head: 32 << 10,
            drain: Duration::from_secs(5),
            allow_origin: Vec::new(),
            trust_proxy: Vec::new(),
            token: None,
            subscribe_token: None,
            fanout: Fanout::Direct,
            log: LevelFilter::Info,
        }
    }
}
