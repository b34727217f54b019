//! `/threads`: what the server's threads do, as an event stream.
#![cfg(all(feature = "page", target_os = "linux"))]

mod common;

use std::collections::BTreeMap;

use common::sse::Sse;
use common::ws::Raw;
use common::{PATIENCE, Remote, Server, wait_for};
use serde_json::Value;
use threadcast::Config;

/// A viewer, and the threads as it knows them, by their numbers.
struct Viewer {
    stream: Sse,
    threads: BTreeMap<u64, Value>,
}

impl Viewer {
    fn open(server: &Remote) -> Viewer {
        Viewer::open_with(server, "/threads", "")
    }

    fn open_with(server: &Remote, target: &str, headers: &str) -> Viewer {
        let stream = Sse::connect(server, target, headers);
        let mut viewer = Viewer { stream, threads: BTreeMap::new() };
        assert_eq!(viewer.next()["full"], true);
        viewer
    }

    /// Reads one event, and follows it.
    fn next(&mut self) -> Value {
        let block = self.stream.block().expect("an event");
        assert_eq!(block.event.as_deref(), Some("threads"));
        assert_eq!(block.id, None, "it is not in the history");
        let event: Value = serde_json::from_str(&block.data.unwrap()).unwrap();
        for gone in event["gone"].as_array().unwrap() {
            assert!(self.threads.remove(&gone.as_u64().unwrap()).is_some(), "{gone} was not there");
        }
        for thread in event["threads"].as_array().unwrap() {
            self.threads.insert(thread["tid"].as_u64().unwrap(), thread.clone());
        }
        event
    }

    /// Reads on until one thread is as wanted, and returns it.
    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.threads.values().find(|thread| wanted(thread)) {
                return found.clone();
            }
            assert!(std::time::Instant::now() < deadline, "no {what} in {:#?}", self.threads);
            self.next();
        }
    }
}

fn name(thread: &Value) -> &str {
    thread["name"].as_str().unwrap()
}

#[test]
fn every_thread_says_what_it_waits_for() {
    let server = Server::start(&[]);
    let sse = Sse::open(&server, "/events?topic=a");
    let ws = Raw::connect(&server, "/ws");
    let mut viewer = Viewer::open(&server);
    let port = ws.stream.local_addr().unwrap();
    let ws_name = format!("ws {port}");
    let found =
        viewer.wait("WebSocket in read", |one| name(one) == ws_name && one["waits"] == "read");
    assert_eq!(
        (&found["role"], &found["call"], &found["state"]),
        (&"ws".into(), &"recvfrom".into(), &"S".into())
    );
    let found = viewer.wait("event stream that waits on its channel", |one| {
        one["role"] == "sse" && one["waits"] == "channel" && one["call"] == "futex"
    });
    assert!(found["client"].is_u64() && found["seconds"].is_f64() && found["cpuMs"].is_f64());
    assert!(found["voluntary"].as_u64().unwrap() > 0 && found["involuntary"].is_u64(), "{found}");
    assert_eq!((&found["queue"], &found["queueBytes"]), (&0.into(), &0.into()));
    for (thread, waits) in [("accept", "accept"), ("hangups", "poll"), ("broadcaster 0", "channel")]
    {
        let found = viewer.wait(thread, |one| name(one) == thread && one["waits"] == waits);
        assert_eq!((&found["role"], &found["client"]), (&"server".into(), &Value::Null));
    }
    // The viewer's own: it cannot ask without running.
    viewer.wait("the viewer", |one| one["role"] == "sse" && one["state"] == "R");
    let numbers: Vec<u64> = server.tasks().into_iter().map(|(number, _)| number).collect();
    assert!(viewer.threads.keys().all(|number| numbers.contains(number)), "{:?}", viewer.threads);
    drop(sse);
}

#[test]
fn the_book_has_the_fields_that_there_are() {
    let book = include_str!("../src/docs/contract.md");
    let example = &book[book.find("{\"at\":").unwrap()..];
    let example: Value = serde_json::from_str(&example[..example.find("```").unwrap()]).unwrap();
    let server = Server::start(&[]);
    let mut viewer = Viewer::open(&server);
    let event = viewer.next();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&example), keys(&event));
    assert_eq!(keys(&example["tells"]), keys(&event["tells"]));
    let (_, thread) = viewer.threads.pop_first().unwrap();
    assert_eq!(keys(&example["threads"][0]), keys(&thread));
}

