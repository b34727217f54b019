//! The Redis server: its address, connections to it, and what it must be.

use std::time::Duration;

use redis::{
    Client, Connection, ErrorKind, FromRedisValue, ProtocolVersion, RedisError, RedisResult,
    ServerErrorKind, cmd,
};

use crate::event::{Draft, EventId};

/// How long it may take to connect, to send a command, and to get an answer.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idempotency key is known.
const KEY_LIFETIME_MS: u64 = 300_000;

/// The script that publishes.
const SCRIPT: &str = include_str!("publish.lua");

/// Where Redis is.
pub struct Address {
    client: Client,
    /// For people: host and port, or the path, without user and password.
    pub name: String,
}

/// A stream on a Redis server that was found to be right, and the script's name there.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its key.
    pub name: String,
    /// How many entries it keeps, at least.
    retention: usize,
    sha: String,
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

impl Stream {
    /// Checks the server and the stream, and loads the script.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(
        connection: &mut Connection,
        name: &str,
        retention: usize,
    ) -> Result<Stream, String> {
        let info: String = query(connection, &["INFO"])?;
        let value = |name: &str| {
            let values = info.lines().filter_map(|line| line.split_once(':'));
            let mut values = values.filter(|(known, _)| *known == name);
            values.next().map_or("", |(_, value)| value.trim())
        };
        let version = value("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < 5) {
            return Err(format!("its version is {version:?}; streams need 5.0 or later"));
        }
        match (value("cluster_enabled"), value("redis_mode")) {
            ("1", _) | (_, "cluster") => {
                return Err("it is part of a Redis Cluster; name a single server".into());
            }
            (_, "sentinel") => return Err("it is a Sentinel; name the Redis server itself".into()),
            _ => {}
        }
        if value("maxmemory_policy").starts_with("allkeys") {
            let policy = value("maxmemory_policy");
            log::warn!(
                "Redis may evict the stream (maxmemory-policy {policy}); choose volatile-ttl or noeviction"
            );
        }
        match query::<String>(connection, &["TYPE", name])?.as_str() {
            "stream" | "none" => {}
            other => {
                return Err(format!(
                    "its key {name:?} is a {other}; choose another --redis-stream"
                ));
            }
        }
        // Loaded scripts stay until Redis restarts; those that were only run may be evicted.
        let sha = query(connection, &["SCRIPT", "LOAD", SCRIPT])?;
        Ok(Stream { name: name.to_owned(), retention, sha })
    }

    /// Publishes drafts, all or none, and returns their ids; before them a marker, where the stream ends below
    /// `seen`.
    pub fn run_script(
        &self,
        connection: &mut Connection,
        seen: EventId,
        drafts: &[Draft],
    ) -> RedisResult<Vec<EventId>> {
        let key_name = |key: &str| format!("{}:key:{key}", self.name);
        let keys: Vec<String> = drafts.iter().filter_map(Draft::key).map(key_name).collect();
        let numbers = [self.retention.to_string(), seen.to_string(), KEY_LIFETIME_MS.to_string()];
        let mut arguments: Vec<&str> = numbers.iter().map(String::as_str).collect();
        for draft in drafts {
            let has_key = if draft.key().is_some() { "1" } else { "0" };
            let name = draft.name().unwrap_or_default();
            arguments.extend([has_key, draft.topic(), name, draft.data()]);
        }
        let mut run = |command: &str, script: &str| {
            let mut command = cmd(command);
            command.arg(script).arg(1 + keys.len()).arg(&self.name).arg(&keys).arg(&arguments);
            command.query::<Vec<String>>(connection)
        };
        let ids = match run("EVALSHA", &self.sha) {
            // Redis has restarted.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                run("EVAL", SCRIPT)?
            }
            other => other?,
        };
        ids.iter().map(|id| id.parse().map_err(|_| not_an_id(id))).collect()
    }

    /// The id that the stream gave last, whether that entry is still there or not.
    pub fn last_id(&self, connection: &mut Connection) -> RedisResult<EventId> {
        if !cmd("EXISTS").arg(&self.name).query::<bool>(connection)? {
            return Ok(EventId::default());
        }
        let info: Vec<redis::Value> =
            cmd("XINFO").arg("STREAM").arg(&self.name).query(connection)?;
        let pair = info.chunks_exact(2).find(|pair| {
            matches!(&pair[0], redis::Value::BulkString(name) if name == b"last-generated-id")
        });
        let id = String::from_redis_value(pair.map_or(redis::Value::Nil, |pair| pair[1].clone()))?;
        id.parse().map_err(|_| not_an_id(&id))
    }
}

fn not_an_id(text: &str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, "no stream id", text.to_owned()).into()
}

fn query<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> Result<T, String> {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]).query(connection).map_err(|error| describe(&error))
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
