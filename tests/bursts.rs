//! Many connections at once, on a fresh server: where the obvious way to use tiny_http answers 4
//! of 20. And the accept loop's death by descriptor exhaustion.

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::ws::upgrade_lines;
use common::{Answer, PATIENCE, Server, sse::Sse, wait_for};

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
fn the_accept_loop_is_replaced_after_descriptor_exhaustion() {
    let server = Server::start_with_descriptors(128, &["--header-timeout", "2s"]);
    let mut before = Sse::open(&server, "/events");

    // Each of these costs the server two descriptors, and never becomes a request.
    let mut idle = Vec::new();
    for _ in 0..120 {
        match TcpStream::connect(server.address) {
            Ok(mut stream) => {
                let _ = stream.write_all(b"GET /");
                idle.push(stream);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
    }
    let answered = || {
        let Ok(mut stream) = TcpStream::connect(server.address) else {
            return false;
        };
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut answer = String::new();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("\"ok\"")
    };
    wait_for("a new client to be served", answered);
    let stats = server.stats();
    assert!(stats["listener"]["restarts"].as_u64().unwrap() >= 1, "never exhausted: {stats}");
    assert!(stats["listener"]["reaped"].as_u64().unwrap() >= 1, "{stats}");
    drop(idle);

    // The client from before has lost nothing.
    let id = server.publish("/publish", "still there").json()["id"].clone();
    let event = before.event().unwrap();
    assert_eq!((event.id.as_deref(), event.data.as_deref()), (id.as_str(), Some("still there")));
    // What was started to replace the loop is gone again. (Not a count of all threads: asking for
    // it would keep tiny_http's idle workers alive.)
    wait_for("one dispatcher", || {
        server.tasks().iter().filter(|(_, name)| name == "dispatcher").count() == 1
    });
    drop(before);
    server.wait_stats("descriptors as before", |stats| stats["descriptors"].as_u64() < Some(17));
}

#[test]
fn tiny_http_starts_afresh_after_a_crowd_and_nobody_notices() {
    let server = Server::start(&["--header-timeout", "500ms"]);
    let dispatchers = || {
        let tasks = server.tasks().into_iter();
        tasks.filter(|(_, name)| name == "dispatcher").map(|(id, _)| id).collect::<BTreeSet<_>>()
    };
    let first = dispatchers();
    assert_eq!(first.len(), 1);
    // This one's worker never comes back (a known limit), and nobody may wait for it.
    server.exchange(b"GET / HTTP/2.0\r\nHost: x\r\n\r\n");
    let mut stays = Sse::open(&server, "/events");
    // Each thread's stack is a map or two, which the C library likes to keep for the next thread.
    let maps = || std::fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap();
    let before = maps().lines().count();
    let crowd: Vec<Sse> = (0..100).map(|_| Sse::open(&server, "/events")).collect();
    drop(crowd);

    // The server looks every five seconds, and waits for a second look. All the while somebody asks,
    // and every answer is the right one.
    let deadline = Instant::now() + PATIENCE;
    let ask_until_renewed = || {
        let mut asked = 0_u32;
        while dispatchers().is_superset(&first) || asked < 100 {
            assert!(Instant::now() < deadline, "the dispatcher is still the first one");
            assert_eq!(server.get("/healthz").status, 200);
            asked += 1;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask_until_renewed);
        }
    });
    wait_for("one dispatcher", || dispatchers().len() == 1);
    let id = server.publish("/publish", "still there").json()["id"].clone();
    assert_eq!(stays.event().unwrap().id.as_deref(), id.as_str());
    let stats = server.stats();
    assert_eq!(stats["listener"]["restarts"], 0, "{stats}");
    assert_eq!(stats["listener"]["stuck"], 1, "{stats}");
    assert!(server.log().contains("1 closed connections each keep a thread"), "{}", server.log());
    wait_for("stacks to be given back", || maps().lines().count() < before + 50);
    // Neither is it a reason to start afresh again and again.
    let second = dispatchers();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(dispatchers(), second);
}

#[test]
fn silent_and_endless_headers_are_reaped() {
    let server = Server::start(&["--header-timeout", "500ms"]);
    let mut slow = server.connect();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").unwrap();
    let mut answer = Vec::new();
    let ended = slow.read_to_end(&mut answer);
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    let answer = Answer::parse(&answer);
    assert_eq!((answer.status, answer.error_code().as_str()), (408, "timeout"));

    let mut endless = server.connect();
    let line = [b'x'; 16 * 1024];
    let deadline = Instant::now() + PATIENCE;
    // 300 MB would go through if nobody counted.
    let mut sent = 0;
    while sent < 300 << 20 && endless.write_all(&line).is_ok() {
        sent += line.len();
        assert!(Instant::now() < deadline);
    }
    assert!(sent < 200 << 20, "an endless header was accepted for {sent} bytes");
    let memory = server.stats()["memoryBytes"].as_u64().unwrap();
    assert!(memory < 64 << 20, "{memory} bytes");
    assert_eq!(server.stats()["listener"]["reaped"], 2);
}

#[test]
fn a_second_request_ends_the_stream_it_came_on() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    sse.stream().write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // Whether it is read at all is a race with the worker's way home; the server must stay well.
    server.publish("/publish", "after");
    let seen = sse.event();
    assert!(seen.is_none() || seen.unwrap().data.as_deref() == Some("after"));
    drop(sse);

    // Pipelined in one packet, behind an SSE request and behind a plain one.
    for first in ["GET /events", "GET /healthz", "GET /ws"] {
        let mut stream = server.connect();
        let mut bytes = format!("{first} HTTP/1.1\r\nHost: x\r\n\r\n");
        for _ in 0..1_000 {
            bytes.push_str("POST /publish?topic=smuggled HTTP/1.1\r\nHost: x\r\n");
            bytes.push_str("Content-Length: 1\r\n\r\nx");
        }
        let _ = stream.write_all(bytes.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
    }
    server.wait_clients(0, 0);
    assert_eq!(server.stats()["fanOut"]["events"], 1, "a pipelined publish was served");
    server.wait_stats("threads as before", |stats| stats["threads"].as_u64().unwrap() <= 20);
}

/// A thread that has served one request serves others, under their names; few wait, and a stream has
/// its own.
#[test]
fn threads_are_used_again() {
    let server = Server::start(&["--tick", "0"]);
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
    wait_for("most of them to end", || called("sse ").is_empty() && called("idle").len() <= 8);
    assert_eq!(server.get("/healthz").status, 200);
}
