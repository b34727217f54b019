//! The end: everybody is told, nobody is waited for longer than the drain time.

mod common;

use std::time::{Duration, Instant};

use common::Server;
use common::http::{Http, get};
use common::sse::Sse;
use common::ws::{Raw, open};

const EACH: usize = 100;

#[test]
fn two_hundred_clients_are_seen_off_within_the_drain_time() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--drain", "5s", "--log", "warn"]);
        let mut sse: Vec<Sse> = (0..EACH).map(|_| Sse::open(&server, "/events")).collect();
        let mut ws: Vec<_> = (0..EACH).map(|_| open(&server, "/ws?topic=t")).collect();
        server.publish("/publish?topic=t", "last");

        let start = Instant::now();
        server.signal(signal);
        let mut delays = std::collections::HashSet::new();
        for client in &mut sse {
            assert_eq!(client.event().unwrap().data.as_deref(), Some("last"));
            assert_eq!(client.event(), None, "no block without data");
            assert!(client.is_whole(), "it has ended, it was not cut off");
            delays.insert(client.retry.clone().expect("when to come back"));
        }
        assert!(delays.len() > EACH / 2, "everybody comes back at once: {delays:?}");
        for client in &mut ws {
            assert!(client.read().unwrap().is_text());
            match client.read().unwrap() {
                tungstenite::Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 1012),
                other => panic!("{other:?} instead of a close frame"),
            }
            // Sends the answer, and reads until the server closes.
            while client.read().is_ok() {}
        }
        assert_eq!(server.wait_exit().code(), Some(0), "{}", server.log());
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        assert_eq!(server.log(), "", "a clean end has nothing to warn of");
    }
}

#[test]
fn clients_that_do_not_leave_are_cut() {
    let mut server = Server::start(&["--drain", "500ms", "--log", "warn"]);
    // Neither answers the close frame.
    let mut deaf = Raw::connect(&server, "/ws");
    let mut echo = Raw::connect(&server, "/echo");
    let _sse = Sse::open(&server, "/events");
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(0));
    server.wait_log("did not leave in time", 1);
    assert_eq!(deaf.frame().unwrap().opcode, 1);
    for client in [&mut deaf, &mut echo] {
        let close = client.frame().unwrap();
        assert_eq!((close.opcode, &close.payload[..2]), (8, &1012_u16.to_be_bytes()[..]));
        assert_eq!(client.frame(), None);
    }
}

#[test]
fn each_client_is_told_another_time_to_come_back() {
    let flags = ["--drain", "2h", "--drain-spread", "1h", "--log", "warn"];
    let mut server = Server::start(&flags);
    let mut sse: Vec<Sse> = (0..20).map(|_| Sse::open(&server, "/events")).collect();
    let mut first = Raw::connect(&server, "/echo");
    let mut second = Raw::connect(&server, "/echo");
    server.signal("TERM");
    let delays: Vec<u64> = sse
        .iter_mut()
        .map(|client| {
            assert_eq!(client.event(), None);
            client.retry.as_deref().expect("when to come back").parse().unwrap()
        })
        .collect();
    assert!(delays.iter().all(|delay| (1_000..=3_601_000).contains(delay)), "{delays:?}");
    let quarters: std::collections::HashSet<_> = delays.iter().map(|one| one / 900_001).collect();
    assert_eq!(quarters.len(), 4, "in every quarter of the hour some come back: {delays:?}");
    // A close frame tells no time: the second WebSocket is closed half an hour later, and served until then.
    assert_eq!(first.close_code(), 1012);
    second.send(0x81, b"still here");
    assert_eq!(second.frame().unwrap().payload, b"still here");
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(143));
}

#[test]
fn nobody_is_told_too_late_to_leave_in_time() {
    let mut server = Server::start(&["--drain", "4s", "--drain-spread", "1h", "--log", "warn"]);
    let mut clients: Vec<Raw> = (0..10).map(|_| Raw::connect(&server, "/echo")).collect();
    server.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.close_code(), 1012);
    }
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(server.log(), "", "all have left in time");
}

#[test]
fn while_draining_the_server_is_not_healthy() {
    let mut server = Server::start(&["--drain", "10s"]);
    let deaf = Raw::connect(&server, "/ws");
    server.signal("TERM");
    common::wait_for("the drain to begin", || server.get("/healthz").status == 503);
    // No connection is kept.
    let mut http = Http::connect(&server);
    let answer = http.ask(get("/healthz", ""));
    assert_eq!((answer.status, answer.header("Connection")), (503, Some("close")));
    http.expect_end();
    let refused = server.get("/events");
    assert_eq!((refused.status, refused.error_code().as_str()), (503, "draining"));
    assert!(refused.header("Retry-After").is_some());
    // The last client goes, and so does the server.
    drop(deaf);
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&["--drain", "1h"]);
    let _deaf = Raw::connect(&server, "/ws");
    server.signal("TERM");
    common::wait_for("the drain to begin", || server.get("/healthz").status == 503);
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(143));
}

/// Pending events are still delivered: they could not be replayed after a restart.
#[test]
fn what_waits_is_delivered_before_the_end() {
    let mut server = Server::start(&["--drain", "10s", "--queue", "100"]);
    let mut behind = Sse::open_narrow(&server, "/events");
    let filler = "x".repeat(50_000);
    for _ in 0..40 {
        server.publish("/publish", &filler);
    }
    server.wait_stats("a backlog", |stats| stats["clients"]["listed"][0]["state"] == "behind");
    server.signal("TERM");
    for _ in 0..40 {
        assert_eq!(behind.event().expect("all events come").data.as_deref(), Some(&*filler));
    }
    assert_eq!(behind.event(), None);
    assert!(behind.is_whole() && behind.retry.as_deref() != Some("2000"));
    assert_eq!(server.wait_exit().code(), Some(0));
}
