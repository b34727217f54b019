//! Flags and environment variables, read into one [`Config`] by the main thread before it starts the
//! server. Here texts are parsed; what a value must be is checked by the setters of [`Config`].
//!
//! Every flag `--some-name VALUE` is also the environment variable `THREADCAST_SOME_NAME`; a flag
//! wins over a variable. The functions here that return `Err(String)` say what is wrong with a value;
//! [`read`] puts the name of the flag or variable in front, which makes it a [`BadFlag`].

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use log::LevelFilter;

use crate::config::{Config, Fanout, JournalSync, MIN_HEAD_BYTES};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve, and log no messages that are less severe than `log`.
    Run {
        /// The settings of the server.
        config: Box<Config>,
        /// The least severe messages that are logged.
        log: LevelFilter,
    },
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// A flag or variable that cannot be used. Displayed as one line that names it, says what is wrong
/// with it, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFlag(String);

impl fmt::Display for BadFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever was typed.
        f.write_str(&self.0.replace(['\n', '\r'], " "))
    }
}

impl std::error::Error for BadFlag {}

/// The text of `--help`.
pub const HELP: &str = "\
threadcast: Server-Sent Events and WebSockets on one port, one blocking thread per connection

Usage: threadcast [FLAGS]

  --listen ADDR:PORT         where to listen; port 0 lets the system choose [127.0.0.1:3000]
  --www DIR                  serve this folder instead of the built-in page
  --tick DURATION            how often system metrics are published, 0 = never [2s]
  --heartbeat DURATION       comment line to an SSE client this long without an event, 0 = never [15s]
  --ping DURATION            ping to a WebSocket client; silent for two, it is dropped; 0 = never [30s]
  --history N                events kept for clients that come back [1000]
  --journal DIR              keep them in this folder over a restart [in memory alone]
  --journal-sync always|interval
                             an event is on the disk: before its answer, or a second later [interval]
  --topic-history PATTERN=N  events that each topic keeps for itself, for 'gauges/*=1' or one topic (repeatable)
  --queue N                  messages that may wait for a slow client [256]
  --max-backlog-bytes BYTES  that may wait for all; above it the most behind go [268435456]
  --max-clients N            SSE and WebSocket clients together [as many as descriptors and threads allow]
  --max-clients-per-ip N     of these, how many one address may have [no limit of its own]
  --max-message BYTES        longest published body and WebSocket message [1048576]
  --deflate                  compress for WebSocket clients that offer it (permessage-deflate)
  --header-timeout DURATION  time for a request's header, and again for its body [10s]
  --max-head BYTES           longest head of a request: request line and header fields [32768]
  --drain DURATION           time for clients to go at shutdown [5s]
  --drain-spread DURATION    over which time they are told to come back, each at another moment [2s]
  --allow-origin ORIGIN      another origin that browsers may connect and publish from (repeatable)
  --trust-proxy CIDR         proxies that name their clients' addresses (repeatable)
  --token TOKEN              publishers must send 'Authorization: Bearer TOKEN'
  --token-file FILE          the same, read from a file
  --subscribe-token TOKEN    readers must send it too: as a bearer token, a cookie, or for a ticket
  --subscribe-token-file FILE
                             the same, read from a file
  --fanout direct|handoff    who writes an event: the broadcaster, or each client's thread [direct]
  --demo                     let the page experiment with the server (only on a loopback address)
  --report FILE              results.jsonl of threadcast-bench compare, for the page to show
  --redis URL                share events and history with other servers through this Redis
  --redis-stream NAME        the key of its stream [threadcast]
  --log LEVEL                off, error, warn, info, debug or trace [info]
  --help, --version

A DURATION is a number with a unit: 500ms, 2s, 1m. Each flag is also an environment variable:
--max-clients is THREADCAST_MAX_CLIENTS (several values: separated by commas). Flags win. A switch
such as --deflate takes no value, or --deflate=false; as a variable it is 1 or true, 0 or false.
";

