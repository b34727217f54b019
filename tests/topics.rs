//! Names that stand for several topics, and who is subscribed to what.

mod common;

use std::collections::BTreeMap;

use common::sse::Sse;
use common::ws::{json, open};
use common::{FANOUTS, Server};
use serde_json::{Value, json};

/// The topic and data of the next event of a WebSocket.
fn event(socket: &mut tungstenite::WebSocket<std::net::TcpStream>) -> (String, String) {
    let event = json(socket);
    assert_eq!(event["type"], "event", "{event}");
    (event["topic"].as_str().unwrap().to_owned(), event["data"].as_str().unwrap().to_owned())
}

fn data(sse: &mut Sse) -> String {
    sse.event().expect("an event").data.expect("data")
}

#[test]
fn a_pattern_selects_what_begins_as_it_does() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        let mut nested = Sse::open(&server, "/events?topic=sensors/*");
        let mut overlapping =
            Sse::open(&server, "/events?topic=sensors/1&topic=sensors/*&topic=sensors/1/*&topic=b");
        let mut socket = open(&server, "/ws?topic=sensors/1/*");
        let mut all = Sse::open(&server, "/events?topic=sensors/*&topic=*");
        let publish = |topic: &str, expected: u64| {
            let answer = server.publish(&format!("/publish?topic={topic}"), topic).json();
            assert_eq!(answer["subscribers"], expected, "{topic}");
        };
        for (topic, subscribers) in [
            ("sensors", 1),
            ("sensors/1", 3),
            ("sensors/1/x", 4),
            ("sensors/2", 3),
            ("sensorss/1", 1),
            ("b", 2),
            ("b/sensors/1", 1),
        ] {
            publish(topic, subscribers);
        }
        for expected in ["sensors/1", "sensors/1/x", "sensors/2"] {
            assert_eq!(data(&mut nested), expected);
        }
        for expected in ["sensors/1", "sensors/1/x", "sensors/2", "b"] {
            assert_eq!(data(&mut overlapping), expected);
        }
        assert_eq!(event(&mut socket), ("sensors/1/x".to_owned(), "sensors/1/x".to_owned()));
        for _ in 0..7 {
            all.event().expect("all seven");
        }
        // Nothing came twice.
        publish("sensors/1/end", 4);
        for sse in [&mut nested, &mut overlapping, &mut all] {
            assert_eq!(data(sse), "sensors/1/end");
        }
        assert_eq!(event(&mut socket).1, "sensors/1/end");
    }
}

#[test]
fn a_pattern_replays_what_was_missed_and_tells_of_gaps() {
    let server = Server::start(&["--history", "3"]);
    let first = server.publish_id("/publish?topic=a/1", "1");
    server.publish_id("/publish?topic=a/2", "2");
    let third = server.publish_id("/publish?topic=b/1", "3");
    server.publish_id("/publish?topic=a/2", "4");
    let mut sse = Sse::open_after(&server, "/events?topic=a/*", Some(&first));
    assert_eq!((data(&mut sse), data(&mut sse)), ("2".to_owned(), "4".to_owned()));
    for number in 5..8 {
        server.publish_id("/publish?topic=b/1", &number.to_string());
    }
    let mut missed = Sse::open_after(&server, "/events?topic=a/*", Some(&first));
    assert_eq!(missed.event().unwrap().event.as_deref(), Some("gap"));
    let mut current = Sse::open_after(&server, "/events?topic=c/*", Some(&third));
    current.expect_nothing_on(&server, "c/1");
}

#[test]
fn nothing_is_published_on_a_pattern() {
    let server = Server::start(&[]);
    for topic in ["*", "a/*", "/*", "a/*/*"] {
        let refused = server.publish(&format!("/publish?topic={topic}"), "x");
        assert_eq!((refused.status, refused.error_code().as_str()), (400, "bad_query"), "{topic}");
        let line = format!("{{\"topic\":\"{topic}\",\"data\":1}}\n");
        let lines = "Content-Type: application/x-ndjson\r\n";
        let refused = server.request("POST", "/publish", lines, line.as_bytes());
        assert_eq!((refused.status, refused.error_code().as_str()), (400, "bad_line"), "{topic}");
    }
    // Only at the end, and behind a slash.
    for topic in ["a*", "*/a", "a/*b", "**"] {
        let mut sse = Sse::open(&server, &format!("/events?topic={topic}"));
        server.publish_id("/publish?topic=a/x", "not this");
        server.publish_id(&format!("/publish?topic={topic}"), topic);
        assert_eq!(data(&mut sse), topic);
    }
}

