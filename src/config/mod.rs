//! The settings of a server: their defaults, and the check of each value. Whoever sets one, a command
//! line or an embedding program, does so through the setters of [`Config`]. Settings do not change
//! while the server runs.

mod checks;
mod error;
mod page;
mod store;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use checks::{at_least, built_in, bytes_from, checked_token, duration, interval_of};
pub use error::ConfigError;

use crate::http::forwarded::{Cidr, CidrError};
use crate::http::origin::{is_origin, normalized_origin};
use crate::os::limits::descriptor_limit;

/// The shortest interval of what is done for all clients: a shorter one would keep a processor busy
/// with nothing else.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The shortest time that a client may be given: in a shorter one no packet is there and back.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The longest message that can be allowed. A published one is kept three times: as it came, and in
/// its encodings.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// The shortest limit of a head that leaves room for a browser's fields.
pub(crate) const MIN_HEAD_BYTES: usize = 1024;

/// The longest head that can be allowed: pending connections may have one each.
const MAX_HEAD_BYTES: usize = 16 << 20;

/// Everything that can be set. A setter checks its value; where that is wrong, the setting stays as it
/// was.
///
/// ```
/// use std::time::Duration;
/// use threadcast::{Config, Server};
///
/// let mut config = Config::default();
/// config.set_listen("127.0.0.1:0")?;
/// config.set_drain(Duration::from_secs(1))?;
/// let server = Server::start(config)?;
/// assert!(server.shutdown());
///
/// let error = Config::default().set_queue(0).unwrap_err();
/// assert_eq!(error.to_string(), "queue: 0 is no whole number of at least 1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// What a field is, and in which unit, stands at its setter.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    #[cfg_attr(not(feature = "page"), allow(dead_code))]
    pub(crate) www: Option<PathBuf>,
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    pub(crate) tick: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) ping: Duration,
    pub(crate) history: usize,
    /// `None`: events are kept in memory alone.
    pub(crate) journal: Option<PathBuf>,
    pub(crate) journal_sync: JournalSync,
    /// Patterns of topics, and how many events each of these topics keeps.
    pub(crate) topic_history: Vec<(String, usize)>,
    pub(crate) queue: usize,
    pub(crate) max_backlog_bytes: usize,
    /// `None`: as many as there is room for (see [`crate::os::limits`]).
    pub(crate) max_clients: Option<usize>,
    /// `None`: no limit of its own.
    pub(crate) max_clients_per_ip: Option<usize>,
    pub(crate) max_message: usize,
    pub(crate) deflate: bool,
    pub(crate) header_timeout: Duration,
    pub(crate) max_head: usize,
    pub(crate) drain: Duration,
    pub(crate) drain_spread: Duration,
    pub(crate) allow_origin: Vec<String>,
    pub(crate) trust_proxy: Vec<Cidr>,
    /// `None`: publishing is open, but only on a server that listens on loopback.
    pub(crate) token: Option<String>,
    /// `None`: reading is public.
    pub(crate) subscribe_token: Option<String>,
    pub(crate) fanout: Fanout,
    pub(crate) demo: bool,
    #[cfg_attr(not(feature = "page"), allow(dead_code))]
    pub(crate) report: Option<PathBuf>,
    /// `None`: history is this server's own.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) redis: Option<String>,
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) redis_stream: String,
}

/// When an event in the journal is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalSync {
    /// Before its publisher gets an answer.
    Always,
    /// About a second later: a killed process loses nothing, a machine that goes down may lose that second.
    Interval,
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
    pub(crate) fn threads_per_client(self) -> u64 {
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
            journal: None,
            journal_sync: JournalSync::Interval,
            topic_history: Vec::new(),
            queue: 256,
            max_backlog_bytes: 256 << 20,
            max_clients: None,
            max_clients_per_ip: None,
            max_message: 1 << 20,
            deflate: false,
            header_timeout: Duration::from_secs(10),
            max_head: 32 << 10,
            drain: Duration::from_secs(5),
            drain_spread: Duration::from_secs(2),
            allow_origin: Vec::new(),
            trust_proxy: Vec::new(),
            token: None,
            subscribe_token: None,
            fanout: Fanout::Direct,
            demo: false,
            report: None,
            redis: None,
            redis_stream: "threadcast".to_owned(),
        }
    }
}

