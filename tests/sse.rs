//! The event stream: its head, the form of events, topics, heartbeats, ticks, and its end.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::sse::{Block, Sse};
use common::ws::{Raw, json, open};
use common::{Answer, FANOUTS, PATIENCE, Server, assert_timestamp, wait_for};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

fn data(block: Option<Block>) -> String {
    block.expect("an event").data.expect("with data")
}

#[test]
fn the_head_and_the_greeting() {
    let server = Server::start(&[]);
    // (Its fields are those of GET: see head.rs.)
    assert_eq!(server.request("HEAD", "/events", "", b"").text(), "");
    assert_eq!(server.stats()["clients"]["sse"], 0, "only a GET is a client");
    let mut sse = Sse::connect(&server, "/events", "");
    let head = Answer::parse(sse.head.as_bytes());
    assert_eq!(head.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(head.header("Cache-Control"), Some("no-cache, no-transform"));
    assert_eq!(head.header("X-Accel-Buffering"), Some("no"));
    assert_eq!(head.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(head.header("Content-Length"), None);
    assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(head.header("Connection"), Some("close"));
    let id = server.publish_id("/publish", "x");
    let mut later = Sse::connect(&server, "/events", "");
    let message = r#"{"message":"Connection established"}"#;
    for (sse, seen) in [(&mut sse, None), (&mut later, Some(id))] {
        let greeting = sse.block().unwrap();
        assert_eq!(greeting.data.as_deref(), Some(message));
        assert_eq!(greeting.retry.as_deref(), Some("2000"), "in one block with the data");
        let greeted = greeting.id.expect("an id to come back with");
        assert!(seen.is_none_or(|seen| seen == greeted), "the newest id there is");
    }
}

/// Client libraries hand on what they read chunk by chunk (RFC 9112 section 7.1); HTTP/1.0 knows none.
#[test]
fn each_event_is_a_chunk_to_http_1_1_and_none_to_1_0() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--heartbeat", "300ms", "--history", "2"]);
        let seen = server.publish_id("/publish", "seen");
        let ids: Vec<String> = (0..3).map(|_| server.publish_id("/publish", "missed")).collect();
        let (mut old, mut new) = (server.connect(), server.connect());
        old.write_all(format!("GET /events?last_event_id={seen} HTTP/1.0\r\n\r\n").as_bytes())
            .unwrap();
        let field = format!("Last-Event-ID: {seen}\r\n");
        new.write_all(common::http::get("/events", &field).as_bytes()).unwrap();
        for stream in [&old, &new] {
            // It is subscribed.
            wait_for("the greeting", || {
                let mut bytes = [0; 4096];
                let length = stream.peek(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes[..length]).contains("established")
            });
        }
        let live = server.publish_id("/publish?event=e", "live");
        // A heartbeat at the least, of which nobody can tell how many.
        std::thread::sleep(Duration::from_secs(1));
        server.signal("TERM");
        let [old, new] = [old, new].map(|mut stream| {
            let mut bytes = String::new();
            stream.read_to_string(&mut bytes).expect("the server closes");
            let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
            (head.to_owned(), body.to_owned())
        });
        assert!(!old.0.contains("Transfer-Encoding"), "{}", old.0);
        let mut chunks = Vec::new();
        let mut rest = &*new.1;
        while !rest.is_empty() {
            let (length, behind) = rest.split_once("\r\n").unwrap();
            let (chunk, behind) = behind.split_at(usize::from_str_radix(length, 16).unwrap());
            rest = behind.strip_prefix("\r\n").expect("the end of the chunk");
            chunks.push(chunk);
        }
        let beats = chunks.iter().filter(|chunk| **chunk == ":\n").count();
        assert!((1..10).contains(&beats), "{beats} comment lines");
        chunks.retain(|chunk| *chunk != ":\n");
        let greeting = "data: {\"message\":\"Connection established\"}";
        let [first, gap, replay, event, farewell, end] = chunks[..] else { panic!("{chunks:?}") };
        assert_eq!(first, format!("id: {seen}\nretry: 2000\n{greeting}\n\n"));
        let resumed = &ids[0];
        let data = format!("data: {{\"resumed\":\"{resumed}\"}}");
        assert_eq!(gap, format!("id: {resumed}\nevent: gap\n{data}\n\n"));
        // (The history keeps two events.)
        let missed = ids[1..].iter().map(|id| format!("id: {id}\ndata: missed\n\n"));
        assert_eq!(replay, missed.collect::<String>());
        assert_eq!(event, format!("id: {live}\nevent: e\ndata: live\n\n"));
        assert!(farewell.starts_with("retry: "), "{farewell:?}");
        assert_eq!(farewell.find('\n'), Some(farewell.len() - 1), "no block without data");
        assert_eq!(end, "", "the last chunk");
        // The same without chunks; the two come back at different times.
        let lines = old.1.split_inclusive('\n').filter(|line| *line != ":\n");
        let text: String = lines.collect();
        let (events, farewell) = text.split_at(text.rfind("retry: ").unwrap());
        assert_eq!(events, [first, gap, replay, event].concat());
        assert_eq!(farewell.find('\n'), Some(farewell.len() - 1));
    }
}

