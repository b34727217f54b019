//! Several servers that share a Redis stream, against a real `redis-server`. Where that is not installed
//! nothing here can run: each test says so; with `THREADCAST_REQUIRE_REDIS=1` it fails.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::sse::Sse;
use common::{Folder, PATIENCE, Server, wait_for};
use threadcast::store::delivery::Delivery;
use threadcast::store::redis::{Redis, RedisOptions};
use threadcast::store::window::Window;
use threadcast::{Draft, EventId, PublishError};

/// A redis-server of its own; killed when dropped.
struct RedisServer {
    child: Child,
    port: u16,
    folder: Folder,
    arguments: Vec<String>,
}

/// Starts a redis-server without persistence, or says why there is none.
fn redis(arguments: &[&str]) -> Option<RedisServer> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    if let Err(error) = Command::new("redis-server").arg("--version").output() {
        let required = std::env::var("THREADCAST_REQUIRE_REDIS").is_ok();
        assert!(!required, "redis-server is required, but cannot run: {error}");
        // Not `eprintln`: the test harness would keep it to itself.
        let text = format!("CANNOT RUN without redis-server (apt install redis-server): {error}\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    }
    let folder = Folder::new(&format!("redis-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let port = free_port();
    let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
    let child = RedisServer::spawn(port, &folder, &arguments);
    let server = RedisServer { child, port, folder, arguments };
    server.wait_ready();
    Some(server)
}

/// A port for a server that stops and starts again. It is none that the system gives to whoever connects:
/// while the server is away, a client would take the port, and be connected to itself. (Nor is that which is
/// 10,000 above it, on which members of a cluster listen, too.)
fn free_port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = u64::from(std::process::id()) * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (number % 10_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok()
        {
            return port;
        }
    }
}

impl RedisServer {
    fn spawn(port: u16, folder: &Folder, arguments: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--dir", folder.path.to_str().unwrap()]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn wait_ready(&self) {
        wait_for("redis-server", || {
            let answer = self.try_cli(&["PING"]);
            answer.contains("PONG") || answer.contains("NOAUTH")
        });
    }

    /// The URL, with `login` (such as `:password@`) in it.
    fn url_with(&self, login: &str) -> String {
        format!("redis://{login}127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
        self.url_with("")
    }

    fn try_cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(words);
        let output = command.output().expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a command that must not fail.
    fn cli(&self, words: &[&str]) -> String {
        let answer = self.try_cli(words);
        let is_error = answer.split(' ').next().is_some_and(|word| {
            word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase()) && word != "PONG"
        });
        assert!(!is_error || answer == "OK", "{words:?}: {answer}");
        answer
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.unwrap().success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the same port: empty, unless the arguments say otherwise.
    fn start(&mut self) {
        self.child = RedisServer::spawn(self.port, &self.folder, &self.arguments);
        self.wait_ready();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The store of one server, and what it has delivered.
struct Node {
    store: Redis,
    delivered: Arc<Mutex<Vec<Delivery>>>,
    /// While a test holds this, nothing is delivered.
    gate: Arc<Mutex<()>>,
}

fn options(url: &str) -> RedisOptions {
    let (url, stream) = (url.to_owned(), "threadcast".to_owned());
    RedisOptions { url, stream, history: 100, has_topic_history: false }
}

fn try_open(options: &RedisOptions) -> Result<Node, String> {
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let gate = Arc::new(Mutex::new(()));
    let window = Window::new(options.history, Vec::new());
    let (to, closed) = (Arc::clone(&delivered), Arc::clone(&gate));
    let deliver = Arc::new(move |delivery| {
        to.lock().unwrap().push(delivery);
        drop(closed.lock().unwrap());
    });
    let store = Redis::open(options, &window, deliver).map_err(|error| error.to_string())?;
    Ok(Node { store, delivered, gate })
}

fn open(url: &str) -> Node {
    try_open(&options(url)).unwrap()
}

fn draft(data: &str) -> Draft {
    Draft::new("t", None, data).unwrap()
}

fn keyed(key: &str, data: &str) -> Draft {
    draft(data).with_key(key).unwrap()
}

impl Node {
    fn try_publish(&self, draft: Draft) -> Result<EventId, PublishError> {
        self.store.append(vec![draft]).map(|ids| ids[0])
    }

    fn publish(&self, data: &str) -> EventId {
        self.try_publish(draft(data)).unwrap()
    }

    fn delivered(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.delivered.lock().unwrap()
    }

    /// What was delivered: data, or `gap`. Fails unless ids rise.
    fn log(&self) -> Vec<String> {
        let mut last = EventId::default();
        let mut line = |delivery: &Delivery| {
            let (id, text) = match delivery {
                Delivery::Event(event) => (event.id, event.data().to_owned()),
                Delivery::Gap(id) => (*id, "gap".to_owned()),
            };
            assert!(id > last, "{id} came behind {last}");
            last = id;
            text
        };
        self.delivered().iter().map(&mut line).collect()
    }

    fn wait_log(&self, expected: &[&str]) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.log() != expected {
            let late = std::time::Instant::now() > deadline;
            assert!(!late, "{:?} is not {expected:?}; {:?}", self.log(), self.store.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Publishes again and again, as clients are told to, until it works.
    fn insist(&self, draft: &Draft) -> EventId {
        let mut id = None;
        wait_for("the store to take an event", || {
            id = self.try_publish(draft.clone()).ok();
            id.is_some()
        });
        id.unwrap()
    }

    fn wait_delivered(&self, last: EventId) {
        let is_last =
            |delivery: &Delivery| matches!(delivery, Delivery::Event(event) if event.id >= last);
        wait_for("the last event", || self.delivered().last().is_some_and(is_last));
    }

    fn wait_away(&self) {
        wait_for("the reader to notice", || self.store.status().problem.is_some());
    }

    fn wait_back(&self) {
        wait_for("the reader to come back", || self.store.status().problem.is_none());
    }
}

#[test]
fn all_servers_deliver_everything_once_in_one_order() {
    let Some(redis) = redis(&[]) else { return };
    let nodes = [open(&redis.url()), open(&redis.url()), open(&redis.url())];
    std::thread::scope(|scope| {
        for node in &nodes {
            for thread in 0..4 {
                scope.spawn(move || {
                    let mut last = EventId::default();
                    for number in 0..50 {
                        let id = node.publish(&format!("{thread} {number}"));
                        assert!(id > last, "{id} after {last}");
                        last = id;
                    }
                });
            }
        }
    });
    for node in &nodes {
        wait_for("600 events", || node.delivered().len() == 600);
    }
    let ids = |node: &Node| {
        let id = |delivery: &Delivery| match delivery {
            Delivery::Event(event) => event.id,
            Delivery::Gap(id) => panic!("gap {id}"),
        };
        node.delivered().iter().map(id).collect::<Vec<_>>()
    };
    assert!(ids(&nodes[0]).is_sorted_by(|one, next| one < next));
    assert!(ids(&nodes[0]) == ids(&nodes[1]) && ids(&nodes[0]) == ids(&nodes[2]));
}

#[test]
fn a_key_is_known_to_all_servers_and_publishes_once() {
    let Some(redis) = redis(&[]) else { return };
    let nodes = [open(&redis.url()), open(&redis.url())];
    let first = nodes[0].try_publish(keyed("k", "one")).unwrap();
    assert_eq!(nodes[1].try_publish(keyed("k", "one")), Ok(first));
    let ids = nodes[1].store.append(vec![
        keyed("k", "one"),
        keyed("l", "two"),
        draft("three"),
        keyed("l", "two"),
    ]);
    let ids = ids.unwrap();
    assert_eq!((ids[0], ids[1]), (first, ids[3]));
    assert!(first < ids[1] && ids[1] < ids[2]);
    nodes[0].wait_log(&["one", "two", "three"]);
    let left: u64 = redis.cli(&["PTTL", "threadcast:key:k"]).parse().unwrap();
    assert!((1..=300_000).contains(&left), "{left} ms");
}

#[test]
fn topic_name_and_data_come_as_they_were_published() {
    let Some(redis) = redis(&[]) else { return };
    let node = open(&redis.url());
    let data = "line\n\u{0}\u{1f980} ".repeat(100_000);
    let whole = Draft::new("käse/a", Some("e v"), &data).unwrap();
    node.store.append(vec![whole, Draft::new("u", None, "").unwrap()]).unwrap();
    wait_for("two events", || node.delivered().len() == 2);
    let delivered = node.delivered();
    let [Delivery::Event(one), Delivery::Event(two)] = &delivered[..] else { panic!() };
    assert_eq!((&*one.topic, one.name(), one.data()), ("käse/a", Some("e v"), &*data));
    assert_eq!((&*two.topic, two.name(), two.data()), ("u", None, ""));
}

#[test]
fn what_others_add_is_an_event_too() {
    let Some(redis) = redis(&[]) else { return };
    let node = open(&redis.url());
    redis.cli(&["XADD", "threadcast", "*", "topic", "t", "data", "foreign"]);
    redis.cli(&["XADD", "threadcast", "*", "nothing", "of this"]);
    node.publish("own");
    node.wait_log(&["foreign", "own"]);
}

#[test]
fn entries_that_are_trimmed_before_they_were_read_are_a_gap() {
    let Some(redis) = redis(&[]) else { return };
    let nodes = [open(&redis.url()), open(&redis.url())];
    let gate = nodes[1].gate.lock().unwrap();
    nodes[0].publish("one");
    wait_for("the first event", || nodes[1].delivered().len() == 1);
    for data in ["two", "three", "four"] {
        nodes[0].publish(data);
    }
    redis.cli(&["XTRIM", "threadcast", "MAXLEN", "1"]);
    drop(gate);
    nodes[1].wait_log(&["one", "gap", "four"]);
    nodes[0].wait_log(&["one", "two", "three", "four"]);
    // Trimmed after they were read: nobody misses anything.
    redis.cli(&["XTRIM", "threadcast", "MAXLEN", "0"]);
    nodes[0].publish("five");
    nodes[1].wait_log(&["one", "gap", "four", "five"]);
}

#[test]
fn an_entry_that_is_deleted_before_it_was_read_is_a_gap() {
    let Some(redis) = redis(&[]) else { return };
    let nodes = [open(&redis.url()), open(&redis.url())];
    let gate = nodes[1].gate.lock().unwrap();
    nodes[0].publish("one");
    wait_for("the first event", || nodes[1].delivered().len() == 1);
    let id = nodes[0].publish("two").to_string();
    redis.cli(&["XDEL", "threadcast", &id]);
    nodes[0].publish("three");
    drop(gate);
    nodes[1].wait_log(&["one", "gap", "three"]);
}

#[test]
fn after_the_stream_was_deleted_ids_rise_and_all_servers_tell_of_a_gap() {
    for command in ["DEL threadcast", "FLUSHALL", "RENAME threadcast other"] {
        let Some(redis) = redis(&[]) else { return };
        let nodes = [open(&redis.url()), open(&redis.url())];
        nodes[0].publish("one");
        for node in &nodes {
            node.wait_log(&["one"]);
        }
        redis.cli(&command.split(' ').collect::<Vec<_>>());
        // Found by whoever publishes next, or looks after a while without events.
        if command != "FLUSHALL" {
            nodes[1].publish("two");
            for node in &nodes {
                node.wait_log(&["one", "gap", "two"]);
            }
            continue;
        }
        for node in &nodes {
            node.wait_log(&["one", "gap"]);
        }
        nodes[1].insist(&draft("two"));
        nodes[0].wait_log(&["one", "gap", "two"]);
    }
}

#[test]
fn ids_rise_though_the_stream_ends_far_below() {
    let Some(redis) = redis(&[]) else { return };
    // An id of the year 2100, as a clock that was wrong has left it.
    redis.cli(&["XADD", "threadcast", "4102444800000-7", "t", "t", "d", "future"]);
    let nodes = [open(&redis.url()), open(&redis.url())];
    let one = nodes[0].publish("one");
    assert!(one.millis >= 4_102_444_800_000, "{one}");
    nodes[1].wait_log(&["one"]);
    redis.cli(&["DEL", "threadcast"]);
    let two = nodes[0].publish("two");
    assert!(two > one, "{two} after {one}");
    for node in &nodes {
        node.wait_log(&["one", "gap", "two"]);
    }
    let marker = redis.cli(&["XRANGE", "threadcast", "-", "+", "COUNT", "1"]);
    assert!(marker.contains("reset") && marker.contains(&one.to_string()), "{marker}");
}

#[test]
fn an_id_that_was_acknowledged_is_not_given_again() {
    let Some(redis) = redis(&[]) else { return };
    // All ids are of one millisecond of the year 2100.
    redis.cli(&["XADD", "threadcast", "4102444800000-7", "t", "t", "d", "future"]);
    let node = open(&redis.url());
    let gate = node.gate.lock().unwrap();
    let one = node.publish("one");
    wait_for("the first event", || node.delivered().len() == 1);
    let two = node.publish("two");
    // A master takes over to which the last event had not come. The reader has not read it, either.
    let script =
        "redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], ARGV[1], 't', 't', 'd', 'one')";
    redis.cli(&["EVAL", script, "1", "threadcast", &one.to_string()]);
    let three = node.publish("three");
    assert!(three > two, "{three} after {two}");
    drop(gate);
    node.wait_log(&["one", "gap", "three"]);
}

#[test]
fn redis_that_comes_back_empty_is_a_gap_and_publishing_waits() {
    let Some(mut redis) = redis(&[]) else { return };
    let nodes = [open(&redis.url()), open(&redis.url())];
    let one = nodes[0].publish("one");
    for node in &nodes {
        node.wait_log(&["one"]);
    }
    redis.kill();
    for node in &nodes {
        node.wait_away();
        let error = node.try_publish(draft("lost")).unwrap_err();
        assert!(matches!(&error, PublishError::Unavailable(why) if why.contains("away since")));
    }
    redis.start();
    let two = nodes[0].insist(&keyed("k", "two"));
    assert!(two > one);
    assert_eq!(nodes[1].insist(&keyed("k", "two")), two);
    for node in &nodes {
        node.wait_log(&["one", "gap", "two"]);
        let status = node.store.status();
        assert_eq!(status.problem, None);
        for counter in [("reconnects", 1), ("gaps", 1), ("publishes_failed", 1)] {
            assert!(
                status
                    .counters
                    .iter()
                    .any(|(name, value)| { *name == counter.0 && *value >= counter.1 }),
                "{status:?}"
            );
        }
    }
}

#[test]
fn redis_that_comes_back_with_its_file_loses_nothing() {
    let Some(mut redis) = redis(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let nodes = [open(&redis.url()), open(&redis.url())];
    let mut expected = Vec::new();
    for round in ["a", "b", "c"] {
        for number in 0..10 {
            let data = format!("{round}{number}");
            nodes[number % 2].insist(&keyed(&data, &data));
            expected.push(data);
        }
        redis.kill();
        redis.start();
    }
    nodes[0].insist(&draft("end"));
    expected.push("end".to_owned());
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    for node in &nodes {
        node.wait_log(&expected);
    }
}

#[test]
fn after_a_failover_to_a_replica_that_lacks_the_end_ids_rise_and_there_is_a_gap() {
    let Some(mut master) = redis(&[]) else { return };
    let port = master.port.to_string();
    let replica = redis(&["--replicaof", "127.0.0.1", &port]).unwrap();
    let nodes = [open(&master.url()), open(&master.url())];
    nodes[0].publish("kept");
    wait_for("the replica", || replica.try_cli(&["XLEN", "threadcast"]) == "1");
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    nodes[0].publish("lost 1");
    let lost = nodes[1].publish("lost 2");
    for node in &nodes {
        node.wait_log(&["kept", "lost 1", "lost 2"]);
    }
    // Somebody who has not seen the end writes to the new master, before anybody else comes.
    let third = open(&replica.url());
    third.publish("early");
    master.kill();
    replica.cli(&["CONFIG", "SET", "port", &port]);
    let next = nodes[0].insist(&keyed("n", "next"));
    assert!(next > lost);
    for node in &nodes {
        wait_for("the next event", || node.log().last().is_some_and(|data| data == "next"));
        let log = node.log();
        assert_eq!(log[..3], ["kept", "lost 1", "lost 2"]);
        assert!(log[3..].contains(&"gap".to_owned()), "{log:?}");
    }
}

/// Only one server knows that an event was acknowledged which the new master lacks; and another one, which does
/// not know it, is the first to publish there.
#[test]
fn what_a_failover_has_lost_is_announced_also_where_nobody_has_seen_it() {
    for has_read in [false, true] {
        let Some(mut master) = redis(&[]) else { return };
        let port = master.port.to_string();
        let replica = redis(&["--replicaof", "127.0.0.1", &port]).unwrap();
        let [knows, other] = [open(&master.url()), open(&master.url())];
        let gates = [knows.gate.lock().unwrap(), other.gate.lock().unwrap()];
        knows.publish("kept");
        for node in [&knows, &other] {
            wait_for("the first event", || node.delivered().len() == 1);
        }
        wait_for("the replica", || replica.try_cli(&["XLEN", "threadcast"]) == "1");
        replica.cli(&["REPLICAOF", "NO", "ONE"]);
        let [closed, gate] = gates;
        let closed = match has_read {
            false => Some(closed),
            true => {
                drop(closed);
                None
            }
        };
        knows.publish("lost");
        if has_read {
            knows.wait_log(&["kept", "lost"]);
        }
        master.kill();
        replica.cli(&["CONFIG", "SET", "port", &port]);
        other.insist(&keyed("k", "first"));
        drop((closed, gate));
        match has_read {
            false => knows.wait_log(&["kept", "gap", "first", "gap"]),
            true => knows.wait_log(&["kept", "lost", "gap", "first", "gap"]),
        }
        other.wait_log(&["kept", "first", "gap"]);
        // Its reader may not have told yet that it is back.
        other.insist(&draft("second"));
        wait_for("the second", || knows.log().last().is_some_and(|data| data == "second"));
        other.wait_log(&["kept", "first", "gap", "second"]);
    }
}

#[test]
fn other_entries_in_the_place_of_those_that_were_read_are_noticed() {
    let Some(redis) = redis(&[]) else { return };
    let node = open(&redis.url());
    redis.cli(&["XADD", "threadcast", "5-3", "t", "t", "d", "one"]);
    redis.cli(&["XADD", "threadcast", "5-4", "t", "t", "d", "last"]);
    node.wait_log(&["one", "last"]);
    // A new master whose clock is behind gives the ids that the old one gave, to other events.
    let script =
        "redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], '5-4', 't', 't', 'd', 'other')";
    redis.cli(&["EVAL", script, "1", "threadcast"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    node.wait_away();
    node.wait_back();
    node.publish("next");
    // And another gap for all others.
    node.wait_log(&["one", "last", "gap", "next", "gap"]);
}

#[test]
fn whatever_happens_to_redis_what_is_missing_is_announced() {
    let Some(mut redis) = redis(&[]) else { return };
    let url = redis.url();
    let nodes = [open(&url), open(&url), open(&url)];
    let acknowledged = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, node) in nodes.iter().enumerate() {
            let (acknowledged, is_over) = (&acknowledged, &is_over);
            scope.spawn(move || {
                for event in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let data = format!("{number} {event}");
                    let id = node.insist(&keyed(&data, &data));
                    acknowledged.lock().unwrap().push((id, data));
                }
            });
        }
        for round in 0..4 {
            for action in ["DEL threadcast", "CLIENT KILL TYPE normal", "XTRIM threadcast MAXLEN 1"]
            {
                std::thread::sleep(Duration::from_millis(100 + 50 * round));
                redis.cli(&action.split(' ').collect::<Vec<_>>());
            }
            redis.kill();
            redis.start();
            redis.signal("STOP");
            std::thread::sleep(Duration::from_millis(100));
            redis.signal("CONT");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let last = nodes[0].insist(&draft("end"));
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 100, "only {} events", acknowledged.len());
    for node in &nodes {
        node.wait_delivered(last);
        node.log();
        let delivered = node.delivered();
        let mut events = BTreeMap::new();
        let mut newest_gap = EventId::default();
        for delivery in &*delivered {
            match delivery {
                Delivery::Gap(id) => newest_gap = *id,
                Delivery::Event(event) => {
                    // A key may be lost as everything else.
                    let before = events.insert(event.data().to_owned(), event.id);
                    assert!(before.is_none_or(|before| before <= newest_gap), "{event:?} twice");
                }
            }
        }
        for (id, data) in &acknowledged {
            let is_there = events.get(data).is_some_and(|found| found >= id);
            assert!(is_there || *id <= newest_gap, "{id} {data} is lost");
        }
    }
}

#[test]
fn a_server_that_becomes_a_replica_is_noticed() {
    let Some(master) = redis(&[]) else { return };
    let Some(redis) = redis(&[]) else { return };
    let node = open(&redis.url());
    node.publish("one");
    redis.cli(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    assert!(matches!(node.try_publish(draft("lost")), Err(PublishError::Unavailable(_))));
    wait_for("the link", || redis.cli(&["INFO", "replication"]).contains("link_status:up"));
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    node.insist(&draft("two"));
    // What was there before is gone: a replica begins by copying its master.
    node.wait_log(&["one", "gap", "two"]);
}

#[test]
fn a_replica_can_be_read_and_says_why_it_takes_nothing() {
    let Some(master) = redis(&[]) else { return };
    let Some(replica) = redis(&["--replicaof", "127.0.0.1", &master.port.to_string()]) else {
        return;
    };
    wait_for("the link", || replica.cli(&["INFO", "replication"]).contains("link_status:up"));
    let nodes = [open(&master.url()), open(&replica.url())];
    nodes[0].publish("one");
    nodes[1].wait_log(&["one"]);
    let error = nodes[1].try_publish(draft("x")).unwrap_err();
    assert!(
        matches!(&error, PublishError::Unavailable(why) if why.contains("READONLY")),
        "{error}"
    );
}

#[test]
fn several_events_are_published_all_or_none() {
    let Some(redis) = redis(&["--maxmemory-policy", "noeviction"]) else { return };
    redis.cli(&["ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-set"]);
    let node = open(&redis.url());
    let limited = open(&redis.url_with("u:p@"));
    let first = node.publish("one");
    let drafts = || vec![draft("two"), keyed("k", "three")];

    let error = limited.store.append(drafts()).unwrap_err();
    assert!(matches!(&error, PublishError::Unavailable(why) if why.contains("script")), "{error}");
    assert_eq!(redis.cli(&["XLEN", "threadcast"]), "1");

    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = node.store.append(drafts()).unwrap_err();
    assert!(matches!(&error, PublishError::Full(why) if why.contains("maxmemory")), "{error}");
    assert_eq!(redis.cli(&["XLEN", "threadcast"]), "1");

    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let ids = node.store.append(drafts()).unwrap();
    assert!(first < ids[0] && ids[0] < ids[1]);
    node.wait_log(&["one", "two", "three"]);
    assert_eq!(node.store.status().problem, None);
}

#[test]
fn a_publisher_whose_answer_got_lost_gets_the_same_id_again() {
    let Some(redis) = redis(&[]) else { return };
    let nodes = [open(&redis.url()), open(&redis.url())];
    nodes[0].publish("one");
    nodes[1].wait_log(&["one"]);
    redis.signal("STOP");
    // This reaches Redis, which runs it later.
    let error = nodes[0].try_publish(keyed("k", "two")).unwrap_err();
    assert!(
        matches!(&error, PublishError::Unavailable(why) if why.contains("same Idempotency-Key"))
    );
    for node in &nodes {
        node.wait_away();
        let error = node.try_publish(draft("lost")).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
    }
    redis.signal("CONT");
    let id = nodes[1].insist(&keyed("k", "two"));
    assert_eq!(nodes[0].insist(&keyed("k", "two")), id);
    for node in &nodes {
        node.wait_log(&["one", "two"]);
    }
}

#[test]
fn a_connection_that_was_closed_behind_its_back_costs_nobody_anything() {
    let Some(redis) = redis(&[]) else { return };
    let node = open(&redis.url());
    node.publish("one");
    redis.cli(&["SCRIPT", "FLUSH"]);
    node.publish("two");
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    node.insist(&keyed("k", "three"));
    node.wait_back();
    node.publish("four");
    node.wait_log(&["one", "two", "three", "four"]);
}

#[test]
fn close_delivers_what_was_published_and_then_nothing() {
    let Some(redis) = redis(&[]) else { return };
    let nodes = [open(&redis.url()), open(&redis.url())];
    for number in 0..500 {
        nodes[0].publish(&number.to_string());
    }
    nodes[0].store.close();
    assert_eq!(nodes[0].delivered().len(), 500);
    assert_eq!(nodes[0].try_publish(draft("late")), Err(PublishError::Stopped));
    nodes[1].publish("more");
    wait_for("all on the other server", || nodes[1].delivered().len() == 501);
    assert_eq!(nodes[0].delivered().len(), 500);
    // Nobody waits for a Redis that is silent.
    redis.signal("STOP");
    nodes[1].store.close();
    redis.signal("CONT");
}

#[test]
fn what_cannot_be_used_is_named_in_one_line() {
    let Some(redis) = redis(&["--requirepass", "secret"]) else { return };
    let cluster = self::redis(&["--cluster-enabled", "yes"]).unwrap();
    let plain = self::redis(&[]).unwrap();
    plain.cli(&["SET", "threadcast", "text"]);
    plain.cli(&["ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-eval", "-evalsha"]);
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let old = old_server();
    for (url, problem) in [
        (redis.url(), "NOAUTH"),
        (redis.url_with(":wrong@"), "password"),
        (cluster.url(), "Cluster"),
        (plain.url(), "\"threadcast\" is a string"),
        (nobody, "refused"),
        (format!("redis://127.0.0.1:{old}"), "4.0.14"),
        ("http://127.0.0.1".to_owned(), "no URL such as redis://"),
        ("nonsense:secret".to_owned(), "no URL such as redis://"),
    ] {
        let error = try_open(&options(&url)).err().unwrap_or_else(|| panic!("{url} was opened"));
        assert!(error.starts_with("Redis at ") && error.contains(problem), "{url}: {error}");
        assert!(!error.contains('\n') && !error.contains("secret"), "{error}");
    }
    plain.cli(&["DEL", "threadcast"]);
    let error = try_open(&options(&plain.url_with("u:p@"))).err().unwrap();
    assert!(error.contains("NOPERM"), "{error}");
    if !cfg!(feature = "redis-tls") {
        let error = try_open(&options("rediss://127.0.0.1")).err().unwrap();
        assert!(error.contains("'redis-tls'"), "{error}");
    }
    assert!(try_open(&options(&redis.url_with(":secret@"))).is_ok());
}

/// Something that answers every command as Redis 4 would answer `INFO`.
fn old_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = |mut stream: TcpStream| {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let commands = buffer[..length].iter().filter(|byte| **byte == b'*').count();
            let info = "redis_version:4.0.14\r\n";
            let answer = format!("${}\r\n{info}\r\n", info.len());
            let _ = stream.write_all(answer.repeat(commands).as_bytes());
        }
    };
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    port
}

/// The program with this Redis.
fn server(redis: &RedisServer, flags: &[&str]) -> Server {
    let url = redis.url();
    let mut all = vec!["--redis", &url, "--history", "3"];
    all.extend(flags);
    Server::start(&all)
}

fn data(sse: &mut Sse) -> String {
    let block = sse.event().expect("an event");
    match block.event.as_deref() {
        Some("gap") => "gap".to_owned(),
        _ => block.data.expect("data"),
    }
}

#[test]
fn a_client_may_come_back_to_any_server() {
    let Some(redis) = redis(&[]) else { return };
    let servers = [server(&redis, &[]), server(&redis, &[])];
    let mut sse = Sse::open(&servers[0], "/events");
    let ids = ["1", "2", "3", "4", "5"].map(|text| servers[1].publish_id("/publish", text));
    assert_eq!([0; 5].map(|_| data(&mut sse)), ["1", "2", "3", "4", "5"]);
    // The third server has the newest three events from its start on.
    let third = server(&redis, &[]);
    for server in servers.iter().chain([&third]) {
        let mut sse = Sse::open_after(server, "/events", Some(&ids[2]));
        assert_eq!([0; 2].map(|_| data(&mut sse)), ["4", "5"]);
        let mut sse = Sse::open_after(server, "/events", Some(&ids[0]));
        assert_eq!([0; 4].map(|_| data(&mut sse)), ["gap", "3", "4", "5"]);
        // An id of another history, between two of this one.
        let id: EventId = ids[3].parse().unwrap();
        let hole = EventId { sequence: id.sequence + 1000, ..id };
        let mut sse = Sse::open_after(server, "/events", Some(&hole.to_string()));
        assert_eq!(data(&mut sse), "gap");
    }
    // Another stream on the same Redis is another world.
    let other = server(&redis, &["--redis-stream", "other"]);
    let mut sse = Sse::open(&other, "/events");
    servers[0].publish_id("/publish", "6");
    sse.expect_nothing(&other, "another stream");
}

#[test]
fn a_server_that_starts_has_what_topics_keep_for_themselves() {
    let Some(redis) = redis(&[]) else { return };
    let flags = ["--topic-history", "gauges/*=1"];
    let first = server(&redis, &flags);
    first.publish_id("/publish?topic=gauges/a", "72.5");
    let noise: String = (0..50).map(|number| format!("{{\"data\":\"{number}\"}}\n")).collect();
    first.publish_lines(&noise);
    for server in [&first, &server(&redis, &flags)] {
        let mut sse = Sse::open(server, "/events?topic=gauges/*&latest");
        assert_eq!(data(&mut sse), "72.5");
    }
}

#[test]
fn a_client_that_comes_while_redis_is_away_gets_nothing_a_second_time() {
    let Some(mut redis) = redis(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let [first, second] = [server(&redis, &[]), server(&redis, &[])];
    first.publish_id("/publish", "0");
    let mut sse = Sse::open_after(&second, "/events", Some("earliest"));
    assert_eq!(data(&mut sse), "0");
    // The second server does not read on. (What it had asked for comes back empty meanwhile.)
    second.signal("STOP");
    std::thread::sleep(Duration::from_secs(2));
    let id = first.publish_id("/publish", "1");
    redis.kill();
    second.signal("CONT");
    let degraded = || second.get("/healthz").json()["status"] == "degraded";
    wait_for("the second server to notice", degraded);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| Sse::open_after(&second, "/events", Some(&id)));
        // Longer than it waits for what was on its way.
        std::thread::sleep(Duration::from_secs(6));
        redis.start();
        wait_for("Redis", || first.publish("/publish", "2").status == 200);
        assert_eq!(data(&mut late.join().unwrap()), "2");
    });
    assert_eq!([0; 2].map(|_| data(&mut sse)), ["1", "2"]);
}

#[test]
fn while_redis_is_away_streams_stay_open_and_publishing_is_refused() {
    let Some(mut redis) = redis(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let servers = [server(&redis, &[]), server(&redis, &["--tick", "20ms"])];
    let mut streams = [0, 1].map(|number| Sse::open(&servers[number], "/events?topic=default"));
    servers[1].publish_id("/publish", "before");
    redis.kill();
    for server in &servers {
        wait_for("degraded", || server.get("/healthz").json()["status"] == "degraded");
        let answer = server.publish("/publish", "lost");
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "store_away"));
        assert!(answer.header("Retry-After").is_some());
        assert_eq!(server.get("/healthz").status, 200);
        server.wait_log("is away", 1);
    }
    redis.start();
    for server in &servers {
        wait_for("health", || server.get("/healthz").json()["status"] == "ok");
        server.wait_log("is back after", 1);
        server.publish_id("/publish", "after");
    }
    for sse in &mut streams {
        assert_eq!([0; 3].map(|_| data(sse)), ["before", "after", "after"]);
    }
    // What publishes at intervals has gone on, too.
    let mut ticks = Sse::open(&servers[0], "/events?topic=metrics");
    assert!(ticks.event().is_some());
    let mut first = servers.into_iter().next().unwrap();
    first.signal("TERM");
    assert!(first.wait_exit().success());
}

#[test]
fn the_program_says_in_one_line_why_it_does_not_start() {
    let Some(redis) = redis(&["--requirepass", "secret"]) else { return };
    let flags = ["--listen", "127.0.0.1:0", "--redis", &redis.url_with(":wrong@")];
    let output = Command::new(common::PROGRAM).args(flags).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    let last = line.lines().last().unwrap_or_default();
    assert!(last.starts_with("threadcast: Redis at 127.0.0.1:"), "{line}");
    assert!(last.ends_with("it refuses the user or the password"), "{line}");
}

#[cfg(feature = "redis-tls")]
#[test]
fn over_tls_the_certificate_is_checked() {
    let Some(plain) = redis(&[]) else { return };
    let folder = &plain.folder;
    let extensions = folder.write("extensions", "subjectAltName=IP:127.0.0.1\n");
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        let output = command.args(words.split(' ')).current_dir(&folder.path).output();
        let output = output.expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca"));
    openssl(&format!("req {key} -keyout redis.key -out redis.csr -subj /CN=redis"));
    let sign = "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out redis.pem";
    openssl(&format!("{sign} -extfile {}", extensions.display()));
    let path = |name: &str| folder.path.join(name).to_str().unwrap().to_owned();
    let free = free_port();
    for words in [
        ["tls-cert-file", &path("redis.pem")],
        ["tls-key-file", &path("redis.key")],
        ["tls-auth-clients", "no"],
        ["tls-port", &free.to_string()],
    ] {
        plain.cli(&["CONFIG", "SET", words[0], words[1]]);
    }
    let url = format!("rediss://127.0.0.1:{free}");
    let trusting =
        Server::start_with_environment(&[("SSL_CERT_FILE", &path("ca.pem"))], &["--redis", &url]);
    let mut sse = Sse::open(&trusting, "/events");
    trusting.publish_id("/publish", "secret");
    assert_eq!(data(&mut sse), "secret");
    let error = try_open(&options(&url)).err().expect("nobody trusts this certificate");
    assert!(error.contains("certificate"), "{error}");
}