/// The setters. All of them return a `Result`, also the three that refuse nothing.
///
/// # Errors
/// Each says of a value that cannot be used what it should be: see [`ConfigError`].
impl Config {
    /// Where to listen: address and port, as in `127.0.0.1:3000` (the default). Port 0 lets the system
    /// choose. A port alone is one of loopback; `:3000` is one of every IPv4 address. A name is looked
    /// up, which may take as long as the resolver does.
    pub fn set_listen(&mut self, address: &str) -> Result<(), ConfigError> {
        let problem = |why: String| {
            let problem = format!("{address:?} is no ADDR:PORT such as 127.0.0.1:3000{why}");
            Err(ConfigError::new("listen", problem))
        };
        let full = match address.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None if !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("127.0.0.1:{address}")
            }
            None => address.to_owned(),
        };
        self.listen = match full.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(found)) => found,
            Ok(None) => return problem(String::new()),
            Err(error) => return problem(format!(" ({error})")),
        };
        Ok(())
    }

    /// How often system metrics are published, on topic `metrics`: from 10 ms on, 2 s by default; zero:
    /// never.
    pub fn set_tick(&mut self, interval: Duration) -> Result<(), ConfigError> {
        // Zero is right in every build.
        built_in("tick", "metrics", cfg!(feature = "metrics") || interval.is_zero())?;
        interval_of("tick", interval, MIN_INTERVAL).map(|value| self.tick = value)
    }

    /// The time without an event after which an SSE client gets a comment line: from 10 ms on, 15 s by
    /// default; zero: never.
    pub fn set_heartbeat(&mut self, interval: Duration) -> Result<(), ConfigError> {
        interval_of("heartbeat", interval, MIN_INTERVAL).map(|value| self.heartbeat = value)
    }

    /// How often a WebSocket client is pinged; silent for two of these intervals, it is closed. From
    /// 100 ms on, 30 s by default; zero: never.
    pub fn set_ping(&mut self, interval: Duration) -> Result<(), ConfigError> {
        interval_of("ping", interval, MIN_TIMEOUT).map(|value| self.ping = value)
    }

    /// How many messages may wait for one client whose socket takes no more, 256 by default; with more it is
    /// closed.
    pub fn set_queue(&mut self, messages: usize) -> Result<(), ConfigError> {
        at_least("queue", 1, messages).map(|value| self.queue = value)
    }

    /// How many bytes may wait for all clients together, 256 MiB by default; above it the slowest client
    /// is closed.
    pub fn set_max_backlog_bytes(&mut self, bytes: usize) -> Result<(), ConfigError> {
        bytes_from("max_backlog_bytes", 1, usize::MAX, bytes)
            .map(|value| self.max_backlog_bytes = value)
    }

    /// How many SSE and WebSocket clients there may be. Each takes a descriptor, so there must be fewer
    /// than the process may open. (That many may still be too many; the log tells.) By default as many as
    /// there is room for.
    pub fn set_max_clients(&mut self, clients: usize) -> Result<(), ConfigError> {
        let clients = at_least("max_clients", 1, clients)?;
        // The server itself needs some descriptors too: as many clients as there are cannot work.
        if let Some(limit) = descriptor_limit().filter(|limit| clients as u64 >= *limit) {
            let problem = format!(
                "{clients} clients need a descriptor each, and this process may open {limit} (ulimit -Hn)"
            );
            return Err(ConfigError::new("max_clients", problem));
        }
        self.max_clients = Some(clients);
        Ok(())
    }

    /// How many clients one address may have (an IPv6 network of 64 bits counts as one address). By
    /// default there is no such limit.
    pub fn set_max_clients_per_ip(&mut self, clients: usize) -> Result<(), ConfigError> {
        at_least("max_clients_per_ip", 1, clients)
            .map(|value| self.max_clients_per_ip = Some(value))
    }

    /// The longest body, and the longest WebSocket message, in bytes: up to 1 GiB, 1 MiB by default.
    pub fn set_max_message(&mut self, bytes: usize) -> Result<(), ConfigError> {
        bytes_from("max_message", 1, MAX_MESSAGE_BYTES, bytes).map(|value| self.max_message = value)
    }

    /// Whether WebSocket clients that offer it get compressed messages (RFC 7692). Off by default.
    pub fn set_deflate(&mut self, is_on: bool) -> Result<(), ConfigError> {
        // Off is right in every build.
        built_in("deflate", "deflate", cfg!(feature = "deflate") || !is_on)?;
        self.deflate = is_on;
        Ok(())
    }

    /// How long a request's head may take, and its body again: from 100 ms on, 10 s by default.
    pub fn set_header_timeout(&mut self, timeout: Duration) -> Result<(), ConfigError> {
        if timeout.is_zero() {
            let problem = "must be above 0: it keeps silent peers out";
            return Err(ConfigError::new("header_timeout", problem));
        }
        interval_of("header_timeout", timeout, MIN_TIMEOUT).map(|value| self.header_timeout = value)
    }

    /// How long a request's head (request line and header fields) may be, in bytes: from 1 KiB to 16 MiB,
    /// 32 KiB by default.
    pub fn set_max_head(&mut self, bytes: usize) -> Result<(), ConfigError> {
        bytes_from("max_head", MIN_HEAD_BYTES, MAX_HEAD_BYTES, bytes)
            .map(|value| self.max_head = value)
    }

    /// How long clients may take to leave when the server shuts down, 5 s by default; then they are cut
    /// off.
    pub fn set_drain(&mut self, timeout: Duration) -> Result<(), ConfigError> {
        duration("drain", timeout).map(|value| self.drain = value)
    }

    /// Over which time clients are spread that come back after a shutdown, 2 s by default: each event
    /// stream gets a `retry:` of its own between one second and that much more, and WebSockets are closed
    /// one after another, within half of the drain time at the most. Zero: all at once.
    pub fn set_drain_spread(&mut self, spread: Duration) -> Result<(), ConfigError> {
        duration("drain_spread", spread).map(|value| self.drain_spread = value)
    }

    /// One more origin, besides the server's own, that browsers may connect and publish from, as in
    /// `https://example.org:8443`; `*`: any.
    pub fn add_allow_origin(&mut self, origin: &str) -> Result<(), ConfigError> {
        // Browsers send neither a trailing slash nor a scheme's own port.
        let origin = normalized_origin(origin);
        if origin == "*" || is_origin(&origin) {
            self.allow_origin.push(origin);
            return Ok(());
        }
        let problem = match origin.split_once("://") {
            Some((_, authority)) if authority.contains('*') => {
                format!("{origin:?}: origins are compared whole; name each, or * for all")
            }
            _ => format!("{origin:?} is no origin such as https://example.org:8443"),
        };
        Err(ConfigError::new("allow_origin", problem))
    }

    /// One more range of addresses, as in `10.0.0.0/8` or `::1`, of proxies whose word on a client's
    /// address counts (see [`crate::http::forwarded`]).
    pub fn add_trust_proxy(&mut self, range: &str) -> Result<(), ConfigError> {
        let range = range
            .parse()
            .map_err(|error: CidrError| ConfigError::new("trust_proxy", error.to_string()))?;
        self.trust_proxy.push(range);
        Ok(())
    }

    /// The token that publishers must send as `Authorization: Bearer`: printable ASCII without spaces.
    /// Without one, publishing is open, but only on a server that listens on loopback.
    pub fn set_token(&mut self, token: &str) -> Result<(), ConfigError> {
        checked_token("token", token).map(|value| self.token = Some(value))
    }

    /// The token that readers must send (see [`crate::auth::access`]): as [`Config::set_token`], and
    /// without `"`, `,`, `;` and `\`, which no cookie can carry (RFC 6265 section 4.1.1). Without one,
    /// reading is public.
    pub fn set_subscribe_token(&mut self, token: &str) -> Result<(), ConfigError> {
        let token = checked_token("subscribe_token", token)?;
        if token.contains(['"', ',', ';', '\\']) {
            let problem = "must not hold any of \" , ; \\ which no cookie can carry";
            return Err(ConfigError::new("subscribe_token", problem));
        }
        self.subscribe_token = Some(token);
        Ok(())
    }

    /// Who writes an event to a client's socket: [`Fanout::Direct`] by default. Refuses nothing.
    pub fn set_fanout(&mut self, fanout: Fanout) -> Result<(), ConfigError> {
        self.fanout = fanout;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_named_and_changes_nothing() {
        let mut config = Config::default();
        let over_a_year = Duration::from_secs(400 * 24 * 3600);
        let too_short = Duration::from_millis(1);
        let cases = [
            (config.set_listen("nowhere"), "listen: \"nowhere\" is no ADDR:PORT"),
            (config.set_heartbeat(too_short), "heartbeat: 1ms is too short; the least is 10ms"),
            (config.set_ping(too_short), "ping: 1ms is too short; the least is 100ms"),
            (config.set_header_timeout(Duration::ZERO), "header_timeout: must be above 0"),
            (config.set_drain(over_a_year), "drain: 1year 1month 4days"),
            (config.set_journal(""), "journal: name a folder"),
            (config.set_drain_spread(over_a_year), "drain_spread: 1year 1month 4days"),
            (config.add_topic_history("", 1), "topic_history: topic is empty"),
            (config.set_queue(0), "queue: 0 is no whole number of at least 1"),
            (config.set_max_message(2 << 30), "max_message: 2147483648 is above 1073741824 bytes"),
            (config.set_max_head(1000), "max_head: 1000 is no number of bytes from 1024 on"),
            (config.set_max_clients(0), "max_clients: 0 is no whole number of at least 1"),
            (config.add_allow_origin("example.org"), "allow_origin: \"example.org\" is no origin"),
            (config.add_trust_proxy("10.0.0.1/8"), "trust_proxy: \"10.0.0.1/8\" names an address"),
            (config.set_token("with space"), "token: must be printable ASCII"),
            (config.set_subscribe_token("a;b"), "subscribe_token: must not hold any of"),
        ];
        for (set, beginning) in cases {
            let error = set.expect_err(beginning).to_string();
            assert!(error.starts_with(beginning), "{error}");
        }
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn what_is_not_built_in_can_only_be_switched_off() {
        let mut config = Config::default();
        assert_eq!(config.set_tick(Duration::ZERO), Ok(()));
        assert_eq!(config.set_deflate(false), Ok(()));
        assert_eq!(config.set_tick(MIN_INTERVAL).is_ok(), cfg!(feature = "metrics"));
        assert_eq!(config.set_deflate(true).is_ok(), cfg!(feature = "deflate"));
        assert_eq!(config.set_demo(false), Ok(()));
        assert_eq!(config.set_www(".").is_ok(), cfg!(feature = "page"));
        assert_eq!(config.set_demo(true).is_ok(), cfg!(feature = "page"));
        assert_eq!(config.set_report("Cargo.toml").is_ok(), cfg!(feature = "page"));
        assert_eq!(config.set_redis("redis://localhost").is_ok(), cfg!(feature = "redis"));
        assert_eq!(config.set_redis_stream("events").is_ok(), cfg!(feature = "redis"));
        // Where Redis is built in it keeps the events already.
        assert_eq!(config.set_journal("folder").is_ok(), !cfg!(feature = "redis"));
    }
}
