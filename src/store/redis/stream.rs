//! The stream's commands.

use std::time::Duration;

use redis::{Connection, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, Value, cmd};

use super::connect::describe;
use super::entry::{Content, Entry};
use crate::event::{Draft, EventId};
use crate::store::window::MAX_BYTES;

/// How long an idempotency key is known.
const KEY_LIFETIME_MS: u64 = 300_000;

/// The most entries that are read at once: with the longest events, of 1 MiB by default, they are 100 MiB.
pub const MAX_ENTRIES: usize = 100;

/// The script that publishes.
const SCRIPT: &str = include_str!("publish.lua");

/// An entry as Redis sends it.
type RawEntry = (String, Content);

/// A stream on a Redis server that was found to be right, and the script's name there.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its key.
    pub name: String,
    /// How many entries it keeps, at least.
    retention: usize,
    sha: String,
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
            log::warn!("Redis may evict the stream (maxmemory-policy {policy}); choose noeviction");
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
    pub fn publish(
        &self,
        connection: &mut Connection,
        seen: EventId,
        drafts: &[Draft],
    ) -> RedisResult<Vec<EventId>> {
        self.run_script(connection, seen, false, drafts)
    }

    /// Writes a marker with an id above `seen`.
    pub fn mark(&self, connection: &mut Connection, seen: EventId) -> RedisResult<()> {
        self.run_script(connection, seen, true, &[]).map(drop)
    }

    fn run_script(
        &self,
        connection: &mut Connection,
        seen: EventId,
        must_mark: bool,
        drafts: &[Draft],
    ) -> RedisResult<Vec<EventId>> {
        let key_name = |key: &str| format!("{}:key:{key}", self.name);
        let keys: Vec<String> = drafts.iter().filter_map(Draft::key).map(key_name).collect();
        let numbers = [
            self.retention.to_string(),
            seen.to_string(),
            KEY_LIFETIME_MS.to_string(),
            u8::from(must_mark).to_string(),
        ];
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
        ids.iter().map(|id| parse_id(id)).collect()
    }

    /// The id that the stream gave last, whether that entry is still there or not.
    pub fn last_id(&self, connection: &mut Connection) -> RedisResult<EventId> {
        if !cmd("EXISTS").arg(&self.name).query::<bool>(connection)? {
            return Ok(EventId::default());
        }
        let info: Vec<Value> = cmd("XINFO").arg("STREAM").arg(&self.name).query(connection)?;
        let is_id =
            |name: &Value| matches!(name, Value::BulkString(name) if name == b"last-generated-id");
        let pair = info.chunks_exact(2).find(|pair| is_id(&pair[0]));
        parse_id(&String::from_redis_value_ref(pair.map_or(&Value::Nil, |pair| &pair[1]))?)
    }

    /// The first entries after `last`. Waits for one, if `block` says for how long.
    pub fn read_after(
        &self,
        connection: &mut Connection,
        last: EventId,
        block: Option<Duration>,
    ) -> RedisResult<Vec<Entry>> {
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(MAX_ENTRIES);
        if let Some(block) = block {
            command.arg("BLOCK").arg(block.as_millis() as u64);
        }
        command.arg("STREAMS").arg(&self.name).arg(last.to_string());
        // By stream. Nil: nothing came.
        let found: Option<Vec<(String, Vec<RawEntry>)>> = command.query(connection)?;
        found.into_iter().flatten().flat_map(|(_, entries)| entries).map(parse_entry).collect()
    }

    /// The newest `count` entries, or as many as the window can keep; the newest first.
    pub fn newest(&self, connection: &mut Connection, count: usize) -> RedisResult<Vec<Entry>> {
        let (mut found, mut bytes, mut end) = (Vec::new(), 0, "+".to_owned());
        while found.len() < count && bytes < MAX_BYTES {
            let size = MAX_ENTRIES.min(count - found.len());
            let mut command = cmd("XREVRANGE");
            command.arg(&self.name).arg(&end).arg("-").arg("COUNT").arg(size);
            let entries: Vec<RawEntry> = command.query(connection)?;
            let is_last = entries.len() < size;
            for entry in entries {
                let entry = parse_entry(entry)?;
                bytes += entry.1.iter().map(Vec::len).sum::<usize>();
                end = predecessor(entry.0).to_string();
                found.push(entry);
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// What the entry `id` holds, if it is there.
    pub fn entry(&self, connection: &mut Connection, id: EventId) -> RedisResult<Option<Content>> {
        let mut command = cmd("XRANGE");
        command.arg(&self.name).arg(id.to_string()).arg(id.to_string());
        let found: Vec<RawEntry> = command.query(connection)?;
        Ok(found.into_iter().next().map(|(_, content)| content))
    }
}

/// The greatest id below `id`.
fn predecessor(id: EventId) -> EventId {
    match id.sequence.checked_sub(1) {
        Some(sequence) => EventId { sequence, ..id },
        None => EventId { millis: id.millis.saturating_sub(1), sequence: u64::MAX },
    }
}

fn parse_entry((id, content): RawEntry) -> RedisResult<Entry> {
    Ok((parse_id(&id)?, content))
}

fn parse_id(text: &str) -> RedisResult<EventId> {
    let error = || (ErrorKind::UnexpectedReturnType, "no stream id", text.to_owned()).into();
    text.parse().map_err(|_| error())
}

fn query<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> Result<T, String> {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]).query(connection).map_err(|error| describe(&error))
}
