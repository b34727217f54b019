//! `--journal`: what was published is there after whatever ended the server, once and in order.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::sse::Sse;
use common::{Answer, Folder, PATIENCE, PROGRAM, Server, wait_for};
use threadcast::EventId;

/// Many more than any test here publishes.
const HISTORY: &str = "1000000";

fn start(folder: &Folder, flags: &[&str]) -> Server {
    let path = folder.path.to_str().unwrap();
    Server::start(&[&["--journal", path, "--history", HISTORY], flags].concat())
}

fn number(id: &str) -> EventId {
    id.parse().expect("an id")
}

fn publish_with_key(server: &Server, key: &str, data: &str) -> Answer {
    let line = format!("Idempotency-Key: {key}\r\n");
    server.request("POST", "/publish", &line, data.as_bytes())
}

/// Checks that these are the next events, and that nothing comes behind them.
fn expect(server: &Server, sse: &mut Sse, data: &[&str]) {
    for data in data {
        let event = sse.event().unwrap();
        assert_eq!((event.event, event.data.as_deref()), (None, Some(*data)));
    }
    sse.expect_nothing(server, "the journal");
}

#[test]
fn a_client_that_comes_back_after_a_restart_misses_nothing() {
    for (sync, signal) in
        [("interval", "TERM"), ("interval", "KILL"), ("always", "TERM"), ("always", "KILL")]
    {
        let folder = Folder::new(&format!("journal-restart-{sync}-{signal}"));
        let flags = ["--journal-sync", sync];
        let mut server = start(&folder, &flags);
        // This one has seen no event, and comes back with an id all the same.
        let mut early = Sse::connect(&server, "/events", "");
        let begun = early.event().unwrap().id;
        let first = server.publish_id("/publish", "one");
        server.publish_lines("{\"data\":\"two\"}\n{\"data\":\"three\"}\n");
        let key = publish_with_key(&server, "k", "four").json()["id"].clone();
        server.signal(signal);
        server.wait_exit();

        let server = start(&folder, &flags);
        let mut sse = Sse::open_after(&server, "/events", Some(&first));
        expect(&server, &mut sse, &["two", "three", "four"]);
        let mut early = Sse::open_after(&server, "/events", begun.as_deref());
        expect(&server, &mut early, &["one", "two", "three", "four", "marker"]);
        assert_eq!(publish_with_key(&server, "k", "four").json()["id"], key, "{sync} {signal}");
        let next = server.publish_id("/publish", "five");
        assert!(number(&next) > number(key.as_str().unwrap()), "{next} after {key}");
    }
}

/// The longest that a client here follows the stream.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(120);

/// A client that reads the plain stream of an HTTP/1.0 response, and comes back with the id it has seen last.
#[derive(Default)]
struct Client {
    last: Option<String>,
    /// Id and data of every event.
    log: Vec<(EventId, String)>,
    gaps: usize,
}

impl Client {
    /// Follows the server of this address, and those that come after it there, up to the event `end`.
    fn run(mut self, address: SocketAddr) -> Client {
        let deadline = Instant::now() + FOLLOW_TIMEOUT;
        while !self.is_done() {
            assert!(Instant::now() < deadline, "no end after {} events", self.log.len());
            // That there is no server for a while is what is tested.
            let _ = self.follow(address);
            thread::sleep(Duration::from_millis(2));
        }
        self
    }

    fn is_done(&self) -> bool {
        self.log.last().is_some_and(|(_, data)| data == "end")
    }

    /// Reads until the stream ends, or the last event is there.
    fn follow(&mut self, address: SocketAddr) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let last = self.last.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!("GET /events HTTP/1.0\r\n{}\r\n", last.unwrap_or_default());
        stream.write_all(request.as_bytes())?;
        let mut fields: HashMap<String, String> = HashMap::new();
        for line in BufReader::new(stream).lines() {
            let line = line?;
            if let Some((name, value)) = line.split_once(": ") {
                fields.insert(name.to_owned(), value.to_owned());
                continue;
            }
            // The end of a block, or of the response's head. A block without its end does not count.
            let Some(id) = fields.get("id").cloned() else {
                // The head, or the greeting of a client that may get events of any age.
                fields.clear();
                continue;
            };
            self.last = Some(id.clone());
            let is_greeting = fields.contains_key("retry");
            match (fields.remove("event").as_deref(), fields.remove("data")) {
                (None, Some(data)) if !is_greeting => self.log.push((number(&id), data)),
                (Some("gap"), _) => self.gaps += 1,
                _ => {}
            }
            if self.is_done() {
                return Ok(());
            }
            fields.clear();
        }
        Ok(())
    }
}