/// All flags that set something, for their variables and for [`HELP`].
const FLAGS: &[&str] = &[
    "listen",
    "www",
    "tick",
    "heartbeat",
    "ping",
    "history",
    "journal",
    "journal-sync",
    "topic-history",
    "queue",
    "max-backlog-bytes",
    "max-clients",
    "max-clients-per-ip",
    "max-message",
    "deflate",
    "header-timeout",
    "max-head",
    "drain",
    "drain-spread",
    "allow-origin",
    "trust-proxy",
    "token",
    "token-file",
    "subscribe-token",
    "subscribe-token-file",
    "fanout",
    "demo",
    "report",
    "redis",
    "redis-stream",
    "log",
];

/// The flags that need no value.
const SWITCHES: &[&str] = &["deflate", "demo"];

/// Reads the command line (without the program's name) and the environment: `variable` returns the
/// value of the variable of that name.
///
/// # Errors
/// The first flag or variable that cannot be used.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, BadFlag> {
    let mut settings = Settings { config: Config::default(), log: LevelFilter::Info };
    // Variables first: a flag overwrites what its variable has set. An empty one counts as unset.
    for flag in FLAGS {
        let name = format!("THREADCAST_{}", flag.to_uppercase().replace('-', "_"));
        if let Some(value) = variable(&name).filter(|value| !value.is_empty()) {
            settings.set(flag, &value).map_err(|why| BadFlag(format!("{name}: {why}")))?;
        }
    }
    // A repeated flag adds to its list, but not to the list of its variable: that is set aside.
    let origins = std::mem::take(&mut settings.config.allow_origin);
    let proxies = std::mem::take(&mut settings.config.trust_proxy);
    let topics = std::mem::take(&mut settings.config.topic_history);
    let mut parser = lexopt::Parser::from_args(arguments);
    let unusable = |error: lexopt::Error| BadFlag(error.to_string());
    while let Some(argument) = parser.next().map_err(unusable)? {
        let flag = match argument {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(Command::Help),
            lexopt::Arg::Long("version") | lexopt::Arg::Short('V') => {
                return Ok(Command::Version);
            }
            lexopt::Arg::Long(flag) => FLAGS.iter().find(|known| **known == flag).copied(),
            _ => None,
        };
        let Some(flag) = flag else {
            let unknown = argument.unexpected();
            return Err(BadFlag(format!("{unknown}; see --help")));
        };
        // A switch takes a value only behind `=`: the next argument is not its own.
        let value = match SWITCHES.contains(&flag) {
            true => parser.optional_value().unwrap_or_else(|| "true".into()),
            false => parser.value().map_err(unusable)?,
        };
        let value = value.to_str().ok_or_else(|| BadFlag(format!("--{flag}: not UTF-8")))?;
        settings.set(flag, value).map_err(|why| BadFlag(format!("--{flag}: {why}")))?;
    }
    // No such flag: the variable's list counts.
    if settings.config.allow_origin.is_empty() {
        settings.config.allow_origin = origins;
    }
    if settings.config.trust_proxy.is_empty() {
        settings.config.trust_proxy = proxies;
    }
    if settings.config.topic_history.is_empty() {
        settings.config.topic_history = topics;
    }
    Ok(Command::Run { config: Box::new(settings.config), log: settings.log })
}

/// What has been read so far.
struct Settings {
    config: Config,
    log: LevelFilter,
}

