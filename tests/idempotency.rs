//! `Idempotency-Key`: a publisher that did not get its answer publishes again, and nothing comes twice.

mod common;

use common::sse::Sse;
use common::{Answer, Server};
use serde_json::json;

fn publish(server: &Server, key: &str, target: &str, body: &str) -> Answer {
    let line = format!("Idempotency-Key: {key}\r\n");
    server.request("POST", target, &line, body.as_bytes())
}

fn publish_lines(server: &Server, headers: &str, lines: &[serde_json::Value]) -> Answer {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let headers = format!("Content-Type: application/x-ndjson\r\n{headers}");
    server.request("POST", "/publish", &headers, lines.as_bytes())
}

/// Checks that exactly these are the next events.
fn expect(server: &Server, sse: &mut Sse, data: &[&str]) {
    server.publish_id("/publish", "end");
    for data in data.iter().chain(&["end"]) {
        assert_eq!(sse.event().unwrap().data.as_deref(), Some(*data));
    }
}

#[test]
fn a_request_that_is_repeated_with_its_key_publishes_nothing() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    let first = publish(&server, "\"8e03978e\"", "/publish", "one").json();
    assert_eq!(publish(&server, "\"8e03978e\"", "/publish", "one").json(), first);
    // The draft has quotes, which many leave out.
    assert_eq!(publish(&server, "8e03978e", "/publish", "one").json(), first);
    assert_ne!(publish(&server, "8e03978f", "/publish", "two").json()["id"], first["id"]);
    assert_ne!(server.publish_id("/publish", "one"), first["id"]);
    expect(&server, &mut sse, &["one", "two", "one"]);
}

#[test]
fn keys_are_checked_before_anything_is_published() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    for bad in ["", "\"\"", &"k".repeat(129)] {
        let answer = publish(&server, bad, "/publish", "x");
        assert_eq!((answer.status, answer.error_code()), (400, "bad_key".to_owned()), "{bad}");
    }
    for bad in [json!(""), json!(1), json!("k".repeat(129))] {
        let lines = [json!({"data": "x"}), json!({"data": "y", "key": bad})];
        let answer = publish_lines(&server, "", &lines);
        assert_eq!((answer.status, answer.error_code()), (400, "bad_line".to_owned()), "{bad}");
    }
    expect(&server, &mut sse, &[]);
}

#[test]
fn lines_have_keys_of_their_own() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    let line = |data: &str, key: &str| json!({"data": data, "key": key});
    let first = publish_lines(&server, "", &[line("a", "1"), line("b", "2")]).json();
    // The second time with one line more, and one that is there twice.
    let lines = [line("a", "1"), line("b", "2"), line("c", "3"), line("c", "3")];
    let second = publish_lines(&server, "", &lines).json();
    assert_eq!((&first["events"], &second["events"]), (&json!(2), &json!(4)));
    assert_eq!(publish_lines(&server, "", &[line("b", "2")]).json()["id"], first["id"]);
    expect(&server, &mut sse, &["a", "b", "c"]);
}

#[test]
fn the_key_of_a_request_with_lines_holds_for_each_of_them() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    let lines = [json!({"data": "a"}), json!({"data": "b"}), json!({"data": "c", "key": "own"})];
    let first = publish_lines(&server, "Idempotency-Key: \"all\"\r\n", &lines).json();
    assert_eq!(publish_lines(&server, "Idempotency-Key: all\r\n", &lines).json(), first);
    assert_eq!(publish_lines(&server, "", &lines[2..]).json()["id"], first["id"]);
    expect(&server, &mut sse, &["a", "b", "c"]);
}

#[test]
fn of_many_that_publish_at_once_with_one_key_one_publishes() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| publish(&server, "same", "/publish", "x").json()["id"].to_string())
            })
            .collect();
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    expect(&server, &mut sse, &["x"]);
}
