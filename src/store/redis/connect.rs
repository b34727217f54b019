//! Connections to the Redis server.

use std::time::Duration;

use redis::{Client, Connection, ErrorKind, ProtocolVersion, RedisError, RedisResult};

/// How long it may take to connect, to send a command, and to get an answer.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// Where Redis is.
pub struct Address {
    client: Client,
    /// For people: host and port, or the path, without user and password.
    pub name: String,
}

impl Address {
    /// Reads `redis://[[user]:password@]host[:port][/database]`; with `rediss://` over TLS, or
    /// `unix:///path`.
    ///
    /// # Errors
    /// What is wrong with it. The text does not repeat the URL, which may hold a password.
    pub fn parse(url: &str) -> Result<Address, String> {
        let is_tls = url.starts_with("rediss:") || url.starts_with("valkeys:");
        if is_tls && !cfg!(feature = "redis-tls") {
            return Err("TLS is not in this build: its cargo feature 'redis-tls' is off".into());
        }
        let client = Client::open(url).map_err(|error| {
            format!("no URL such as redis://:password@host:6379/0 ({})", describe(&error))
        })?;
        let info = client.get_connection_info().clone();
        let name = info.addr().to_string();
        // What is read here looks different in RESP3, and small commands must not wait for each other.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        let client = Client::open(info).map_err(|error| describe(&error))?;
        Ok(Address { client, name })
    }

    /// Connects. An answer may take [`TIMEOUT`], or `block` more where the command waits for that long.
    pub fn connect(&self, block: Duration) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT + block))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        Ok(connection)
    }
}

/// What went wrong, in one line. The texts of Redis itself say it best.
pub fn describe(error: &RedisError) -> String {
    let text = match (error.code(), error.detail()) {
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            "it refuses the user or the password".to_owned()
        }
        _ if error.is_timeout() => format!("no answer within {} s", TIMEOUT.as_secs()),
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (None, Some(detail)) => detail.to_owned(),
        _ => error.to_string(),
    };
    text.replace(['\r', '\n'], " ")
}