impl Settings {
    /// Reads the value of one flag.
    fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let config = &mut self.config;
        let set = match flag {
            "listen" => config.set_listen(value),
            "www" => config.set_www(value),
            "tick" => config.set_tick(duration(value)?),
            "heartbeat" => config.set_heartbeat(duration(value)?),
            "ping" => config.set_ping(duration(value)?),
            "history" => config.set_history(number(value, 0)?),
            "journal" => config.set_journal(value),
            "journal-sync" => config.set_journal_sync(journal_sync(value)?),
            "topic-history" => {
                let mut all = topic_histories(value)?.into_iter();
                all.try_for_each(|(pattern, events)| config.add_topic_history(pattern, events))
            }
            "queue" => config.set_queue(number(value, 1)?),
            "max-backlog-bytes" => config.set_max_backlog_bytes(bytes(value, 1)?),
            "max-clients" => config.set_max_clients(number(value, 1)?),
            "max-clients-per-ip" => config.set_max_clients_per_ip(number(value, 1)?),
            "max-message" => config.set_max_message(bytes(value, 1)?),
            "deflate" => config.set_deflate(switch(value)?),
            "header-timeout" => config.set_header_timeout(duration(value)?),
            "max-head" => config.set_max_head(bytes(value, MIN_HEAD_BYTES)?),
            "drain" => config.set_drain(duration(value)?),
            "drain-spread" => config.set_drain_spread(duration(value)?),
            "allow-origin" => {
                value.split(',').map(str::trim).try_for_each(|one| config.add_allow_origin(one))
            }
            "trust-proxy" => {
                value.split(',').map(str::trim).try_for_each(|one| config.add_trust_proxy(one))
            }
            "token" => config.set_token(value),
            "token-file" => config.set_token(&token_in(value)?),
            "subscribe-token" => config.set_subscribe_token(value),
            "subscribe-token-file" => config.set_subscribe_token(&token_in(value)?),
            "fanout" => config.set_fanout(fanout(value)?),
            "demo" => config.set_demo(switch(value)?),
            "report" => config.set_report(value),
            "redis" => config.set_redis(value),
            "redis-stream" => config.set_redis_stream(value),
            "log" => {
                self.log = level(value)?;
                Ok(())
            }
            _ => unreachable!("only names from FLAGS come here"),
        };
        set.map_err(|error| error.describe(value))
    }
}

fn duration(value: &str) -> Result<Duration, String> {
    humantime::parse_duration(value)
        .map_err(|_| format!("{value:?} is no duration such as 500ms, 2s, 1m or 0"))
}

/// A whole number. For a text that is none, the message names `least` as the setter's does.
fn number(value: &str, least: usize) -> Result<usize, String> {
    value.parse().map_err(|_| format!("{value:?} is no whole number of at least {least}"))
}

/// A number of bytes, which may have a binary unit: `64k`, `1MiB`. Where it is too large to be one, the
/// message names `least`.
fn bytes(value: &str, least: usize) -> Result<usize, String> {
    let end = value.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(value.len());
    let shift = match value[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("{value:?} is no number of bytes such as 1048576, 64k or 1MiB")),
    };
    let number = number(&value[..end], 0)?;
    let bytes = number.checked_mul(1 << shift);
    bytes.ok_or_else(|| format!("{value:?} is no number of bytes from {least} on"))
}

/// Whether a switch is on.
fn switch(value: &str) -> Result<bool, String> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("{value:?} is none of 1, true, 0, false")),
    }
}

/// Patterns, and how many events each of their topics keeps. (A topic's name may hold `=`.)
fn topic_histories(value: &str) -> Result<Vec<(&str, usize)>, String> {
    fn one(text: &str) -> Result<(&str, usize), String> {
        let (pattern, events) =
            text.rsplit_once('=').ok_or_else(|| format!("{text:?} is no PATTERN=N"))?;
        Ok((pattern, number(events, 0)?))
    }
    value.split(',').map(|text| one(text.trim())).collect()
}

fn fanout(value: &str) -> Result<Fanout, String> {
    match value {
        "direct" => Ok(Fanout::Direct),
        "handoff" => Ok(Fanout::Handoff),
        _ => Err(format!("{value:?} is neither direct nor handoff")),
    }
}

fn journal_sync(value: &str) -> Result<JournalSync, String> {
    match value {
        "always" => Ok(JournalSync::Always),
        "interval" => Ok(JournalSync::Interval),
        _ => Err(format!("{value:?} is neither always nor interval")),
    }
}

fn level(value: &str) -> Result<LevelFilter, String> {
    value.parse().map_err(|_| format!("{value:?} is none of off, error, warn, info, debug, trace"))
}