#[test]
fn events_carry_id_name_and_data() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut sse = Sse::open(&server, "/events");
        for (query, name) in [
            ("", None),
            ("?event=price", Some("price")),
            ("?topic=t&event=k%C3%A4se%20brot", Some("käse brot")),
            ("?topic=t", None),
        ] {
            let id = server.publish_id(&format!("/publish{query}"), "x");
            let expected = Block {
                id: Some(id),
                event: name.map(str::to_owned),
                data: Some("x".into()),
                ..Block::default()
            };
            assert_eq!(sse.event(), Some(expected), "{fanout}");
        }
    }
}

#[test]
fn data_comes_as_it_was_sent() {
    let large = "0123456789abcdef".repeat(40_000);
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut sse = Sse::open(&server, "/events");
        for (sent, read) in [
            ("one\ntwo\nthree", "one\ntwo\nthree"),
            // An event stream cannot tell the three line ends apart.
            ("cr\rcrlf\r\nlf\nend", "cr\ncrlf\nlf\nend"),
            ("\r\n\r\n", "\n\n"),
            ("trailing\n", "trailing\n"),
            ("\n", "\n"),
            ("\nleading", "\nleading"),
            (" space", " space"),
            ("  two\n  spaces", "  two\n  spaces"),
            (": no comment", ": no comment"),
            ("id: 1\nevent: x\nretry: 1\ndata: y", "id: 1\nevent: x\nretry: 1\ndata: y"),
            ("", ""),
            ("grüße 🦀 \u{2028}\u{feff}\0\t日本語", "grüße 🦀 \u{2028}\u{feff}\0\t日本語"),
            (r#"{"json":"\"quoted\" \\ \n"}"#, r#"{"json":"\"quoted\" \\ \n"}"#),
            (&large, &large),
        ] {
            let id = server.publish_id("/publish", sent);
            let expected = Block { id: Some(id), data: Some(read.into()), ..Block::default() };
            assert_eq!(sse.event(), Some(expected), "{fanout}: {sent:?}");
        }
    }
}

#[test]
fn ids_rise() {
    let server = Server::start(&[]);
    let start = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let mut sse = Sse::open(&server, "/events");
    let mut last = (start - 60_000, 0);
    for _ in 0..200 {
        let id = server.publish_id("/publish", "x");
        assert_eq!(sse.event().unwrap().id.as_ref(), Some(&id));
        let (millis, sequence) = id.split_once('-').expect("<milliseconds>-<sequence>");
        let parsed: (u64, u64) = (millis.parse().unwrap(), sequence.parse().unwrap());
        assert_eq!(format!("{}-{}", parsed.0, parsed.1), id, "no signs, no leading zeros");
        assert!(parsed > last, "{parsed:?} after {last:?}");
        last = parsed;
    }
}