#[test]
fn stats_name_the_topics_that_most_are_subscribed_to() {
    let server = Server::start(&[]);
    assert_eq!(
        (&server.stats()["topics"], &server.stats()["topicsOmitted"]),
        (&json!({}), &0.into())
    );
    let all = Sse::open(&server, "/events");
    let _chat = Sse::open(&server, "/events?topic=chat&topic=a/*&topic=a/1");
    let _socket = open(&server, "/ws?topic=chat");
    assert_eq!(server.stats()["topics"], json!({"*": 1, "a/*": 1, "chat": 2}));
    drop(all);
    server.wait_stats("one to leave", |stats| stats["topics"].get("*").is_none());
    let names: Vec<String> = (0..150).map(|number| format!("topic=n{number}")).collect();
    let _many = Sse::open(&server, &format!("/events?{}", names.join("&")));
    let stats = server.stats();
    assert_eq!(
        (stats["topics"].as_object().unwrap().len(), &stats["topicsOmitted"]),
        (100, &52.into())
    );
    assert_eq!(stats["topics"]["chat"], 2, "the largest are not left out");
}

#[test]
fn topics_are_named_only_to_those_who_may_see_clients() {
    let server = Server::start(&["--listen", "0.0.0.0:0", "--token", "s3cret"]);
    assert_eq!(server.stats().get("topics"), None);
    let stats = server.request("GET", "/stats", "Authorization: Bearer s3cret\r\n", b"").json();
    assert_eq!(stats["topics"], json!({}));
}

/// The counts of the next event on the topic `subscribers`.
fn counts(server: &Server, sse: &mut Sse) -> BTreeMap<String, u64> {
    let event: Value = serde_json::from_str(&data(sse)).unwrap();
    assert_eq!(event["server"], server.address.to_string());
    serde_json::from_value(event["counts"].clone()).unwrap()
}

#[test]
fn counts_of_subscribers_are_events_while_somebody_wants_them() {
    let server = Server::start(&[]);
    let newest = || server.get("/history").json()["newest"].clone();
    let before = newest();
    let _chat = Sse::open(&server, "/events?topic=chat");
    let _all = Sse::open(&server, "/events");
    let pair = |name: &str, count| (name.to_owned(), count);
    // All that there is, to who has just come.
    let mut watcher = Sse::open(&server, "/events?topic=subscribers");
    assert_eq!(newest_after(&server, &before), "subscribers");
    let first = counts(&server, &mut watcher);
    assert_eq!(first, [pair("*", 1), pair("chat", 1), pair("subscribers", 1)].into());
    // Then what changes, also to nothing.
    let second = Sse::open(&server, "/events?topic=chat&topic=a/*");
    assert_eq!(counts(&server, &mut watcher), [pair("a/*", 1), pair("chat", 2)].into());
    drop(second);
    assert_eq!(counts(&server, &mut watcher), [pair("a/*", 0), pair("chat", 1)].into());
    // Several changes within a second are one event: with what is there at its end.
    let many: Vec<Sse> = (0..10).map(|_| Sse::open(&server, "/events?topic=many")).collect();
    let mut seen = counts(&server, &mut watcher)["many"];
    while seen < 10 {
        let next = counts(&server, &mut watcher)["many"];
        assert!(next > seen, "{next} after {seen}");
        seen = next;
    }
    drop(many);
    while counts(&server, &mut watcher)["many"] > 0 {}
    // Nobody wants to know: nothing is published any more.
    drop(watcher);
    server.wait_stats("it to leave", |stats| stats["topics"].get("subscribers").is_none());
    let before = newest();
    let _chat = Sse::open(&server, "/events?topic=chat");
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(newest(), before);
}

/// Waits for the event after this id; returns its topic.
fn newest_after(server: &Server, id: &Value) -> String {
    let target = format!("/history?after={}", id.as_str().unwrap());
    let events = || server.get(&target).json()["events"].clone();
    common::wait_for("an event", || events() != json!([]));
    events()[0]["topic"].as_str().unwrap().to_owned()
}
