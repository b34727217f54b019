//! `/lab` and `/report`: what the page experiments with, and shows.
#![cfg(feature = "page")]

mod common;

use std::time::{Duration, Instant};

use common::sse::Sse;
use common::ws::{connect, json, upgrade};
use common::{Folder, PATIENCE, Remote, Server, wait_for};
use serde_json::{Value, json};
use threadcast::Config;
use tungstenite::{Message, WebSocket};

/// The page's own connection.
struct Lab {
    socket: WebSocket<std::net::TcpStream>,
    hello: Value,
}

impl Lab {
    fn open(server: &Remote) -> Lab {
        let mut socket = connect(server, "/lab");
        let hello = json(&mut socket);
        assert_eq!(hello["lab"], "hello");
        Lab { socket, hello }
    }

    fn tid(&self) -> u64 {
        self.hello["tid"].as_u64().unwrap()
    }

    fn send(&mut self, command: &Value) {
        self.socket.send(Message::text(command.to_string())).unwrap();
    }

    /// Sends a command and returns its answer.
    fn ask(&mut self, mut command: Value) -> Value {
        command["ref"] = 7.into();
        self.send(&command);
        let answer = json(&mut self.socket);
        assert_eq!((&answer["do"], &answer["ref"]), (&command["do"], &command["ref"]), "{answer}");
        answer
    }

    /// The same where it must succeed.
    fn done(&mut self, command: Value) -> Value {
        let answer = self.ask(command);
        assert_eq!(answer["lab"], "done", "{answer}");
        answer
    }