#[test]
fn topics_select_events() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let all = ["a", "b", "k\u{e4}se + brot", "default", "end"];
        let mut clients: Vec<(Sse, Vec<&str>)> = [
            ("/events", all.to_vec()),
            ("/events?topic=*&topic=end", all.to_vec()),
            ("/events?topic=a&topic=end", vec!["a", "end"]),
            ("/events?topic=a&topic=end&topic=a", vec!["a", "end"]),
            ("/events?topic=end&topic=b&topic=a&unknown=1", vec!["a", "b", "end"]),
            ("/events?topic=k%C3%A4se+%2B+brot&topic=end", vec![all[2], "end"]),
            ("/events?topic=A&topic=a%20&topic=aa&topic=end", vec!["end"]),
        ]
        .into_iter()
        .map(|(target, topics)| (Sse::open(&server, target), topics))
        .collect();
        for (target, topic) in [
            ("/publish?topic=a", "a"),
            ("/publish?topic=b", "b"),
            ("/publish?topic=k%C3%A4se%20%2B%20brot", all[2]),
            ("/publish", "default"),
            ("/publish?topic=end", "end"),
        ] {
            server.publish_id(target, topic);
        }
        for (sse, topics) in &mut clients {
            // Up to `end`, which everybody gets: what is missing or too much shows.
            for topic in topics {
                assert_eq!(data(sse.event()), *topic, "{fanout}");
            }
        }
    }
}

#[test]
fn an_idle_client_gets_comments() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--heartbeat", "200ms"]);
        let mut sse = Sse::open(&server, "/events");
        let comment = Block { comment: true, ..Block::default() };
        assert_eq!(sse.block().as_ref(), Some(&comment));
        assert_eq!(sse.block().as_ref(), Some(&comment));
        server.publish_id("/publish", "x");
        assert_eq!(data(sse.event()), "x");
        assert_eq!(sse.block(), Some(comment));
    }
}

#[test]
fn the_tick_publishes_metrics() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--tick", "100ms"]);
        let mut others = Sse::open(&server, "/events?topic=end");
        let mut sse = Sse::open(&server, "/events?topic=metrics");
        let mut last = String::new();
        for _ in 0..3 {
            let tick = sse.event().unwrap();
            assert_eq!(tick.event, None);
            assert!(tick.id.is_some());
            let metric: Value = serde_json::from_str(&tick.data.unwrap()).expect("JSON");
            assert_eq!(metric["type"], "system_metric");
            let usage = metric["cpuUsage"].as_f64().expect("a number");
            assert!((0.0..=100.0).contains(&usage), "{usage}");
            let timestamp = metric["timestamp"].as_str().unwrap();
            assert_timestamp(timestamp);
            assert!(timestamp > &*last, "{timestamp} after {last}");
            last = timestamp.to_owned();
        }
        server.publish_id("/publish?topic=end", "end");
        assert_eq!(data(others.event()), "end", "no metrics for those who want something else");
        let mut all = Sse::open(&server, "/events");
        assert!(data(all.event()).contains("system_metric"));
    }
}

