//! What is kept, and the ways to ask for it: `earliest`, `latest`, `GET /history`, and topics that keep events of
//! their own.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::sse::Sse;
use common::ws::{connect, json};
use common::{FANOUTS, Server};
use serde_json::{Value, json};

fn publish(server: &Server, topic: &str, data: &str) -> String {
    server.publish_id(&format!("/publish?topic={topic}"), data)
}

fn data(sse: &mut Sse) -> String {
    sse.event().expect("an event").data.expect("data")
}

/// Opens a stream on the topics in `target`, having seen `last`. Checks that these come, and nothing else.
fn expect(server: &Server, target: &str, last: Option<&str>, expected: &[&str]) {
    // A topic of its own for each, since it is kept, too.
    static END: AtomicUsize = AtomicUsize::new(0);
    let end = format!("end{}", END.fetch_add(1, Ordering::Relaxed));
    let mut sse = Sse::open_after(server, &format!("{target}&topic={end}"), last);
    for one in expected {
        assert_eq!(data(&mut sse), *one);
    }
    sse.expect_nothing_on(server, &end);
}

#[test]
fn earliest_is_all_that_is_kept_without_a_gap() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout, "--history", "4"]);
        for number in 1..=6 {
            publish(&server, if number % 2 == 0 { "even" } else { "odd" }, &number.to_string());
        }
        let mut all = Sse::open(&server, "/events?last_event_id=earliest");
        for expected in ["3", "4", "5", "6"] {
            assert_eq!(data(&mut all), expected);
        }
        let mut socket = connect(&server, "/ws?topic=odd&last_event_id=earliest");
        assert_eq!(json(&mut socket).get("lastEventId"), None, "it may come back as it came");
        for expected in ["3", "5"] {
            assert_eq!(json(&mut socket)["data"], expected);
        }
        expect(&server, "/events?topic=other", Some("earliest"), &[]);
        expect(&server, "/events?topic=even", Some("earliest"), &["4", "6"]);
    }
}

#[test]
fn latest_is_the_last_event_of_each_topic_at_once() {
    for fanout in FANOUTS {
        let server = Server::start(&["--fanout", fanout]);
        for (topic, value) in [("a/1", "1"), ("a/2", "2"), ("a/1", "3"), ("b", "4")] {
            publish(&server, topic, value);
        }
        for target in ["latest", "latest=1", "last_event_id=latest", "last_event_id=&latest"] {
            expect(&server, &format!("/events?topic=a/*&{target}"), None, &["2", "3"]);
        }
        let mut socket = connect(&server, "/ws?topic=a/1&topic=b&latest");
        assert_eq!(json(&mut socket).get("lastEventId"), None);
        assert_eq!(
            (&json(&mut socket)["data"], &json(&mut socket)["data"]),
            (&json!("3"), &json!("4"))
        );
        // Nothing there yet: as any new client.
        let mut sse = Sse::connect(&server, "/events?topic=none&topic=end&latest", "");
        assert!(sse.block().unwrap().id.is_some());
        sse.expect_nothing_on(&server, "end");
        assert_eq!(server.get("/events?latest=5").status, 400);
    }
}

#[test]
fn who_comes_back_gets_what_it_missed_and_not_the_latest() {
    let server = Server::start(&[]);
    let target = "/events?topic=a&latest";
    let ids: Vec<String> =
        (1..=4).map(|number| publish(&server, "a", &number.to_string())).collect();
    let mut first = Sse::connect(&server, target, "");
    let greeting = first.block().unwrap();
    assert_eq!(greeting.id, None, "with an id it would come back as if it had seen the latest");
    assert_eq!(first.event().unwrap().id.as_ref(), Some(&ids[3]));
    // An `EventSource` sends the same query again, and the field.
    expect(&server, target, Some(&ids[1]), &["3", "4"]);
    let target = format!("{target}&last_event_id={}", ids[2]);
    expect(&server, &target, None, &["4"]);
}

#[test]
fn a_topic_keeps_its_own_events_whatever_the_others_publish() {
    let flags =
        ["--history", "3", "--topic-history", "gauge/*=1", "--topic-history", "gauge/fine=2"];
    let server = Server::start(&flags);
    for (topic, value) in [("gauge/a", "1"), ("gauge/a", "2"), ("gauge/fine", "3")] {
        publish(&server, topic, value);
    }
    for number in 4..20 {
        publish(&server, "log", &number.to_string());
    }
    publish(&server, "gauge/fine", "20");
    publish(&server, "gauge/fine", "21");
    expect(&server, "/events?topic=gauge/*&latest", None, &["2", "21"]);
    let page = server.get("/history").json();
    let values: Vec<&str> =
        page["events"].as_array().unwrap().iter().map(|e| e["data"].as_str().unwrap()).collect();
    // One of `log` made room for `end`.
    assert_eq!(values, ["2", "18", "19", "20", "21", "marker"]);
    assert_eq!(page["gap"], Value::Null, "who asks for all that is kept misses nothing");
    // By a variable, too, and for each topic.
    let variables = [("THREADCAST_TOPIC_HISTORY", "*=2,quiet=0")];
    let server = Server::start_with_environment(&variables, &["--history", "0"]);
    for number in 0..5 {
        publish(&server, "a", &number.to_string());
        publish(&server, "quiet", "not kept");
    }
    expect(&server, "/events?topic=a&topic=quiet", Some("earliest"), &["3", "4"]);
}

