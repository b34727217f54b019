//! Connections that are no clients yet have a bounded number of places, and one address cannot take
//! them from the others.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::http::{Http, get, post};
use common::sse::Sse;
use common::{Server, wait_for};
use threadcast::door::pending::Stage::{Exchange, Head, Idle, Lingering, Silent};
use threadcast::door::pending::{PendingTable, Stage};

const BAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What never becomes a request, or never ends.
const PARTS: [&str; 4] = [
    "GET / HTTP/1.1\r\nHost: x\r\nX: ",
    "G",
    "\r\n",
    "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx",
];

fn connect_and_send(server: &Server, from: Ipv4Addr, part: &str) -> TcpStream {
    let mut stream = server.connect_from(from);
    // The server may have closed it already.
    let _ = stream.write_all(part.as_bytes());
    stream
}

/// Requests of another address, each on its own connection, and a stream. (A kept connection that is
/// idle gives its place up.)
fn is_served_well(server: &Server) {
    for _ in 0..50 {
        for request in [get("/healthz", ""), post("x")] {
            let mut http = Http::on(server.connect_from(GOOD));
            assert_eq!(http.ask(request).status, 200);
        }
    }
    let mut stream = Http::on(server.connect_from(GOOD));
    stream.send(get("/events", ""));
    assert_eq!(stream.head().status, 200);
}

#[test]
fn partial_heads_and_bodies_of_one_address_keep_no_other_out() {
    for part in PARTS {
        let server = Server::start_with_descriptors(200, &["--header-timeout", "1h"]);
        let mut crowd: Vec<_> = (0..300).map(|_| connect_and_send(&server, BAD, part)).collect();
        is_served_well(&server);
        // So many stay; the others were closed to make room. Without that nothing would be tested.
        let closed = crowd.iter_mut().map(|stream| {
            stream.set_nonblocking(true).unwrap();
            let mut byte = [0];
            let end = stream.read(&mut byte);
            u32::from(!matches!(end, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock))
        });
        let closed: u32 = closed.sum();
        assert!((200..300).contains(&closed), "{part:?}: {closed} of 300 are closed");
        let reaped = server.stats()["listener"]["reaped"].as_u64().unwrap();
        assert!(reaped >= u64::from(closed), "{part:?}: {reaped}");
        // They do not keep their own address out either.
        server.publish_id("/publish", "from the same address");
    }
}

#[test]
fn partial_heads_that_are_opened_again_and_again_keep_no_other_out() {
    for part in PARTS {
        let server = Server::start_with_descriptors(200, &["--header-timeout", "1h"]);
        let (is_over, opened) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut open = std::collections::VecDeque::new();
                    while !is_over.load(Ordering::SeqCst) {
                        open.push_back(connect_and_send(&server, BAD, part));
                        open.drain(..open.len().saturating_sub(150));
                        opened.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            // Also where a check fails the others must end.
            struct End<'a>(&'a AtomicBool);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            let _end = End(&is_over);
            wait_for("a crowd", || opened.load(Ordering::SeqCst) > 200);
            is_served_well(&server);
            let before = opened.load(Ordering::SeqCst);
            wait_for("more of it", || opened.load(Ordering::SeqCst) > before + 100);
            is_served_well(&server);
        });
    }
}

/// Clients are no pending connections: nothing takes their places.
#[test]
fn a_crowd_costs_no_client_its_connection() {
    let server = Server::start_with_descriptors(200, &["--header-timeout", "1h"]);
    let mut sse = Sse::open(&server, "/events");
    let mut socket = common::ws::open(&server, "/ws?topic=*");
    let crowd: Vec<_> = (0..300).map(|_| connect_and_send(&server, BAD, PARTS[0])).collect();
    let id = server.publish_id("/publish", "x");
    assert_eq!(sse.event().unwrap().id.as_ref(), Some(&id));
    assert_eq!(common::ws::json(&mut socket)["id"], *id);
    drop(crowd);
    server.wait_stats("the crowd to be gone", |stats| stats["descriptors"].as_u64() < Some(30));
}

/// A kept connection gives its place up before anybody who is about to say something.
#[test]
fn idle_connections_make_room_first() {
    let server = Server::start_with_descriptors(200, &["--header-timeout", "1h"]);
    let mut partial = Http::on(connect_and_send(&server, GOOD, "GET /healthz HTTP/1.1\r\n"));
    let mut idle = Vec::new();
    for number in 3..60 {
        let mut http = Http::on(server.connect_from(Ipv4Addr::new(127, 0, 0, number)));
        assert_eq!(http.ask(get("/healthz", "")).status, 200);
        idle.push(http);
    }
    idle[0].expect_end();
    assert_eq!(idle.last_mut().unwrap().ask(get("/healthz", "")).status, 200);
    assert_eq!(partial.ask("Host: x\r\n\r\n").status, 200);
}

/// Who is evicted, by the order in which they came: the first stage first; in it the address with the
/// most connections (`o` and `p` are one network of 64 bits); of that the oldest.
#[test]
fn the_one_that_can_be_missed_most_makes_room() {
    let address = |name: char| -> IpAddr {
        match name {
            'o' => "2001:db8::1".parse().unwrap(),
            'p' => "2001:db8::2".parse().unwrap(),
            name => Ipv4Addr::new(192, 0, 2, name as u8).into(),
        }
    };
    type Case<'a> = (&'a [(char, Stage)], char, Option<usize>);
    let cases: &[Case] = &[
        (&[('a', Head), ('b', Silent), ('c', Idle), ('d', Lingering)], 'e', Some(3)),
        (&[('a', Exchange), ('b', Head), ('c', Silent), ('d', Idle)], 'e', Some(3)),
        (&[('a', Exchange), ('b', Head), ('c', Silent)], 'e', Some(2)),
        (&[('a', Exchange), ('b', Head)], 'e', Some(1)),
        (&[('a', Silent), ('b', Silent)], 'e', Some(0)),
        (&[('a', Silent), ('o', Silent), ('p', Silent)], 'e', Some(1)),
        (&[('a', Silent), ('b', Head), ('b', Head)], 'e', Some(0)),
        // The greediest replaces one of its own, though others have sent less.
        (&[('a', Silent), ('b', Head), ('b', Head)], 'b', Some(1)),
        (&[('a', Silent), ('b', Exchange), ('b', Exchange)], 'b', Some(1)),
        (&[('a', Head), ('o', Head), ('p', Head)], 'p', Some(1)),
        // Whoever is served goes only in favour of somebody who has less.
        (&[('a', Exchange), ('b', Exchange)], 'c', None),
        (&[('a', Exchange), ('b', Exchange), ('b', Exchange)], 'c', Some(1)),
        (&[('a', Exchange), ('b', Exchange)], 'a', None),
    ];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for (present, newcomer, evicted) in cases {
        let table = PendingTable::new(present.len(), Arc::default());
        let admit = |name| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            drop(listener.accept().unwrap());
            table.admit(stream, (address(name), 1).into())
        };
        let places: Vec<_> = present
            .iter()
            .map(|(name, stage)| {
                let pending = admit(*name).expect("a place");
                assert!(pending.enter(*stage));
                pending
            })
            .collect();
        let admitted = admit(*newcomer);
        let case = format!("{newcomer} comes to {present:?}");
        assert_eq!(admitted.is_ok(), evicted.is_some(), "{case}");
        let gone = places.iter().position(|place| !place.enter(Exchange));
        assert_eq!(gone, *evicted, "{case}");
    }
}