/// Any status but 200 ends an `EventSource` for good (WHATWG HTML, section 9.2.3). Whoever names the
/// media type gets a stream that says when to come back, and ends.
#[test]
fn an_event_source_is_never_refused_for_good() {
    let mut server = Server::start(&["--max-clients", "1", "--drain", "30s", "--log", "info"]);
    let first = Sse::open(&server, "/events");
    let mut delays = std::collections::HashSet::new();
    for accept in ["text/event-stream", "text/html, Text/Event-Stream ;q=0.9", "text/event-stream"]
    {
        let answer = server.request("GET", "/events", &format!("Accept: {accept}\r\n"), b"");
        assert_eq!(answer.status, 200, "{accept}");
        assert_eq!(answer.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
        let why = answer.text().strip_prefix(": all 1 places are taken; try again later\nretry: ");
        let retry = why.and_then(|rest| rest.strip_suffix('\n')).expect("a comment and a retry");
        assert!((5_000..10_000).contains(&retry.parse::<u32>().unwrap()), "{retry}");
        delays.insert(retry.to_owned());
    }
    assert!(delays.len() > 1, "spread: {delays:?}");
    server.wait_log("refused with 503: all 1 places are taken", 3);
    for accept in ["", "Accept: */*\r\n", "Accept: text/event-streams\r\n"] {
        let answer = server.request("GET", "/events", accept, b"");
        assert_eq!((answer.status, &*answer.error_code()), (503, "full"), "{accept}");
    }

    // While the server drains a close without a response is a network error: browsers come back.
    drop(first);
    server.wait_clients(0, 0);
    let deaf = Raw::connect(&server, "/echo");
    server.signal("TERM");
    wait_for("the drain to begin", || server.get("/healthz").status == 503);
    let mut http = common::http::Http::connect(&server);
    http.send(common::http::get("/events", "Accept: text/event-stream\r\n"));
    http.expect_end();
    drop(deaf);
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// A client that was reset and is back at once from the same address is a new client: the old one,
/// whose end has not been noticed yet, must not be mixed up with it, and must leave nothing behind.
#[test]
fn an_address_that_comes_back_is_a_new_client() {
    let server = Server::start(&[]);
    // On an address that nobody else on this machine connects from, a port stays free meanwhile.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let mut address = SocketAddr::from(([127, 77, high, low], 0));
    for _ in 0..30 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        // Another test that starts a process just now may hold the socket before it for a moment.
        wait_for("the port to be free again", || match socket.connect(&server.address.into()) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => false,
            result => result.is_ok(),
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // What closes with this option set sends a reset.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut seen = String::new();
        while !seen.contains("established\"}\n\n") {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).expect("a greeting");
            assert!(read > 0, "the stream ended after {seen:?}");
            seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        // The server sorts out a client's descriptors when the next request comes.
        server.get("/healthz");
    }
    server.wait_clients(0, 0);
    // These get the descriptor numbers that the others had.
    let sockets: Vec<_> = (0..30).map(|_| open(&server, "/ws")).collect();
    let streams: Vec<_> = (0..30).map(|_| Sse::open(&server, "/events")).collect();
    server.wait_clients(30, 30);
    drop((sockets, streams));
    server.wait_clients(0, 0);
}

/// Events that come together go out together, and still everyone gets their own, in order.
#[test]
fn a_flood_of_events_keeps_its_order_for_every_selection() {
    const EACH: usize = 1500;
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let wanted: [(&str, &[&str]); 4] = [
            ("/events", &["a", "b", "c"]),
            ("/events?topic=a", &["a"]),
            ("/events?topic=a&topic=c", &["a", "c"]),
            ("/events?topic=c&topic=b&topic=other", &["b", "c"]),
        ];
        let streams: Vec<Sse> =
            wanted.iter().map(|(target, _)| Sse::open(&server, target)).collect();
        let mut socket = open(&server, "/ws?topic=b&topic=c");
        let number_of = |data: &str| data.parse::<usize>().unwrap();
        let topic_of = |number: usize| ["a", "b", "c", "c", "a"][number % 5];
        let lines: String = (0..EACH)
            .map(|n| format!("{{\"topic\":\"{}\",\"data\":\"{n}\"}}\n", topic_of(n)))
            .collect();
        assert_eq!(server.publish_lines(&lines).json()["events"], EACH, "{fanout}");

        let of = |topics: &[&str]| -> Vec<usize> {
            (0..EACH).filter(|number| topics.contains(&topic_of(*number))).collect()
        };
        for (mut stream, (target, topics)) in streams.into_iter().zip(wanted) {
            let expected = of(topics);
            let got: Vec<usize> =
                expected.iter().map(|_| number_of(&data(stream.event()))).collect();
            assert_eq!(got, expected, "{fanout} {target}");
        }
        let expected = of(&["b", "c"]);
        let got: Vec<usize> = expected
            .iter()
            .map(|_| number_of(json(&mut socket)["data"].as_str().unwrap()))
            .collect();
        assert_eq!(got, expected, "{fanout} /ws");
    }
}