#[test]
fn later_events_have_only_what_changed() {
    let server = Server::start(&[]);
    let mut viewer = Viewer::open(&server);
    let ws = Raw::connect(&server, "/ws");
    let thread = viewer.wait("new WebSocket", |one| one["role"] == "ws" && one["waits"] == "read");
    let event = viewer.next();
    assert_eq!((&event["full"], &event["omitted"]), (&false.into(), &0.into()));
    assert_eq!(
        event["tells"],
        serde_json::json!({"syscall": true, "schedstat": true, "switches": true})
    );
    let changed = event["threads"].as_array().unwrap();
    assert!(changed.iter().all(|one| one["tid"] != thread["tid"]), "it sleeps: {changed:?}");
    // Its client goes, and so does its thread; the viewer hears it.
    drop(ws);
    let number = thread["tid"].as_u64().unwrap();
    wait_for("the end of the thread", || {
        viewer.next();
        !viewer.threads.contains_key(&number)
    });
}

#[test]
fn a_slow_clients_queue_is_shown() {
    let server = Server::start(&["--max-message", "4MiB"]);
    let _slow = Sse::open_narrow(&server, "/events?topic=a");
    let mut viewer = Viewer::open(&server);
    for _ in 0..4 {
        server.publish("/publish?topic=a", &"x".repeat(1 << 20));
    }
    let found = viewer.wait("a queue", |one| one["queueBytes"].as_u64() > Some(1 << 20));
    assert_eq!(found["role"], "sse");
    viewer.wait("a client whose socket is full", |one| {
        one["tid"] == found["tid"] && one["waits"] == "poll"
    });
}

#[test]
fn it_is_for_the_servers_own_machine() {
    let server = Server::start(&["--trust-proxy", "127.0.0.2"]);
    let refused = [
        ("Origin: https://evil.example\r\n", "forbidden_origin"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "forbidden"),
        ("X-Forwarded-For: 127.0.0.1\r\n", "forbidden"),
        ("Forwarded: for=127.0.0.1\r\n", "forbidden"),
    ];
    for (field, code) in refused {
        let answer = server.request("GET", "/threads", field, b"");
        assert_eq!((answer.status, &*answer.error_code()), (403, code), "{field}");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    }
    // A name that leads to this machine is not its own: another site may have it.
    let rebound =
        server.respond("GET /threads HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!((rebound.status, &*rebound.error_code()), (403, "forbidden"));
    // A trusted proxy on this machine says who asks.
    for (client, status) in [("192.0.2.1", 403), ("127.0.0.1", 200)] {
        use std::io::{Read, Write};
        let mut stream = server.connect_from("127.0.0.2".parse().unwrap());
        let head = format!(
            "HEAD /threads HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{client}: {answer}");
    }
    let own = format!("Origin: http://{}\r\n", server.address);
    Viewer::open_with(&server, "/threads", &own);
    assert_eq!(server.request("POST", "/threads", "", b"x").status, 405);
}

#[test]
fn with_a_subscribe_token_it_is_for_those_who_have_it() {
    let server = Server::start(&["--subscribe-token", "t1"]);
    assert_eq!(server.get("/threads").status, 401);
    let bearer = "Authorization: Bearer t1\r\n";
    Viewer::open_with(&server, "/threads", bearer);
    let ticket = server.request("POST", "/ticket", bearer, b"").json()["ticket"].clone();
    let target = format!("/threads?ticket={}", ticket.as_str().unwrap());
    Viewer::open_with(&server, &target, "Origin: https://other.example\r\n");
    assert_eq!(server.get(&target).status, 401);
}

#[test]
fn viewers_end_with_the_server() {
    let mut config = Config::default();
    config.set_listen("127.0.0.1:0").unwrap();
    let server = threadcast::Server::start(config).unwrap();
    let mut viewer = Viewer::open(&Remote::of(&server));
    assert!(server.shutdown(), "all have left in time");
    while viewer.stream.block().is_some() {}
}