    /// The same where it must fail: the message.
    fn refused(&mut self, command: Value) -> String {
        let answer = self.ask(command);
        assert_eq!(answer["lab"], "error", "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }
}

fn burst(fanout: &str, events: u64, bytes: u64) -> Value {
    json!({"do": "burst", "fanout": fanout, "events": events, "bytes": bytes})
}

fn sse_clients(server: &Remote) -> u64 {
    server.stats()["clients"]["sse"].as_u64().unwrap()
}

#[test]
fn there_is_none_unless_it_is_asked_for() {
    let server = Server::start(&[]);
    for target in ["/lab", "/lab/stream?fanout=direct", "/report"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    assert_eq!(upgrade(&server, "/lab", "").status, 404);
    let server = Server::start(&["--demo"]);
    assert_eq!(server.get("/lab").status, 426);
    for query in ["", "?fanout=both", "?fanout"] {
        let answer = server.get(&format!("/lab/stream{query}"));
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_query"), "{query}");
    }
}

#[test]
fn it_is_for_this_machine_alone() {
    let mut config = Config::default();
    config.set_demo(true).unwrap();
    config.set_listen("0.0.0.0:0").unwrap();
    let error = threadcast::Server::start(config).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("demo: ") && error.contains("127.0.0.1:3000"), "{error}");
    assert!(!error.contains('\n'));

    let server = Server::start(&["--demo"]);
    for field in ["Origin: https://evil.example\r\n", "X-Forwarded-For: 192.0.2.1\r\n"] {
        assert_eq!(upgrade(&server, "/lab", field).status, 403, "{field}");
        assert_eq!(server.request("GET", "/lab/stream?fanout=direct", field, b"").status, 403);
    }
    // Where there is a token, whoever has it.
    let server = Server::start(&["--demo", "--subscribe-token", "t1"]);
    assert_eq!(upgrade(&server, "/lab", "").status, 401);
    assert_eq!(server.get("/lab/stream?fanout=direct").status, 401);
    let ticket = server.request("POST", "/ticket", "Authorization: Bearer t1\r\n", b"").json();
    let target = format!("/lab?ticket={}", ticket["ticket"].as_str().unwrap());
    let mut lab = Lab { socket: connect(&server, &target), hello: Value::Null };
    assert_eq!(json(&mut lab.socket)["lab"], "hello");
    lab.done(json!({"do": "clients", "direct": 2, "handoff": 1}));
    assert_eq!(lab.done(burst("direct", 3, 10))["deliveries"], 6);
}

#[test]
fn a_handler_that_is_busy_keeps_nobody_else_waiting() {
    let server = Server::start(&["--demo"]);
    let mut lab = Lab::open(&server);
    for (command, state) in [("sleep", 'S'), ("compute", 'R')] {
        let ms = 1_500;
        let start = Instant::now();
        lab.send(&json!({"do": command, "ms": ms}));
        // The kernel says what its thread does.
        let path = format!("/proc/{}/task/{}/stat", server.pid(), lab.tid());
        let state_now = || {
            let stat = std::fs::read_to_string(&path).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        if cfg!(target_os = "linux") {
            wait_for(command, || state_now() == state);
        }
        // Others are served meanwhile: the answer to the command comes after this one.
        let mut other = Lab::open(&server);
        assert_eq!(other.done(json!({"do": "reset"}))["lab"], "done");
        assert_eq!(server.get("/healthz").status, 200);
        lab.socket.get_ref().set_nonblocking(true).unwrap();
        let is_waiting = lab.socket.read().is_err();
        let elapsed = start.elapsed();
        lab.socket.get_ref().set_nonblocking(false).unwrap();
        if is_waiting {
            assert_eq!(json(&mut lab.socket)["lab"], "done");
        } else {
            assert!(elapsed >= Duration::from_millis(ms), "{command}: too early");
        }
        assert!(start.elapsed() >= Duration::from_millis(ms), "{command}: too early");
    }
}

#[test]
fn a_handler_that_panics_ends_its_own_connection() {
    let server = Server::start(&["--demo"]);
    let mut other = Lab::open(&server);
    let mut lab = Lab::open(&server);
    lab.send(&json!({"do": "panic"}));
    wait_for("the end of the connection", || lab.socket.read().is_err());
    wait_for("the end of its thread", || {
        server.tasks().into_iter().all(|(number, _)| number != lab.tid())
    });
    other.done(json!({"do": "reset"}));
    server.wait_clients(0, 1);
    assert!(server.log().contains("asked for this panic"), "{}", server.log());
}

#[test]
fn demo_clients_are_clients_and_end_with_their_last_visitor() {
    let server = Server::start(&["--demo"]);
    let mut lab = Lab::open(&server);
    let answer = lab.done(json!({"do": "clients", "direct": 7, "handoff": 3}));
    assert_eq!((&answer["direct"], &answer["handoff"]), (&7.into(), &3.into()));
    assert_eq!(sse_clients(&server), 10);
    lab.done(json!({"do": "clients", "direct": 2, "handoff": 4}));
    server.wait_clients(6, 1);
    let mut other = Lab::open(&server);
    other.done(json!({"do": "clients", "direct": 0, "handoff": 1}));
    server.wait_clients(1, 2);
    drop(other);
    server.wait_clients(1, 1);
    drop(lab);
    server.wait_clients(0, 0);
    let mut lab = Lab::open(&server);
    lab.done(json!({"do": "clients", "direct": 1, "handoff": 1}));
    lab.done(json!({"do": "reset"}));
    server.wait_clients(0, 1);
}

#[test]
fn the_server_says_why_it_lets_no_more_in() {
    let server = Server::start(&["--demo", "--max-clients", "3"]);
    let mut lab = Lab::open(&server);
    let message = lab.refused(json!({"do": "clients", "direct": 1, "handoff": 4}));
    assert!(message.contains("demo client 2 (handoff)") && message.contains("503"), "{message}");
}

#[test]
fn a_burst_reaches_its_clients_and_nobody_else() {
    let server = Server::start(&["--demo"]);
    let mut all = Sse::open(&server, "/events");
    let mut lab = Lab::open(&server);
    assert_eq!(lab.done(burst("direct", 5, 100))["deliveries"], 0);
    lab.done(json!({"do": "clients", "direct": 20, "handoff": 10}));
    let direct = lab.done(burst("direct", 50, 100));
    let handoff = lab.done(burst("handoff", 50, 100));
    assert_eq!((&direct["deliveries"], &handoff["deliveries"]), (&1_000.into(), &500.into()));
    // With time in between each client's own thread wakes up for each event: about 400 times.
    let mut paced = burst("handoff", 40, 100);
    paced["everyMs"] = 10.into();
    let paced = lab.done(paced);
    assert_eq!(paced["deliveries"], 400);
    if cfg!(target_os = "linux") {
        assert!(paced["voluntary"].as_u64() >= Some(300), "{paced}");
        assert!(direct["cpuMs"].as_f64() > Some(0.0), "{direct}");
    }
    let kept = server.get("/history").json();
    assert_eq!(kept["events"], json!([]));
    all.expect_nothing(&server, "a burst");
    // A client that reads its own stream sees it.
    let mut own = Sse::connect(&server, "/lab/stream?fanout=handoff&name=own", "");
    let you = own.block().unwrap();
    assert_eq!(you.event.as_deref(), Some("you"));
    let you: Value = serde_json::from_str(&you.data.unwrap()).unwrap();
    assert!(you["client"].is_u64() && you["tid"].is_u64(), "{you}");
    own.event();
    assert_eq!(lab.done(burst("handoff", 1, 3))["deliveries"], 10);
    assert_eq!(own.event().unwrap().data.unwrap(), "xx!");
}

#[test]
fn a_reader_that_reads_nothing_is_let_go_and_the_others_go_on() {
    let server = Server::start(&["--demo"]);
    let mut lab = Lab::open(&server);
    lab.done(json!({"do": "clients", "direct": 5, "handoff": 0}));
    let _frozen = Sse::connect_narrow(&server, "/lab/stream?fanout=direct");
    server.wait_clients(6, 1);
    let mut deliveries = 0;
    let mut bursts = 0;
    // It may take the server's last words for some seconds.
    let deadline = Instant::now() + PATIENCE;
    while sse_clients(&server) == 6 {
        assert!(Instant::now() < deadline, "it was never let go");
        deliveries += lab.done(burst("direct", 10, 100_000))["deliveries"].as_u64().unwrap();
        bursts += 1;
    }
    assert_eq!(deliveries, bursts * 50, "the others have all of it");
    assert_eq!(sse_clients(&server), 5);
}

#[test]
fn what_cannot_be_done_is_said() {
    let server = Server::start(&["--demo", "--queue", "9"]);
    let mut lab = Lab::open(&server);
    for (command, named) in [
        (json!({}), "\"do\""),
        (json!({"do": "dance"}), "\"do\""),
        (json!({"do": "sleep"}), "\"ms\""),
        (json!({"do": "sleep", "ms": 10_001}), "10000"),
        (json!({"do": "compute", "ms": 0}), "\"ms\""),
        (json!({"do": "clients", "direct": "1"}), "\"direct\""),
        (json!({"do": "clients", "direct": 300, "handoff": 201}), "500"),
        (json!({"do": "clients", "direct": -1, "handoff": 0}), "\"direct\""),
        (burst("both", 1, 1), "\"fanout\""),
        (burst("direct", 10, 1), "from 1 to 9"),
        (burst("direct", 2, 500_001), "500000"),
        (
            json!({"do": "burst", "fanout": "direct", "events": 5, "bytes": 1, "everyMs": 1_001}),
            "1000",
        ),
    ] {
        let message = lab.refused(command.clone());
        assert!(message.contains(named), "{command}: {message}");
    }
    lab.socket.send(Message::text("no JSON")).unwrap();
    assert_eq!(json(&mut lab.socket)["lab"], "error");
    lab.socket.send(Message::binary(vec![255])).unwrap();
    assert_eq!(json(&mut lab.socket)["lab"], "error");
}

#[test]
fn a_shutdown_waits_for_no_experiment() {
    let mut config = Config::default();
    config.set_listen("127.0.0.1:0").unwrap();
    config.set_demo(true).unwrap();
    config.set_drain(PATIENCE).unwrap();
    let server = threadcast::Server::start(config).unwrap();
    let remote = Remote::of(&server);
    let mut labs: Vec<Lab> = (0..3).map(|_| Lab::open(&remote)).collect();
    labs[2].done(json!({"do": "clients", "direct": 5, "handoff": 5}));
    labs[0].send(&json!({"do": "sleep", "ms": 10_000}));
    labs[1].send(&json!({"do": "compute", "ms": 10_000}));
    let start = Instant::now();
    let shutdown = std::thread::spawn(move || server.shutdown());
    // As browsers do, each answers the close frame.
    for mut lab in labs {
        while lab.socket.read().is_ok() {}
    }
    assert!(shutdown.join().unwrap(), "all have left in time");
    assert!(start.elapsed() < Duration::from_secs(9), "it has waited for the experiments");
}

#[test]
fn the_report_is_the_file_as_it_is_now() {
    let folder = Folder::new("report");
    let file = folder.write("results.jsonl", "{\"machine\":{}}\n");
    let server = Server::start(&["--report", file.to_str().unwrap()]);
    assert_eq!(server.get("/report").text(), "{\"machine\":{}}\n");
    folder.write("results.jsonl", "{}\n");
    assert_eq!(server.get("/report").text(), "{}\n");
    std::fs::remove_file(file).unwrap();
    assert_eq!(server.get("/report").status, 404);
}