/// One request to publish. Returns the id in the answer; `None` where no answer came.
fn try_publish(address: SocketAddr, headers: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = format!("Content-Length: {}\r\n", body.len());
    let request = format!("POST /publish HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    // A killed server may leave a part of one.
    let answer = Some(answer).filter(|answer| answer.starts_with(b"HTTP/1.1 200 OK\r\n"))?;
    let (_, rest) = std::str::from_utf8(&answer).ok()?.split_once("\"id\":\"")?;
    rest.split_once('"').map(|(id, _)| id.to_owned())
}

/// What publishers in several threads share.
struct Load {
    address: SocketAddr,
    is_over: AtomicBool,
    acknowledged: AtomicUsize,
}

impl Load {
    /// Publishes one event after another, each until it is acknowledged. Returns their data and ids.
    fn publish_with_keys(&self, name: &str) -> Vec<(String, String)> {
        let mut published = Vec::new();
        while !self.is_over.load(Ordering::SeqCst) {
            let data = format!("{name}/{}", published.len());
            let header = format!("Idempotency-Key: {data}\r\n");
            let id = loop {
                match try_publish(self.address, &header, &data) {
                    Some(id) => break id,
                    None => thread::sleep(Duration::from_millis(2)),
                }
            };
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
            published.push((data, id));
        }
        published
    }

    /// Publishes batches of [`BATCH`] events, each once. Returns those that were acknowledged: data and id of
    /// the last event.
    fn publish_batches(&self, name: &str) -> Vec<(String, String)> {
        let (mut published, mut number) = (Vec::new(), 0);
        while !self.is_over.load(Ordering::SeqCst) {
            let data = |line: usize| format!("{name}/{number}/{line}");
            let lines: String =
                (0..BATCH).map(|line| format!("{{\"data\":\"{}\"}}\n", data(line))).collect();
            let header = "Content-Type: application/x-ndjson\r\n";
            match try_publish(self.address, header, &lines) {
                Some(id) => published.push((data(BATCH - 1), id)),
                None => thread::sleep(Duration::from_millis(2)),
            }
            number += 1;
        }
        published
    }
}

const KILLS: usize = 10;
const BATCH: usize = 5;

#[test]
fn a_server_killed_ten_times_under_load_loses_nothing_and_repeats_nothing() {
    let folder = Folder::new("journal-kills");
    let mut server = start(&folder, &[]);
    let address = server.address;
    let load = Load { address, is_over: AtomicBool::new(false), acknowledged: AtomicUsize::new(0) };
    // From the first event on, whenever they come.
    let client = || Client { last: Some("earliest".to_owned()), ..Client::default() };
    let (published, clients) = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| client().run(address))).collect();
        server.wait_clients(4, 0);
        let publishers = [
            scope.spawn(|| load.publish_with_keys("a")),
            scope.spawn(|| load.publish_with_keys("b")),
            scope.spawn(|| load.publish_batches("batch")),
        ];
        for _ in 0..KILLS {
            let until = load.acknowledged.load(Ordering::SeqCst) + 100;
            wait_for("events", || load.acknowledged.load(Ordering::SeqCst) >= until);
            server.signal("KILL");
            server.wait_exit();
            server = start(&folder, &["--listen", &address.to_string()]);
        }
        load.is_over.store(true, Ordering::SeqCst);
        let published = publishers.map(|publisher| publisher.join().unwrap()).concat();
        server.publish_id("/publish", "end");
        let clients = clients.into_iter().map(|client| client.join().unwrap());
        (published, clients.collect::<Vec<_>>())
    });

    let log = &clients[0].log;
    // What they got live, another one finds in the journal.
    drop(server);
    let _server = start(&folder, &["--listen", &address.to_string()]);
    let late = client().run(address);
    for client in clients.iter().chain([&late]) {
        assert_eq!((client.gaps, client.log.len()), (0, log.len()));
        let differing = client.log.iter().zip(log).find(|(one, other)| one != other);
        assert_eq!(differing, None, "clients see the same");
    }
    assert!(log.is_sorted_by(|before, after| before.0 < after.0), "ids rise");
    let ids: HashMap<&str, EventId> = log.iter().map(|(id, data)| (data.as_str(), *id)).collect();
    assert_eq!(ids.len(), log.len(), "nothing comes twice");
    for (data, id) in &published {
        assert_eq!(ids.get(data.as_str()), Some(&number(id)), "{data} was acknowledged");
    }
    // A batch that nobody acknowledged is there as a whole, or not at all.
    let batched = log.iter().filter_map(|(_, data)| data.strip_prefix("batch/")?.split_once('/'));
    let mut lines: HashMap<&str, usize> = HashMap::new();
    batched.for_each(|(batch, _)| *lines.entry(batch).or_default() += 1);
    assert!(!lines.is_empty() && lines.values().all(|lines| *lines == BATCH), "{lines:?}");
}

#[test]
fn a_second_server_on_the_folder_is_refused_in_one_line() {
    let folder = Folder::new("journal-second");
    let server = start(&folder, &[]);
    let path = folder.path.to_str().unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--tick", "0", "--journal", path];
    let second = Command::new(PROGRAM).args(flags).output().expect("the program starts");
    let line = String::from_utf8(second.stderr).expect("UTF-8");
    assert_eq!((second.status.code(), second.stdout.len()), (Some(1), 0), "{line}");
    assert!(line.contains(path) && line.matches('\n').count() == 1, "{line:?}");
    server.publish_id("/publish", "the first one goes on");
}

