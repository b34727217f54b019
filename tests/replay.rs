//! Clients that drop and come back while events flow: each event exactly once, in order.

mod common;

use std::time::Duration;

use common::sse::Sse;
use common::ws::Raw;
use common::{FANOUTS, Server, wait_for};

const EVENTS: usize = 5_000;
const CLIENTS: usize = 10;

/// A small generator of random numbers (xorshift): tests must be able to run the same again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Publishes numbered events, a batch a request, and some of them large so that writes are partial.
fn publish_all(server: &Server) {
    let filler = "x".repeat(20_000);
    let mut random = Random(7);
    let mut number = 0;
    while number < EVENTS {
        let mut lines = String::new();
        for _ in 0..=random.below(40) {
            if number < EVENTS {
                let large = if random.below(20) == 0 { filler.as_str() } else { "" };
                lines.push_str(&format!("{{\"topic\":\"n\",\"data\":\"{number} {large}\"}}\n"));
                number += 1;
            }
        }
        server.publish_lines(&lines);
        // A pause, so that clients come and go while events flow, and not all after the last.
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn number_of(data: Option<&str>) -> usize {
    data.and_then(|data| data.split(' ').next()).and_then(|n| n.parse().ok()).expect("a number")
}

/// Reads events with drops until all have come. Every event must be the one after the last.
fn follow(server: &Server, seed: u64, first: Sse, slow: bool) {
    let mut random = Random(seed);
    let mut next = 0;
    let mut last = None;
    let mut stream = Some(first);
    while next < EVENTS {
        let mut sse = stream.take().unwrap_or_else(|| {
            let last = last.as_deref().expect("nobody drops before an event");
            Sse::open_after(server, "/events?topic=n", Some(last))
        });
        for _ in 0..1 + random.below(400) {
            let Some(event) = sse.event() else { break };
            assert_eq!(event.event, None, "a gap: {event:?}");
            assert_eq!(number_of(event.data.as_deref()), next, "client {seed}");
            last = event.id;
            next += 1;
            if next == EVENTS {
                return;
            }
            if slow && random.below(10) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if last.is_none() {
            stream = Some(sse);
        }
    }
}

fn every_event_exactly_once(fanout: &str) {
    let flags = ["--fanout", fanout, "--history", "20000", "--queue", "20000", "--log", "warn"];
    let server = Server::start(&flags);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, first) = (&server, Sse::open(&server, "/events?topic=n"));
            scope.spawn(move || follow(server, client as u64 + 1, first, client % 3 == 0));
        }
        publish_all(&server);
    });
    // Those that dropped are gone.
    server.wait_clients(0, 0);
}

#[test]
fn every_event_exactly_once_direct() {
    every_event_exactly_once("direct");
}

#[test]
fn every_event_exactly_once_handoff() {
    every_event_exactly_once("handoff");
}

/// A client that stops reading, while all its events still fit its queue: what it reads later
/// passes from the socket's buffer through a partial write to the queue, in order.
fn partial_writes_keep_order(fanout: &str, websocket: bool) {
    let server = Server::start(&["--fanout", fanout, "--queue", "1000", "--log", "warn"]);
    let target = if websocket { "/ws?topic=t" } else { "/events?topic=t" };
    let mut sse = (!websocket).then(|| Sse::open_narrow(&server, target));
    let mut ws = websocket.then(|| common::ws::open_narrow(&server, target));
    let filler = "y".repeat(50_000);
    for number in 0..30 {
        let answer = server.publish("/publish?topic=t", &format!("{number} {filler}"));
        assert_eq!(answer.json()["subscribers"], 1);
    }
    server.wait_stats("a client that is behind", |stats| {
        stats["clients"]["listed"][0]["state"] == "behind"
    });
    for number in 0..30 {
        let data = match (&mut sse, &mut ws) {
            (Some(sse), _) => sse.event().unwrap().data,
            (_, Some(ws)) => common::ws::json(ws)["data"].as_str().map(str::to_owned),
            _ => unreachable!(),
        };
        assert_eq!(data, Some(format!("{number} {filler}")));
    }
    server.wait_stats("a client that has caught up", |stats| {
        stats["clients"]["listed"][0]["state"] == "live"
    });
    // And from then on events go the direct way again.
    server.publish("/publish?topic=t", "last");
    let data = match (&mut sse, &mut ws) {
        (Some(sse), _) => sse.event().unwrap().data,
        (_, Some(ws)) => common::ws::json(ws)["data"].as_str().map(str::to_owned),
        _ => unreachable!(),
    };
    assert_eq!(data.as_deref(), Some("last"));
}

#[test]
fn partial_writes_keep_order_sse() {
    partial_writes_keep_order("direct", false);
    partial_writes_keep_order("handoff", false);
}

#[test]
fn partial_writes_keep_order_websocket() {
    partial_writes_keep_order("direct", true);
    partial_writes_keep_order("handoff", true);
}

