//! Which WebSocket clients are taken for silent: those that neither send nor take anything, and no
//! others, however slow their line is.

mod common;

use std::io::{Cursor, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::ws::{Raw, read_frame};
use common::{FANOUTS, Server, wait_for};

/// How often the server asks in these tests.
const PING: &str = "500ms";

/// Long enough for a silent client to be found out several times over.
const LONG: Duration = Duration::from_secs(4);

/// A client on `/ws?topic=t` that takes little ahead of its reader, past the welcome.
fn narrow(server: &Server) -> Raw {
    let mut client = Raw::connect_narrow(server, "/ws?topic=t");
    assert_eq!(client.frame().expect("a welcome").opcode, 1);
    client
}

/// Reads 4 KiB every 20 ms, as from a line of 200 KiB/s, for a while. Returns what it read.
fn read_slowly(stream: &mut TcpStream, duration: Duration) -> Vec<u8> {
    let (start, mut read) = (Instant::now(), Vec::new());
    while start.elapsed() < duration {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).expect("the connection is there");
        assert!(count > 0, "closed after {:?} and {} bytes", start.elapsed(), read.len());
        read.extend_from_slice(&buffer[..count]);
        std::thread::sleep(Duration::from_millis(20));
    }
    read
}

/// The ping waits behind what the client has not taken yet: in the kernel's buffer, in the client's
/// queue, or in both.
#[test]
fn a_slow_client_that_reads_steadily_stays() {
    std::thread::scope(|scope| {
        for fanout in FANOUTS {
            for events in [20, 60] {
                scope.spawn(move || {
                    let server = Server::start(&["--ping", PING, "--fanout", fanout]);
                    let mut client = narrow(&server);
                    let filler = "x".repeat(50_000);
                    for _ in 0..events {
                        server.publish_id("/publish?topic=t", &filler);
                    }
                    let read = read_slowly(&mut client.stream, LONG);
                    assert!(read.len() < events * filler.len(), "there was no backlog any more");
                    // The rest at once; pings in between are answered.
                    let mut rest = Cursor::new(read).chain(client.stream.try_clone().unwrap());
                    let mut seen = 0;
                    while seen < events {
                        let (first, payload) = read_frame(&mut rest).expect("a frame");
                        match first & 0x0f {
                            9 => client.send(0x8a, &payload),
                            opcode => {
                                assert_eq!(opcode, 1, "{fanout}, {events} events");
                                seen += 1;
                            }
                        }
                    }
                    server.wait_clients(0, 1);
                });
            }
        }
    });
}

/// Its system takes what fits into the socket's buffer, or acknowledges each small event; the client
/// itself reads nothing.
#[test]
fn a_client_that_reads_nothing_is_dropped() {
    std::thread::scope(|scope| {
        for fanout in FANOUTS {
            for (events, size) in [(20, 50_000), (1, 50_000), (0, 0)] {
                scope.spawn(move || {
                    let server = Server::start(&["--ping", PING, "--fanout", fanout]);
                    // Events wait before the first frame is sent, too.
                    let _client = Raw::connect_narrow(&server, "/ws?topic=t");
                    let filler = "x".repeat(size);
                    for _ in 0..events {
                        server.publish_id("/publish?topic=t", &filler);
                    }
                    server.wait_clients(0, 0);
                    server.wait_log("no sign of life", 1);
                    server.wait_stats("nothing to wait", |stats| stats["backlogBytes"] == 0);
                });
            }
            scope.spawn(move || {
                let server = Server::start(&["--ping", PING, "--fanout", fanout]);
                let _client = Raw::connect(&server, "/ws?topic=t");
                wait_for("the client to be dropped", || {
                    server.publish("/publish?topic=t", "small");
                    server.stats()["clients"]["websocket"] == 0
                });
                server.wait_log("no sign of life", 1);
            });
        }
    });
}

/// A silent client may only have slept. Told that it was given up, it knows what to do.
#[test]
fn a_silent_client_is_pinged_and_then_told_that_it_is_dropped() {
    for fanout in FANOUTS {
        let server = Server::start(&["--ping", "200ms", "--fanout", fanout]);
        let mut alive = Raw::connect(&server, "/ws?topic=t");
        let mut silent = ["/ws", "/echo", "/ws?topic=t"].map(|path| Raw::connect(&server, path));
        let mut pings = 0;
        // Who answers stays for longer than the others have.
        while pings < 4 {
            let frame = alive.frame().expect("still there");
            if frame.opcode == 9 {
                alive.send(0x8a, &frame.payload);
                pings += 1;
            }
        }
        server.wait_clients(0, 1);
        for client in &mut silent {
            let mut frames: Vec<_> = std::iter::from_fn(|| client.frame()).collect();
            let last = frames.pop().expect("frames");
            assert!(frames.iter().any(|frame| frame.opcode == 9), "{frames:?}");
            assert_eq!((last.opcode, &last.payload[..2]), (8, &1001_u16.to_be_bytes()[..]));
        }
        server.wait_log("no sign of life", 3);
        alive.send(0x88, &1000_u16.to_be_bytes());
        while alive.frame().is_some_and(|frame| frame.opcode != 8) {}
        server.wait_clients(0, 0);
    }
}
