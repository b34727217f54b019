//! Connections that are kept open for another request (RFC 9112 section 9).

mod common;

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use common::http::{Http, POST, get, post};
use common::sse::Sse;
use common::ws::{Raw, upgrade_lines};
use common::{Answer, Server};
use threadcast::event::EventId;

fn id(answer: &Answer) -> EventId {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").parse().expect("of the right form")
}

#[test]
fn requests_on_one_connection_are_served_one_after_another() {
    let server = Server::start(&[]);
    let mut http = Http::connect(&server);
    let before = id(&http.ask(post("one")));
    for (request, status) in [
        (get("/healthz", ""), 200),
        (get("/nothing", ""), 404),
        (get("/", "If-None-Match: *\r\n"), 304),
        (get("/events?topic=", ""), 400),
        ("OPTIONS /publish HTTP/1.1\r\nHost: x\r\n\r\n".into(), 204),
        (get("/ws", ""), 426),
        ("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), 200),
        (format!("{POST}Content-Length: 1\r\n\r\n\u{1}"), 200),
        (post(&"x".repeat(100_000)), 200),
        (get("/healthz", "X: y\r\n"), 200),
    ] {
        let answer = http.ask(&request);
        assert_eq!(answer.status, status, "{request:.50}");
        let members = answer.header("Connection").unwrap_or_default();
        assert!(!members.contains("close"), "{request:.50}: {members}");
    }
    assert!(id(&http.ask(post("two"))) > before);
    // The connection may become a client's.
    http.send(get("/events", ""));
    assert_eq!(http.head().header("Content-Type"), Some("text/event-stream; charset=utf-8"));
    server.wait_clients(1, 0);
    drop(http);
    let mut http = Http::connect(&server);
    assert_eq!(http.ask(get("/healthz", "")).status, 200);
    http.send(get("/ws", &upgrade_lines()));
    assert_eq!(http.head().status, 101);
    server.wait_clients(0, 1);
}

#[test]
fn the_client_decides_whether_its_connection_is_kept() {
    let server = Server::start(&[]);
    for (version, connection, says) in [
        ("1.1", "", None),
        ("1.1", "Connection: keep-alive\r\n", None),
        ("1.1", "Connection: x\r\nConnection: y, keep-alive\r\n", None),
        // White space in HTTP is spaces and tabs.
        ("1.1", "Connection: close\u{3000}\r\n", None),
        ("1.1", "Connection: close\r\n", Some("close")),
        ("1.1", "Connection: keep-alive, Close\r\n", Some("close")),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", Some("close")),
        ("1.0", "", Some("close")),
        ("1.0", "Connection: close\r\n", Some("close")),
        ("1.0", "Connection: keep-alive\r\n", Some("keep-alive")),
        ("1.0", "Connection: x, Keep-Alive\r\n", Some("keep-alive")),
        ("1.0", "Connection: keep-alive, close\r\n", Some("close")),
    ] {
        let case = format!("HTTP/{version} {connection:?}");
        let request = format!("GET /healthz HTTP/{version}\r\nHost: x\r\n{connection}\r\n");
        let mut http = Http::connect(&server);
        // The connection was open before, or this is its first request.
        for _ in 0..2 {
            let answer = http.ask(&request);
            assert_eq!((answer.status, answer.header("Connection")), (200, says), "{case}");
            if says == Some("close") {
                break;
            }
        }
        if says == Some("close") {
            http.expect_end();
            // A request behind it is not served.
            let mut http = Http::connect(&server);
            http.send(format!("{request}{}", post("behind the last one")));
            assert_eq!(http.response().status, 200);
            http.expect_end();
        }
    }
    assert_eq!(server.stats()["fanOut"]["events"], 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut events = Sse::open(&server, "/events");
    let mut http = Http::connect(&server);
    let requests = (0..100).map(|number| match number % 3 {
        0 => {
            let data = number.to_string();
            let length = data.len();
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{data}\r\n0\r\n\r\n")
        }
        _ => post(&number.to_string()),
    });
    http.send(requests.collect::<String>());
    let mut last = EventId::default();
    for number in 0..100 {
        let id = id(&http.response());
        assert!(id > last, "{number}");
        last = id;
        let event = events.event().unwrap();
        assert_eq!((event.id, event.data), (Some(id.to_string()), Some(number.to_string())));
    }
    // A few more than fit in a segment, and some that fail, which their followers survive.
    let long = "x".repeat(50_000);
    let mixed = [post(&long), get("/nothing", ""), post("\u{e4}"), get("/healthz", "")];
    http.send(mixed.concat().repeat(5));
    for _ in 0..5 {
        let statuses: Vec<u16> = mixed.iter().map(|_| http.response().status).collect();
        assert_eq!(statuses, [200, 404, 200, 200]);
    }
    // One that is refused is the last.
    let bad = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n";
    http.send(format!("{}{bad}{}", post("good"), post("behind a bad one")));
    assert_eq!((http.response().status, http.response().status), (200, 400));
    http.expect_end();
    for _ in 0..5 {
        assert_eq!(events.event().unwrap().data, Some(long.clone()));
        assert_eq!(events.event().unwrap().data.as_deref(), Some("\u{e4}"));
    }
    assert_eq!(events.event().unwrap().data.as_deref(), Some("good"));
    events.expect_nothing(&server, "what came behind a bad request");
}

/// What is between the end of a body and the next request belongs to neither.
#[test]
fn the_request_behind_a_chunked_body_is_served() {
    let server = Server::start(&[]);
    let mut http = Http::connect(&server);
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0;c=\"d\"\r\n\r\n",
        "1\r\nx\r\n0005\r\nhello\r\n000\r\nTrailer: one\r\nContent-Length: 99\r\n\r\n",
    ] {
        let request = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(http.ask(&request).status, 200, "{body:?}");
        http.send(format!("{request}\r\n{}", get("/healthz", "")));
        assert_eq!((http.response().status, http.response().status), (200, 200), "{body:?}");
    }
    // Extensions and trailers are read, and have an end.
    for body in [
        format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(20_000)),
        format!("1\r\nx\r\n0\r\n{}\r\n", "Trailer: one\r\n".repeat(2_000)),
    ] {
        let mut http = Http::connect(&server);
        let answer = http.ask(format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}"));
        assert!([400, 413].contains(&answer.status), "{}", answer.status);
        assert_eq!(answer.header("Connection"), Some("close"));
        http.expect_end();
    }
}