/// The data of a page's events, and the page.
fn page(server: &Server, query: &str) -> (Vec<String>, Value) {
    let answer = server.get(&format!("/history?{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let page = answer.json();
    let events = page["events"].as_array().unwrap();
    (events.iter().map(|event| event["data"].as_str().unwrap().to_owned()).collect(), page)
}

#[test]
fn history_is_read_a_page_at_a_time() {
    let server = Server::start(&["--history", "250"]);
    let empty = page(&server, "").1;
    let nothing = json!({"events": [], "gap": null, "newest": empty["newest"], "next": null});
    assert_eq!(empty, nothing);
    let ids: Vec<String> = (0..300)
        .map(|number| publish(&server, &format!("n/{}", number % 3), &number.to_string()))
        .collect();
    let (mut all, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (events, page) = page(&server, &format!("topic=n/*&after={after}"));
        pages += 1;
        all.extend(events);
        assert_eq!((&page["gap"], &page["newest"]), (&Value::Null, &json!(ids[299])));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(all, (50..300).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(pages, 3, "of a hundred events");
    let (events, first) = page(&server, &format!("topic=n/0&topic=n/2&after={}&limit=2", ids[290]));
    assert_eq!(events, ["291", "293"]);
    assert_eq!(first["next"], json!(ids[293]));
    let expected = json!({"id": ids[291], "topic": "n/0", "event": "message", "data": "291"});
    assert_eq!(first["events"][0], expected);
    // What is lost is told, as to a client that comes back.
    let (events, lost) = page(&server, &format!("after={}&limit=1000", ids[9]));
    assert_eq!((events.len(), &lost["gap"]), (250, &json!({"resumed": ids[49]})));
    let (events, unknown) = page(&server, "after=17-0&topic=n/1");
    assert_eq!((events.len(), unknown["gap"].is_object()), (83, true));
    // Behind the last page comes the stream.
    let mut sse = Sse::open_after(&server, "/events", first["newest"].as_str());
    sse.expect_nothing(&server, "nobody");
}

#[test]
fn a_page_of_history_is_bounded_in_bytes() {
    let server = Server::start(&["--max-message", "5MiB"]);
    for size in [5 << 20, 3 << 20, 1 << 20, 1, 1] {
        server.publish_id("/publish", &"x".repeat(size));
    }
    let sizes = |events: Vec<String>| events.iter().map(String::len).collect::<Vec<_>>();
    let (events, first) = page(&server, "");
    assert_eq!(sizes(events), [5 << 20]);
    let (events, second) = page(&server, &format!("after={}", first["next"].as_str().unwrap()));
    assert_eq!(sizes(events), [3 << 20, 1 << 20]);
    let (events, last) = page(&server, &format!("after={}", second["next"].as_str().unwrap()));
    assert_eq!((sizes(events), &last["next"]), (vec![1, 1], &Value::Null));
}

#[test]
fn what_cannot_be_asked_of_history_is_refused() {
    let server = Server::start(&[]);
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "after=x",
        "after=latest",
        "topics=a",
        "topic=",
    ] {
        let refused = server.get(&format!("/history?{query}"));
        assert_eq!((refused.status, refused.error_code().as_str()), (400, "bad_query"), "{query}");
    }
    let refused = server.request("POST", "/history", "", b"");
    assert_eq!((refused.status, refused.header("Allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn history_is_as_public_as_the_stream() {
    let server = Server::start(&["--subscribe-token", "s3cret"]);
    assert_eq!(server.get("/history").status, 401);
    let bearer = "Authorization: Bearer s3cret\r\n";
    assert_eq!(server.request("GET", "/history", bearer, b"").status, 200);
    let ticket = server.request("POST", "/ticket", bearer, b"").json()["ticket"].clone();
    let target = format!("/history?ticket={}", ticket.as_str().unwrap());
    assert_eq!((server.get(&target).status, server.get(&target).status), (200, 401));
    let server = Server::start(&[]);
    let page = server.request("GET", "/history", "Origin: https://other.example\r\n", b"");
    assert_eq!(page.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
    let head = server.request("HEAD", "/history", "", b"");
    assert_eq!(head.status, 200);
}