/// The text of a file that holds a token and nothing else, without the line's end.
fn token_in(path: &str) -> Result<String, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, String> {
        let arguments = arguments.iter().map(Into::into);
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match super::read(arguments, variable) {
            Ok(Command::Run { config, .. }) => Ok(*config),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn addresses_and_sizes_are_taken_as_people_write_them() {
        for (text, address) in
            [("4000", "127.0.0.1:4000"), (":4000", "0.0.0.0:4000"), ("[::1]:4000", "[::1]:4000")]
        {
            let config = read(&["--listen", text], &[]).unwrap();
            assert_eq!(config.listen.to_string(), address);
        }
        for (text, bytes) in [("1000", 1000), ("64k", 65_536), ("1MiB", 1 << 20), ("1 GB", 1 << 30)]
        {
            assert_eq!(read(&["--max-message", text], &[]).unwrap().max_message, bytes);
        }
        for bad in ["", "k", "1.5M", "1 TiB", "-1", "99999999999999999999", "18446744073709551615k"]
        {
            assert!(read(&["--max-message", bad], &[]).is_err(), "{bad:?}");
        }
        for bad in ["99999", ":", ":x", ""] {
            assert!(read(&["--listen", bad], &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = read(&[], &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
        assert_eq!(config.tick, Duration::from_secs(2));
        assert_eq!(config.max_message, 1_048_576);
        assert_eq!(config.max_backlog_bytes, 268_435_456);
        assert_eq!((config.max_clients, config.max_clients_per_ip), (None, None));
        assert_eq!(config.fanout, Fanout::Direct);
    }

    #[test]
    fn a_flag_wins_over_a_variable() {
        let variables = [("THREADCAST_QUEUE", "7"), ("THREADCAST_HEADER_TIMEOUT", "3s")];
        let config = read(&["--queue", "9"], &variables).unwrap();
        assert_eq!((config.queue, config.header_timeout), (9, Duration::from_secs(3)));
        let config = read(
            &["--allow-origin=https://a.example", "--allow-origin", "http://B.example:81"],
            &[("THREADCAST_ALLOW_ORIGIN", "https://c.example")],
        );
        assert_eq!(config.unwrap().allow_origin, ["https://a.example", "http://b.example:81"]);
        let variables = [("THREADCAST_TRUST_PROXY", "10.0.0.0/8, ::1")];
        let proxies = |arguments| {
            let config = read(arguments, &variables).unwrap();
            config.trust_proxy.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(proxies(&[]), ["10.0.0.0/8", "::1/128"]);
        let flags = ["--trust-proxy", "192.0.2.1", "--trust-proxy=192.0.2.2,192.0.2.3"];
        assert_eq!(proxies(&flags), ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"]);
        let variables = [("THREADCAST_TOPIC_HISTORY", "a/*=1, b=c=5")];
        let kept = |arguments| read(arguments, &variables).unwrap().topic_history;
        let pair = |pattern: &str, events| (pattern.to_owned(), events);
        assert_eq!(kept(&[]), [pair("a/*", 1), pair("b=c", 5)]);
        let flags = ["--topic-history", "*=0", "--topic-history=a=1,a=2"];
        assert_eq!(kept(&flags), [pair("*", 0), pair("a", 2)]);
    }

    #[test]
    fn what_cannot_be_used_is_named_in_one_line() {
        let cases: &[(&[&str], &str)] = &[
            (&["--tick", "soon"], "--tick"),
            (&["--tick"], "--tick"),
            (&["--queue", "0"], "--queue"),
            (&["--topic-history", "gauges/*"], "--topic-history"),
            (&["--topic-history", "gauges/*=many"], "--topic-history"),
            (&["--topic-history", "=1"], "--topic-history"),
            (&["--queue", "-1"], "--queue"),
            (&["--max-clients-per-ip", "0"], "--max-clients-per-ip"),
            (&["--max-backlog-bytes", "0"], "--max-backlog-bytes"),
            (&["--max-backlog-bytes", "256X"], "--max-backlog-bytes"),
            (&["--tick", "1ms"], "--tick"),
            (&["--heartbeat", "1us"], "--heartbeat"),
            (&["--ping", "50ms"], "--ping"),
            (&["--header-timeout", "1ms"], "--header-timeout"),
            (&["--max-message", "2GiB"], "--max-message"),
            (&["--max-message", "18446744073709551615"], "--max-message"),
            (&["--max-message", "0"], "--max-message"),
            (&["--max-head", "1GiB"], "--max-head"),
            (&["--max-head", "1000"], "--max-head"),
            (&["--max-clients", "18446744073709551615"], "--max-clients"),
            (&["--deflate=yes"], "--deflate"),
            (&["--deflate=0", "true"], "true"),
            (&["--header-timeout", "0"], "--header-timeout"),
            (&["--listen", "nowhere"], "--listen"),
            (&["--fanout", "both"], "--fanout"),
            (&["--journal", ""], "--journal"),
            (&["--journal-sync", "never"], "--journal-sync"),
            (&["--demo=maybe"], "--demo"),
            (&["--report", "/does/not/exist"], "--report"),
            (&["--report", "/"], "--report"),
            (&["--log", "loud"], "--log"),
            (&["--token", "with space"], "--token"),
            (&["--token-file", "/does/not/exist"], "--token-file"),
            (&["--subscribe-token", "with space"], "--subscribe-token"),
            (&["--subscribe-token", "semi;colon"], "--subscribe-token"),
            (&["--subscribe-token-file", "/does/not/exist"], "--subscribe-token-file"),
            (&["--www", "/does/not/exist"], "--www"),
            (&["--allow-origin", "example.org/path"], "--allow-origin"),
            (&["--allow-origin", "https://*.example.org"], "--allow-origin"),
            (&["--allow-origin", "http://localhost:*"], "--allow-origin"),
            (&["--allow-origin", "https://example.org:99999"], "--allow-origin"),
            (&["--allow-origin", "https://example.org:"], "--allow-origin"),
            (&["--allow-origin", "https://example.org:0443"], "--allow-origin"),
            (&["--allow-origin", "https://:8443"], "--allow-origin"),
            (&["--allow-origin", "https://a;b"], "--allow-origin"),
            (&["--allow-origin", "http://::1"], "--allow-origin"),
            (&["--allow-origin", "http://[::1"], "--allow-origin"),
            (&["--allow-origin", "1http://example.org"], "--allow-origin"),
            (&["--allow-origin", "://example.org"], "--allow-origin"),
            (&["--allow-origin", ""], "--allow-origin"),
            (&["--trust-proxy", "proxy.example"], "--trust-proxy"),
            (&["--trust-proxy", "10.0.0.1/8"], "--trust-proxy"),
            (&["--nonsense"], "--nonsense"),
            (&["extra\nline"], "extra"),
        ];
        for (arguments, name) in cases {
            let error = read(arguments, &[]).map(|_| *arguments).unwrap_err();
            assert!(error.contains(name) && !error.contains('\n'), "{arguments:?}: {error}");
        }
        let error = read(&[], &[("THREADCAST_PING", "x")]).unwrap_err();
        assert!(error.starts_with("THREADCAST_PING: "), "{error}");
    }

    #[test]
    fn origins_of_every_kind_can_be_named() {
        for (given, kept) in [
            ("https://Example.org:443/", "https://example.org"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://my_host.example.:1", "http://my_host.example.:1"),
            ("wss://example.org:65535", "wss://example.org:65535"),
            (
                "chrome-extension://mhfbmdgcfjbbpaeojofohoefgiehjai",
                "chrome-extension://mhfbmdgcfjbbpaeojofohoefgiehjai",
            ),
            ("capacitor://localhost", "capacitor://localhost"),
            ("file:///", "file://"),
            ("NULL", "null"),
            ("*", "*"),
        ] {
            assert_eq!(read(&["--allow-origin", given], &[]).unwrap().allow_origin, [kept]);
        }
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn a_switch_needs_no_value_but_may_have_one() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&[], "", false),
            (&["--deflate"], "", true),
            (&["--deflate", "--queue", "9"], "0", true),
            (&["--deflate=1"], "false", true),
            (&[], "1", true),
            (&[], "true", true),
            (&[], "0", false),
            (&["--deflate=false"], "true", false),
        ];
        for (arguments, variable, on) in cases {
            let config = read(arguments, &[("THREADCAST_DEFLATE", variable)]);
            assert_eq!(config.unwrap().deflate, *on, "{arguments:?} {variable}");
        }
    }

    #[cfg(not(feature = "deflate"))]
    #[test]
    fn what_was_not_built_is_said_in_one_line() {
        let error = read(&["--deflate"], &[]).unwrap_err();
        assert!(error.starts_with("--deflate: not in this build"), "{error}");
        assert!(!read(&["--deflate=0"], &[]).unwrap().deflate);
    }

    #[test]
    fn help_names_every_flag() {
        for flag in FLAGS {
            assert!(HELP.contains(&format!("--{flag} ")), "{flag}");
        }
    }
}
