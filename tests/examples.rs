//! Each of `tests/examples`, as it is started by `cargo run --example`, with real clients.

mod common;

use std::fs::OpenOptions;
use std::io::Write;

use common::http::get;
use common::sse::Sse;
use common::ws::{connect, json};
use common::{Folder, Server};
use tungstenite::Message;

const ANY_PORT: &str = "127.0.0.1:0";

#[test]
fn clients_of_chat_talk_with_each_other() {
    let server = Server::start_example("chat", &[ANY_PORT]);
    assert!(server.get("/").text().contains("<title>Chat</title>"));
    let mut clients = [connect(&server, "/chat"), connect(&server, "/chat")];
    server.wait_stats("two subscribers", |stats| {
        let subscribers =
            server.publish("/publish?topic=chat", "joined").json()["subscribers"].clone();
        stats["clients"]["websocket"] == 2 && subscribers == 2
    });
    clients[0].send("hello".into()).unwrap();
    let hear = |client: &mut _, expected: &str| {
        while json(client)["data"] != expected {}
    };
    for client in &mut clients {
        hear(client, "hello");
    }
    clients[1].send("you too".into()).unwrap();
    for client in &mut clients {
        hear(client, "you too");
    }
}

#[test]
fn the_readme_shows_chat_as_it_is() {
    let example = include_str!("examples/chat.rs");
    assert!(include_str!("../README.md").contains(&format!("\n```rust\n{example}```\n")));
    assert!(example.lines().count() <= 40);
}

#[test]
fn progress_tells_one_client_of_every_step() {
    let server = Server::start_example("progress", &[ANY_PORT]);
    assert!(server.get("/").text().contains("<progress"));
    let mut one = Sse::connect(&server, "/progress", "");
    let mut other = Sse::connect(&server, "/progress", "");
    for client in [&mut one, &mut other] {
        for step in 1..=20 {
            let block = client.event().expect("a step");
            assert_eq!(block.event.as_deref(), Some("step"));
            assert_eq!(block.data, Some(format!("{step}/20")));
        }
        assert_eq!(client.event().expect("the end").event.as_deref(), Some("done"));
        assert_eq!(client.event(), None);
        assert!(client.is_whole());
    }
    // What is built in is not served.
    assert_eq!(server.get("/stats").status, 404);
}

#[test]
fn tail_publishes_each_line_that_is_added() {
    let folder = Folder::new("tail");
    let path = folder.write("log", "before\n");
    let server = Server::start_example("tail", &[path.to_str().unwrap(), ANY_PORT]);
    let mut client = Sse::open(&server, "/events?topic=tail");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    let mut expect = |line: &str| {
        assert_eq!(client.event().expect("a line").data.as_deref(), Some(line));
    };
    file.write_all(b"one\n\ntwo\nhalf of").unwrap();
    ["one", "", "two"].into_iter().for_each(&mut expect);
    file.write_all(" a line, ä and \u{1f600}\nthree\n".as_bytes()).unwrap();
    ["half of a line, ä and \u{1f600}", "three"].into_iter().for_each(&mut expect);
    // A log that is emptied, as logrotate's copytruncate does.
    file.set_len(0).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    file.write_all(b"again\n").unwrap();
    expect("again");
}

#[test]
fn ticker_publishes_prices_and_prints_some() {
    let mut server = Server::start_example("ticker", &[ANY_PORT]);
    let mut client = Sse::open(&server, "/events?topic=price");
    let mut prices = Vec::new();
    for _ in 0..15 {
        let data = client.event().expect("a price").data.unwrap();
        prices.push(data.parse::<f64>().expect("a price"));
    }
    // A walk: small steps, but steps.
    assert!(prices.windows(2).all(|two| (two[0] - two[1]).abs() < 0.06), "{prices:?}");
    assert!(prices.windows(2).any(|two| two[0] != two[1]), "{prices:?}");
    for _ in 0..2 {
        let line = server.next_line();
        assert!(line.trim().parse::<f64>().is_ok(), "{line:?}");
    }
}

#[test]
fn own_main_checks_its_clients_and_ends_at_a_signal() {
    let mut server = Server::start_example("own_main", &[ANY_PORT]);
    for target in ["/time", "/time?key=wrong", "/events"] {
        let refused = server.respond(get(target, "Connection: close\r\n"));
        assert_eq!((refused.status, refused.error_code().as_str()), (403, "forbidden"), "{target}");
    }
    assert_eq!(common::ws::upgrade(&server, "/ws", "").status, 403);
    let mut time = Sse::connect(&server, "/time?key=secret", "");
    assert_eq!(time.event().expect("the time").event.as_deref(), Some("time"));
    let mut websocket = connect(&server, "/ws?key=secret");
    json(&mut websocket);

    server.signal("TERM");
    while time.event().is_some() {}
    assert!(time.is_whole() && time.retry.is_some(), "it is told when to come back");
    match websocket.read().unwrap() {
        Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 1012),
        other => panic!("{other:?} instead of a close frame"),
    }
    while websocket.read().is_ok() {}
    assert_eq!(server.wait_exit().code(), Some(0), "{}", server.log());
}

#[test]
fn own_main_fails_when_a_client_does_not_leave() {
    let mut server = Server::start_example("own_main", &[ANY_PORT]);
    let mut deaf = common::ws::Raw::connect(&server, "/ws?key=secret");
    deaf.frame().expect("the welcome");
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(1));
    server.wait_log("did not leave in time", 1);
}

#[test]
fn errors_are_one_line() {
    let taken = Server::start_example("chat", &[ANY_PORT]);
    let address = taken.address.to_string();
    let output = |name: &str, arguments: &[&str]| {
        let output = Server::example(name, arguments).output().expect("it runs");
        assert!(!output.status.success(), "{name}");
        String::from_utf8(output.stderr).unwrap()
    };
    for name in ["chat", "progress", "ticker", "own_main"] {
        let error = output(name, &[&address]);
        assert!(error.lines().count() == 1 && error.contains("is in use"), "{name}: {error}");
    }
    for arguments in [&[][..], &["/nowhere"], &[file!(), &address]] {
        let error = output("tail", arguments);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
