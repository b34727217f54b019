//! How much the server takes on: clients in all and from one address, and what may wait for them.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use common::sse::Sse;
use common::ws::{open, open_narrow, upgrade_lines};
use common::{Answer, FANOUTS, PATIENCE, Server, wait_for};
use tungstenite::{Message, WebSocket};

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
            let mut stream = server.connect_from(address);
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream
        };
        let answer = |mut stream: TcpStream| {
            // The server keeps the connection open unless it is told that nothing follows.
            stream.shutdown(Shutdown::Write).unwrap();
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
    // Half of them are for clients, who need one each.
    let room = 70;
    assert_eq!(server.stats()["clients"]["limit"], room);
    wait_for("the log to tell", || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains(&format!("room for {room} clients")));
        line.is_some_and(|line| line.contains("INFO") && line.contains("140 open descriptors"))
    });
    // Both transports count, and one address may have all places.
    let clients: Vec<_> =
        (0..room / 2).map(|_| (Sse::open(&server, "/events"), open(&server, "/ws"))).collect();
    for (target, headers) in [("/events", String::new()), ("/ws", upgrade_lines())] {
        let answer = server.request("GET", target, &headers, b"");
        assert_eq!((answer.status, &*answer.error_code()), (503, "full"), "{target}");
        assert!(answer.header("Retry-After").unwrap().parse::<u64>().unwrap() > 0);
    }
    drop(clients);
    server.wait_clients(0, 0);
    drop((Sse::open(&server, "/events"), open(&server, "/ws")));
}

#[test]
fn more_clients_than_there_is_room_for_may_be_asked_for() {
    let flags = ["--max-clients", "90", "--log", "warn"];
    let server = Server::start_with_descriptors(140, &flags);
    assert_eq!(server.stats()["clients"]["limit"], 90);
    wait_for("a warning", || {
        server.log().lines().any(|line| {
            ["WARN", "90 clients", "room for 70", "140 open descriptors"]
                .iter()
                .all(|part| line.contains(part))
        })
    });
}

/// Reads up to the close frame, and on to the end: within its grace a client that has been given up
/// gets the message that it is in the middle of, and is told.
fn close_code(socket: &mut WebSocket<TcpStream>) -> u16 {
    let code = loop {
        match socket.read().expect("whole frames until the close frame") {
            Message::Close(close) => break close.expect("a code").code,
            message => assert!(message.is_text(), "{message:?}"),
        }
    };
    while socket.read().is_ok() {}
    code.into()
}

/// Three that never read, each behind by more than the one after it, and one that does read: the
/// most behind goes first, then the next, and the one that reads gets everything meanwhile.
fn full_backlog(fanout: &str) {
    const CAP: u64 = 2_000_000;
    const EVENT: usize = 20_000;
    /// The frame, or the lines, around an event's data.
    const AROUND: u64 = 200;
    let cap = CAP.to_string();
    let flags = ["--fanout", fanout, "--max-backlog-bytes", &cap, "--queue", "10000"];
    let server = Server::start(&flags);
    let most = Sse::open_narrow(&server, "/events?topic=a&topic=b&topic=c");
    let mut middle = open_narrow(&server, "/ws?topic=b&topic=c");
    let least = Sse::open_narrow(&server, "/events?topic=c");
    let mut good = Sse::open(&server, "/events?topic=a&topic=b&topic=c");
    let addresses = [most.stream(), middle.get_ref(), least.stream()]
        .map(|stream| stream.local_addr().unwrap().to_string());
    let (confirm, confirmed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(event) = good.event() {
            let number = event.data.unwrap().split(' ').next().unwrap().to_owned();
            if confirm.send(number).is_err() {
                return;
            }
        }
    });

    let filler = "z".repeat(EVENT);
    let mut highest = 0;
    let mut given_up = 0;
    for number in 0.. {
        assert!(number < 2_000, "{given_up} of 3 are given up:\n{}", server.stats());
        let topic = ["a", "b", "c"][number % 3];
        server.publish_id(&format!("/publish?topic={topic}"), &format!("{number} {filler}"));
        assert_eq!(confirmed.recv_timeout(PATIENCE), Ok(number.to_string()));
        wait_for("the backlog to be under the cap", || {
            let bytes = server.stats()["backlogBytes"].as_u64().unwrap();
            highest = highest.max(bytes);
            bytes <= CAP
        });
        let stats = server.stats();
        let listed = stats["clients"]["listed"].as_array().unwrap();
        let is_given_up = |address: &String| {
            let client = listed.iter().find(|one| one["address"] == **address);
            client.is_none_or(|one| one["state"] == "closing")
        };
        let now: Vec<_> = addresses.iter().map(is_given_up).collect();
        let count = now.iter().filter(|given_up| **given_up).count();
        assert!(now[..count].iter().all(|given_up| *given_up), "not the most behind: {now:?}");
        if count > given_up {
            assert_eq!(count, given_up + 1, "one was enough each time");
            given_up = count;
            if count == 2 {
                assert_eq!(close_code(&mut middle), 1013);
            }
        }
        if given_up == 3 {
            break;
        }
    }
    let event = EVENT as u64 + AROUND;
    assert!(highest <= CAP + 3 * event, "{highest}");
    assert!(highest > CAP - 6 * event, "given up too early: {highest}");
    let shed = server.get("/metrics").text().contains("threadcast_clients_shed_total 3\n");
    assert!(shed, "{}", server.get("/metrics").text());
    wait_for("the log to tell", || {
        server.log().matches("too far behind: backlog memory is full").count() == 3
    });
    drop((most, middle, least));
    server.wait_clients(1, 0);
    assert_eq!(server.stats()["backlogBytes"], 0);
    assert!(server.get("/metrics").text().contains("threadcast_backlog_bytes 0\n"));
}

#[test]
fn the_most_behind_goes_when_the_backlog_is_full_direct() {
    full_backlog("direct");
}

#[test]
fn the_most_behind_goes_when_the_backlog_is_full_handoff() {
    full_backlog("handoff");
}

/// Those who leave take what waits for them off the account, also if nobody is shed.
#[test]
fn nothing_stays_in_the_backlog_of_those_who_left() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut reads = Sse::open_narrow(&server, "/events");
        let leaves = (Sse::open_narrow(&server, "/events"), open_narrow(&server, "/ws?topic=*"));
        let filler = "z".repeat(100_000);
        for _ in 0..20 {
            server.publish_id("/publish", &filler);
        }
        server.wait_stats("all to be behind", |stats| {
            let listed = stats["clients"]["listed"].as_array().unwrap();
            let sum: u64 = listed.iter().map(|one| one["queueBytes"].as_u64().unwrap()).sum();
            listed.iter().all(|one| one["state"] == "behind") && stats["backlogBytes"] == sum
        });
        drop(leaves);
        for _ in 0..20 {
            assert_eq!(reads.event().unwrap().data.unwrap().len(), filler.len());
        }
        server.wait_clients(1, 0);
        server.wait_stats("nothing to wait", |stats| stats["backlogBytes"] == 0);
    }
}