#[test]
fn a_full_disk_refuses_events_and_ends_nothing() {
    let folder = Folder::new("journal-full");
    let path = folder.path.to_str().unwrap();
    // Blocks are of 512 or of 1024 bytes, as the shell has it.
    let flags = ["--journal", path, "--history", HISTORY];
    let server = Server::start_limited("-f 16", &flags);
    let mut sse = Sse::open(&server, "/events");
    let (mut stored, large) = (Vec::new(), "x".repeat(1000));
    let refused = loop {
        let data = format!("{} {large}", stored.len());
        let answer = server.publish("/publish", &data);
        if answer.status != 200 {
            break answer;
        }
        stored.push(data);
        assert!(stored.len() < 20, "no limit");
    };
    assert_eq!((refused.status, refused.error_code()), (507, "store_full".to_owned()));
    assert!(
        refused.text().contains(path) && refused.text().contains("os error"),
        "{}",
        refused.text()
    );
    assert_eq!(server.get("/healthz").json()["status"], "degraded");
    // A batch is refused whole, though its first line would fit.
    let line = |data: &str| format!("{{\"data\":\"{data}\"}}\n");
    let (lines, headers) =
        (line("small") + &line(&large), "Content-Type: application/x-ndjson\r\n");
    assert_eq!(server.request("POST", "/publish", headers, lines.as_bytes()).status, 507);
    // What is refused leaves its key.
    assert_eq!(publish_with_key(&server, "k", &large).status, 507);
    for data in &stored {
        assert_eq!(sse.event().unwrap().data.as_deref(), Some(data.as_str()));
    }
    // The stream goes on, and there is room for this.
    let small = publish_with_key(&server, "k", "s");
    assert_eq!(small.status, 200, "{}", small.text());
    assert_eq!(sse.event().unwrap().data.as_deref(), Some("s"));
    assert_eq!(server.get("/healthz").json()["status"], "ok");
    drop(server);

    // Nothing of what was refused is there.
    let server = Server::start(&flags);
    let mut all = Sse::connect(&server, "/events?last_event_id=earliest", "");
    assert!(all.event().unwrap().data.unwrap().contains("Connection established"));
    let stored: Vec<&str> = stored.iter().map(String::as_str).chain(["s"]).collect();
    expect(&server, &mut all, &stored);
    let next = server.publish_id("/publish", &large);
    assert!(number(&next) > number(small.json()["id"].as_str().unwrap()));
}

#[test]
fn a_server_starts_on_a_full_disk() {
    let folder = Folder::new("journal-full-start");
    let path = folder.path.to_str().unwrap();
    let flags = ["--journal", path];
    for signal in ["TERM", "KILL"] {
        let mut server = Server::start(&flags);
        let last = server.publish_id("/publish", "one");
        server.publish_id("/publish", "two");
        server.signal(signal);
        server.wait_exit();
        // Not a byte can be written.
        let mut server = Server::start_limited("-f 0", &flags);
        assert_eq!(server.get("/healthz").json()["status"], "degraded");
        let mut sse = Sse::open_after(&server, "/events", Some(&last));
        assert_eq!(sse.event().unwrap().data.as_deref(), Some("two"));
        for _ in 0..2 {
            assert_eq!(server.publish("/publish", "three").status, 507);
        }
        server.signal(signal);
        server.wait_exit();
        let server = Server::start(&flags);
        let mut sse = Sse::open_after(&server, "/events", Some(&last));
        expect(&server, &mut sse, &["two"]);
    }
}

#[test]
fn a_damaged_journal_is_a_gap_and_a_torn_one_is_not() {
    let folder = Folder::new("journal-damage");
    let server = start(&folder, &[]);
    let ids: Vec<String> =
        (0..4).map(|number| server.publish_id("/publish", &format!("event {number}"))).collect();
    drop(server);
    let path = folder.path.join("events-00000001");
    let whole = std::fs::read(&path).unwrap();

    // The last event was not written to its end.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let server = start(&folder, &[]);
    server.wait_log("is torn from byte", 1);
    let mut sse = Sse::open_after(&server, "/events", Some(&ids[0]));
    expect(&server, &mut sse, &["event 1", "event 2"]);
    drop(server);

    // A byte of the third one is wrong.
    let mut bytes = whole.clone();
    let place = whole.windows(7).position(|window| window == b"event 2").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let server = start(&folder, &[]);
    server.wait_log("is damaged from byte", 1);
    assert!(server.log().contains(path.to_str().unwrap()), "{}", server.log());
    let mut sse = Sse::open_after(&server, "/events", Some(&ids[1]));
    assert_eq!(sse.event().unwrap().event.as_deref(), Some("gap"));
    expect(&server, &mut sse, &["event 3"]);
    let mut sse = Sse::open_after(&server, "/events", Some(&ids[3]));
    expect(&server, &mut sse, &["marker"]);
}