#[test]
fn a_response_with_a_body_left_unread_is_the_last() {
    let server = Server::start(&[]);
    for (method, target, status) in
        [("GET", "/healthz", 200), ("PUT", "/", 405), ("POST", "/nothing", 404)]
    {
        for framing in ["Content-Length: 70\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
            let mut http = Http::connect(&server);
            // The body is a request. It must not be taken for one.
            http.send(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{framing}{}", post("x")));
            let answer = http.response();
            assert_eq!((answer.status, answer.header("Connection")), (status, Some("close")));
            http.expect_end();
        }
    }
    assert_eq!(server.stats()["fanOut"]["events"], 0);
}

#[test]
fn an_idle_connection_is_closed_after_a_while() {
    let server = Server::start(&["--header-timeout", "1h"]);
    let mut http = Http::connect(&server);
    for _ in 0..3 {
        // Longer than a second, and less than the while.
        assert_eq!(http.ask(get("/healthz", "")).status, 200);
        std::thread::sleep(Duration::from_millis(1_200));
    }
    let mut with_empty_line = Http::connect(&server);
    with_empty_line.ask(get("/healthz", ""));
    with_empty_line.send("\r\n");
    // Without a word: the client may be sending its next request, and would take it for the answer.
    http.expect_end();
    with_empty_line.expect_end();
    assert_eq!(server.stats()["listener"]["reaped"], 0, "both have been served");
}

/// The time for a head begins with its first byte, on a kept connection as well.
#[test]
fn the_next_head_has_its_own_time() {
    let server = Server::start(&["--header-timeout", "1s"]);
    let mut http = Http::connect(&server);
    assert_eq!(http.ask(get("/healthz", "")).status, 200);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(http.ask(get("/healthz", "")).status, 200);
    http.send("GET /healthz HTTP/1.1\r\n");
    let answer = http.response();
    assert_eq!((answer.status, &*answer.error_code()), (408, "timeout"));
    http.expect_end();
}

#[test]
fn at_shutdown_idle_connections_are_closed_at_once() {
    for is_anybody_there in [false, true] {
        let mut server = Server::start(&["--drain", "1h"]);
        let deaf = is_anybody_there.then(|| Raw::connect(&server, "/ws"));
        let mut idle: Vec<Http> = (0..20).map(|_| Http::connect(&server)).collect();
        for http in &mut idle {
            assert_eq!(http.ask(get("/healthz", "")).status, 200);
            // Sooner than an idle connection is closed anyway.
            http.stream().set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        }
        server.signal("TERM");
        for http in &mut idle {
            http.expect_end();
        }
        drop(deaf);
        assert_eq!(server.wait_exit().code(), Some(0), "{}", server.log());
    }
}

/// A client may read its responses late. Those behind the first wait, and all come.
#[test]
fn a_client_that_reads_late_gets_every_response() {
    let server = Server::start(&[]);
    let stream = server.connect_narrow();
    let mut sender = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        sender.write_all(get("/metrics", "").repeat(300).as_bytes()).expect("the server reads");
    });
    std::thread::sleep(Duration::from_secs(1));
    let mut http = Http::on(stream);
    for number in 0..300 {
        let answer = http.response();
        assert_eq!(answer.status, 200);
        assert!(answer.text().ends_with("# EOF\n"), "{number}");
    }
    writer.join().unwrap();
}

#[test]
fn what_comes_behind_a_request_for_a_stream_is_no_request() {
    let server = Server::start(&[]);
    let mut later = Sse::open(&server, "/events");
    later.stream().write_all(post("later").as_bytes()).unwrap();
    // In one packet, and more than a packet.
    let mut together = server.connect();
    together.write_all((get("/events", "") + &post("at once").repeat(1_000)).as_bytes()).unwrap();
    let mut together = BufReader::new(together).lines().map(|line| line.expect("a line"));
    assert_eq!(together.next().as_deref(), Some("HTTP/1.1 200 OK"));
    server.wait_clients(2, 0);
    later.expect_nothing(&server, "what was sent on an event stream");
    let lines: Vec<_> = together.take_while(|line| line != "data: marker").collect();
    assert!(!lines.iter().any(|line| line.contains("at once") || line.starts_with("HTTP")));
    assert_eq!(server.stats()["fanOut"]["events"], 1);
}
