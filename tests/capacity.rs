//! How much the server takes on: clients in all and from one address, and what may wait for them.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use common::sse::Sse;
use common::ws::{open, upgrade_lines};
use common::{Answer, PATIENCE, Server, wait_for};
use socket2::{Domain, Socket, Type};

/// A connection from this address of the loopback network.
fn connect_from(server: &Server, address: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), server.address.port());
    socket.connect(&to.into()).expect("the server accepts");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

#[test]
fn an_address_has_so_many_places() {
    // A socket for both versions of IP shows IPv4 addresses as mapped ones.
    for listen in ["127.0.0.1:0", "[::]:0"] {
        if std::net::TcpListener::bind(listen).is_err() {
            continue;
        }
        let server = Server::start(&["--listen", listen, "--max-clients-per-ip", "2"]);
        let here = Ipv4Addr::new(127, 0, 0, 81);
        let ask = |address, target: &str, headers: &str| {
            let mut stream = connect_from(&server, address);
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream
        };
        let answer = |mut stream: TcpStream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("an answer, and the end");
            Answer::parse(&bytes)
        };
        let accepted = |mut stream: TcpStream| {
            let mut start = [0; 12];
            stream.read_exact(&mut start).expect("an answer");
            assert!(matches!(&start, b"HTTP/1.1 200" | b"HTTP/1.1 101"), "{start:?}");
            stream
        };
        // Both transports count, and together.
        let sse = accepted(ask(here, "/events", ""));
        let websocket = accepted(ask(here, "/ws", &upgrade_lines()));
        for (target, headers) in [("/events", String::new()), ("/ws", upgrade_lines())] {
            let answer = answer(ask(here, target, &headers));
            assert_eq!((answer.status, &*answer.error_code()), (503, "address_full"), "{listen}");
            assert!(answer.header("Retry-After").unwrap().parse::<u64>().unwrap() > 0);
            assert_eq!(answer.header("Connection"), Some("close"));
        }
        // Who is no client is answered as ever, and so are clients from elsewhere.
        assert_eq!(answer(ask(here, "/healthz", "")).status, 200);
        let mut others = vec![accepted(ask(Ipv4Addr::new(127, 0, 0, 82), "/events", ""))];
        for (gone, left) in [(sse, (1, 1)), (websocket, (2, 0))] {
            drop(gone);
            wait_for("a place", || {
                let stats = answer(ask(here, "/stats", "")).json();
                let clients = &stats["clients"];
                (&clients["sse"], &clients["websocket"]) == (&left.0.into(), &left.1.into())
            });
            others.push(accepted(ask(here, "/events", "")));
        }
        assert_eq!(answer(ask(here, "/events", "")).status, 503);
    }
}

/// Descriptors are the one resource that can be made scarce for root as well.
#[test]
fn there_is_room_for_as_many_as_the_system_allows() {
    let server = Server::start_with_descriptors(140, &[]);
    // Half of them for clients, and two for each.
    let room = 35;
    assert_eq!(server.stats()["clients"]["limit"], room);
    wait_for("the log to tell", || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains(&format!("room for {room} clients")));
        line.is_some_and(|line| line.contains("INFO") && line.contains("140 open descriptors"))
    });
    let clients: Vec<_> = (0..room).map(|_| Sse::open(&server, "/events")).collect();
    let answer = server.get("/events");
    assert_eq!((answer.status, &*answer.error_code()), (503, "full"));
    assert!(answer.header("Retry-After").unwrap().parse::<u64>().unwrap() > 0);
    drop(clients);
    server.wait_clients(0, 0);
    Sse::open(&server, "/events");
}

#[test]
fn more_clients_than_there_is_room_for_may_be_asked_for() {
    let flags = ["--max-clients", "50", "--log", "warn"];
    let server = Server::start_with_descriptors(140, &flags);
    assert_eq!(server.stats()["clients"]["limit"], 50);
    wait_for("a warning", || server.log().contains("50 clients asked for, room for 35"));
}

#[test]
fn without_the_flag_an_address_has_all_places() {
    let server = Server::start(&["--max-clients", "4"]);
    let _sse = [Sse::open(&server, "/events"), Sse::open(&server, "/events")];
    let _websocket = [open(&server, "/ws"), open(&server, "/ws")];
    assert_eq!(server.get("/events").error_code(), "full");
}
