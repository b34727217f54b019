//! Many connections at once: on a fresh server, where the obvious way to use tiny_http answers 4 of
//! 20; until descriptors have run out; and what is left of them afterwards.

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::http::get;
use common::ws::upgrade_lines;
use common::{PATIENCE, Server, sse::Sse, wait_for};

const BURSTS: usize = 50;
const EACH: usize = 20;

/// Within this every client of a burst must have its answer. It is the contract's figure, and a
/// hundred times what it takes; a starved client waits for ever.
const IN_TIME: Duration = Duration::from_secs(1);

#[test]
fn every_client_of_a_first_burst_is_answered() {
    for burst in 0..BURSTS {
        let server = Server::start(&["--log", "warn"]);
        let requests: [(String, &str); 3] = [
            (format!("GET /ws HTTP/1.1\r\nHost: x\r\n{}\r\n", upgrade_lines()), "Welcome"),
            ("GET /events HTTP/1.1\r\nHost: x\r\n\r\n".into(), "established"),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".into(), "\"ok\""),
        ];
        let mut clients: Vec<(TcpStream, &str)> = Vec::new();
        for _ in 0..EACH {
            for (_, expected) in &requests {
                clients.push((server.connect(), expected));
            }
        }
        let start = Instant::now();
        for (number, (stream, _)) in clients.iter_mut().enumerate() {
            stream.write_all(requests[number % 3].0.as_bytes()).unwrap();
        }
        for (number, (stream, expected)) in clients.iter_mut().enumerate() {
            let mut answer = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&answer).contains(*expected) {
                let left = IN_TIME.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
                stream.set_read_timeout(Some(left)).unwrap();
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => answer.extend_from_slice(&buffer[..read]),
                    other => panic!(
                        "burst {burst}, client {number}: {other:?} after {:?}, having got {:?}",
                        start.elapsed(),
                        String::from_utf8_lossy(&answer)
                    ),
                }
            }
        }
        let each = EACH as u64;
        server.wait_clients(each, each);
    }
}

#[test]
fn after_descriptor_exhaustion_new_clients_are_served() {
    let server = Server::start_with_descriptors(128, &["--max-clients", "127"]);
    let mut first = Sse::open(&server, "/events");
    let before = server.stats();
    // Streams are no connections that could be closed to make room.
    let mut crowd: Vec<TcpStream> = Vec::new();
    loop {
        assert!(crowd.len() < 200, "128 descriptors are enough for 200 clients");
        let mut stream = server.connect();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(get("/events", "").as_bytes()).unwrap();
        crowd.push(stream);
        if !matches!(crowd.last().unwrap().peek(&mut [0]), Ok(1)) {
            break;
        }
    }
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    assert!(descriptors.count() >= 128, "one client was not served, and there are descriptors");
    crowd.drain(..40);
    wait_for("a new client to be served", || {
        let mut stream = server.connect();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(get("/healthz", "Connection: close\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer.contains("\"ok\"")
    });

    // The client from before has lost nothing.
    let id = server.publish_id("/publish", "still there");
    let event = first.event().unwrap();
    assert_eq!((event.id, event.data.as_deref()), (Some(id), Some("still there")));
    drop(crowd);
    server.wait_clients(1, 0);
    for resource in ["descriptors", "threads"] {
        let count = |stats: &serde_json::Value| stats[resource].as_u64().unwrap();
        // Another thread may wait for the next request.
        let enough = count(&before) + 2;
        server.wait_stats(&format!("{resource} as before"), |stats| count(stats) <= enough);
    }
    assert_eq!(server.stats()["listener"]["restarts"], 0);
}

#[test]
fn an_endless_header_is_cut_off() {
    let server = Server::start(&[]);
    let mut endless = server.connect();
    let line = [b'x'; 16 * 1024];
    let deadline = Instant::now() + PATIENCE;
    // 300 MB would go through if nobody counted.
    let mut sent = 0;
    while sent < 300 << 20 && endless.write_all(&line).is_ok() {
        sent += line.len();
        assert!(Instant::now() < deadline);
    }
    assert!(sent < 64 << 20, "an endless header was accepted for {sent} bytes");
    let memory = server.stats()["memoryBytes"].as_u64().unwrap();
    assert!(memory < 64 << 20, "{memory} bytes");
    assert_eq!(server.stats()["listener"]["reaped"], 0, "it has had its response");
}

/// A thread that has served one request serves others, under their names; a stream has its own. Those
/// that wait for nothing leave after a while.
#[test]
fn threads_are_used_again() {
    let server = Server::start(&[]);
    let called = |name: &str| {
        let tasks = server.tasks().into_iter().filter(|(_, n)| n.starts_with(name));
        tasks.map(|(id, _)| id).collect::<BTreeSet<u64>>()
    };
    let mut seen = called("idle");
    for _ in 0..50 {
        assert_eq!(server.get("/healthz").status, 200);
        seen.append(&mut called("http "));
        seen.append(&mut called("idle"));
    }
    assert!(!seen.is_empty());
    assert!(seen.len() <= 8, "fifty requests one after another took {} threads", seen.len());

    let streams: Vec<_> = (0..30).map(|_| Sse::open(&server, "/events")).collect();
    assert_eq!(called("sse ").len(), 30);
    drop(streams);
    wait_for("all but one to end", || called("sse ").is_empty() && called("idle").len() <= 1);
    assert_eq!(server.get("/healthz").status, 200);
}