/// A client that does not read at all is dropped; it comes back and misses nothing; a neighbour
/// that reads has lost nothing and waited for nobody.
fn slow_client(fanout: &str) {
    let server = Server::start(&["--fanout", fanout, "--queue", "16", "--log", "info"]);
    let mut lazy = Sse::open_narrow(&server, "/events?topic=t");
    let mut lazy_ws = common::ws::open_narrow(&server, "/ws?topic=t");
    let mut eager = Sse::open(&server, "/events?topic=t");
    let filler = "z".repeat(20_000);
    let mut published = Vec::new();
    std::thread::scope(|scope| {
        let (confirm, confirmed) = std::sync::mpsc::channel();
        scope.spawn(move || {
            while let Some(event) = eager.event() {
                let data = event.data.unwrap();
                if confirm.send(data.split(' ').next().unwrap().to_owned()).is_err() {
                    return;
                }
            }
        });
        // Until both lazy ones are given up. The eager one gets every event while they are stuck.
        let given_up = || {
            let stats = server.stats();
            let listed = stats["clients"]["listed"].as_array().unwrap();
            listed.iter().filter(|one| one["state"] != "closing").count() == 1
        };
        while !given_up() {
            let number = published.len();
            assert!(number < 1_000, "clients that never read are still connected");
            server.publish("/publish?topic=t", &format!("{number} {filler}"));
            published.push(number.to_string());
            assert_eq!(confirmed.recv_timeout(common::PATIENCE).as_ref(), Ok(&published[number]));
        }
        drop(confirmed);
        server.publish("/publish?topic=t", "end");
        published.push("end".into());
    });
    // What the lazy one had in its buffers is whole and in order; the rest comes by replay.
    let mut seen = Vec::new();
    let mut last = None;
    while let Some(event) = lazy.event() {
        seen.push(event.data.unwrap().split(' ').next().unwrap().to_owned());
        last = event.id;
    }
    assert!(seen.len() < published.len());
    let mut back = Sse::open_after(&server, "/events?topic=t", last.as_deref());
    while seen.len() < published.len() {
        seen.push(back.event().unwrap().data.unwrap().split(' ').next().unwrap().to_owned());
    }
    assert_eq!(seen, published);
    // The WebSocket one, once it reads, is told to come back.
    let mut next = 0;
    let code = loop {
        match lazy_ws.read() {
            Ok(tungstenite::Message::Text(text)) => {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                let data = value["data"].as_str().unwrap();
                assert_eq!(data.split(' ').next(), Some(&*published[next]));
                next += 1;
            }
            Ok(tungstenite::Message::Close(close)) => break close.map(|close| close.code.into()),
            Ok(_) => {}
            // It took longer than the grace for last words to come to this line.
            Err(_) => break None,
        }
    };
    assert!(next < published.len());
    assert!(code.is_none() || code == Some(1013_u16), "{code:?}");
    wait_for("the log to tell", || server.log().contains("too slow"));
}

#[test]
fn a_slow_client_is_dropped_alone_direct() {
    slow_client("direct");
}

#[test]
fn a_slow_client_is_dropped_alone_handoff() {
    slow_client("handoff");
}

/// A slow WebSocket that starts to read within the grace gets the frame it is in the middle of,
/// and then the close frame with 1013.
#[test]
fn a_slow_websocket_is_told_to_come_back() {
    let server = Server::start(&["--queue", "4", "--log", "warn"]);
    let mut socket = common::ws::open_narrow(&server, "/ws?topic=t");
    let filler = "z".repeat(50_000);
    for number in 0..40 {
        server.publish("/publish?topic=t", &format!("{number} {filler}"));
        if server.stats()["clients"]["listed"][0]["state"] == "closing" {
            break;
        }
    }
    let code = loop {
        match socket.read().expect("whole frames until the close frame") {
            tungstenite::Message::Close(close) => break close.map(|close| close.code.into()),
            message => assert!(message.is_text()),
        }
    };
    assert_eq!(code, Some(1013_u16));
    server.wait_clients(0, 0);
}

/// Far more events than may wait, at once, for clients that read: one is still being greeted, the others' threads
/// have yet to wake. That is the server's delay, and their sockets would take it all.
#[test]
fn a_burst_is_no_slowness_of_clients_that_read() {
    const EVENTS: usize = 700;
    let data: Vec<String> = (0..EVENTS).map(|number| number.to_string()).collect();
    let line = |data: &String| format!("{{\"topic\":\"t\",\"data\":\"{data}\"}}\n");
    let lines: String = data.iter().map(line).collect();
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--queue", "4", "--log", "info"]);
        let mut stream = Sse::open(&server, "/events?topic=t");
        let mut settled = common::ws::open(&server, "/ws?topic=t");
        for round in 0..10 {
            // It has its response, and not yet its first frame.
            let mut fresh = Raw::connect(&server, "/ws?topic=t");
            assert_eq!(server.publish_lines(&lines).json()["subscribers"], 3);
            let welcome = fresh.frame().expect("a first frame");
            assert!(String::from_utf8_lossy(&welcome.payload).contains("Welcome"));
            let check = |who: &str, got: Vec<String>| {
                assert_eq!(got, data, "{fanout}, round {round}, {who}: {}", server.log());
            };
            check("stream", (0..EVENTS).map_while(|_| stream.event()?.data).collect());
            let text = |message: &[u8]| {
                let event: serde_json::Value = serde_json::from_slice(message).ok()?;
                Some(event["data"].as_str()?.to_owned())
            };
            let read = |_| text(&settled.read().ok()?.into_data());
            check("settled", (0..EVENTS).map_while(read).collect());
            check("fresh", (0..EVENTS).map_while(|_| text(&fresh.frame()?.payload)).collect());
        }
    }
}
