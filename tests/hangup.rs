//! How the server notices that a client has left: at once, and nobody else is taken for one who has.

mod common;

use std::net::Shutdown;
use std::time::Duration;

use common::sse::Sse;
use common::ws::Raw;
use common::{FANOUTS, Server, wait_for};

/// The two ways to hang up. A client that half-closes reads no more: nothing else tells the server
/// that a peer behind a proxy has left.
fn leave(sse: Sse, way: &str) -> Option<Sse> {
    match way {
        "close" => None,
        _ => {
            sse.stream().shutdown(Shutdown::Write).unwrap();
            Some(sse)
        }
    }
}

#[test]
fn a_client_that_hangs_up_is_gone_without_an_event() {
    for fanout in FANOUTS {
        for way in ["close", "half-close"] {
            let server = Server::start(&["--fanout", fanout, "--heartbeat", "0"]);
            let before = server.stats();
            let stays = Sse::open(&server, "/events");
            let clients: Vec<Sse> = (0..20).map(|_| Sse::open(&server, "/events")).collect();
            wait_for("a thread for each", || server.client_threads() == 21);
            let left: Vec<_> = clients.into_iter().map(|sse| leave(sse, way)).collect();
            server.wait_clients(1, 0);
            wait_for("their threads to end", || server.client_threads() == 1);
            assert_eq!(server.stats()["fanOut"]["events"], 0);
            for mut sse in left.into_iter().flatten() {
                assert_eq!(sse.block(), None, "{fanout}: the server closes as well");
            }
            drop(stays);
            server.wait_clients(0, 0);
            server.wait_stats("descriptors as before", |stats| {
                stats["descriptors"].as_u64() <= before["descriptors"].as_u64()
            });
        }
    }
}

#[test]
fn a_client_that_hangs_up_before_its_greeting_is_gone() {
    let server = Server::start(&["--heartbeat", "0"]);
    for _ in 0..50 {
        let request = common::http::get("/events", "");
        // Half of them close at once, and half wait for the server to close.
        common::http::Http::connect(&server).send(&request);
        server.exchange(request.as_bytes());
    }
    server.wait_clients(0, 0);
}

#[test]
fn a_client_that_hangs_up_while_it_is_behind_is_gone() {
    for fanout in FANOUTS {
        for way in ["close", "half-close"] {
            let server = Server::start(&["--fanout", fanout, "--heartbeat", "0"]);
            let sse = Sse::open_narrow(&server, "/events");
            let filler = "x".repeat(50_000);
            for _ in 0..20 {
                server.publish_id("/publish", &filler);
            }
            server.wait_stats("it to be behind", |stats| {
                stats["clients"]["listed"][0]["state"] == "behind"
            });
            let _half_closed = leave(sse, way);
            server.wait_clients(0, 0);
            server.wait_stats("nothing to wait", |stats| stats["backlogBytes"] == 0);
        }
    }
}

/// A pause is no departure: what waits is less than the queue, and the system says that the peer is
/// there.
#[test]
fn a_reader_that_pauses_misses_nothing() {
    const EVENTS: usize = 20;
    std::thread::scope(|scope| {
        for fanout in FANOUTS {
            scope.spawn(move || {
                let server = Server::start(&["--fanout", fanout, "--heartbeat", "1s"]);
                let mut sse = Sse::open_narrow(&server, "/events");
                let filler = "x".repeat(50_000);
                let ids: Vec<_> =
                    (0..EVENTS).map(|_| server.publish_id("/publish", &filler)).collect();
                std::thread::sleep(Duration::from_secs(6));
                let stats = server.stats();
                assert_eq!(stats["clients"]["listed"][0]["state"], "behind", "{fanout}: {stats}");
                for id in ids {
                    let event = sse.event().unwrap_or_else(|| panic!("{fanout}: before {id}"));
                    assert_eq!((event.id, event.data.as_ref()), (Some(id), Some(&filler)));
                }
                sse.expect_nothing(&server, "the pause");
                server.wait_stats("nothing to wait", |stats| stats["backlogBytes"] == 0);
            });
        }
    });
}

#[test]
fn a_websocket_that_hangs_up_is_gone() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let clients: Vec<_> =
            ["/ws", "/echo", "/ws?topic=a", "/"].map(|target| Raw::connect(&server, target)).into();
        server.wait_clients(0, 4);
        wait_for("a thread for each", || server.client_threads() >= 4);
        drop::<Vec<_>>(clients);
        server.wait_clients(0, 0);
        wait_for("the threads to end", || server.client_threads() == 0);
    }
}
