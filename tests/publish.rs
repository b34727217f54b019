//! `POST /publish`: who may, what is accepted, and that what is refused goes nowhere.

mod common;

use std::net::Ipv4Addr;

use common::sse::Sse;
use common::ws::open;
use common::{Folder, Server, wait_for};
use serde_json::json;

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

#[test]
fn the_answer_tells_the_id_and_how_many_got_it() {
    let server = Server::start(&[]);
    let mut all = Sse::open(&server, "/events");
    let some = Sse::open(&server, "/events?topic=a&topic=b");
    let socket = open(&server, "/ws?topic=a");
    let quiet = open(&server, "/ws");
    for (target, subscribers) in
        [("/publish?topic=a", 3), ("/publish?topic=b", 2), ("/publish?topic=c", 1), ("/publish", 1)]
    {
        let answer = server.publish(target, "x");
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
        let id = all.event().unwrap().id.unwrap();
        assert_eq!(answer.json(), json!({"id": id, "subscribers": subscribers}), "{target}");
    }
    drop((all, some, socket, quiet));
    server.wait_clients(0, 0);
    assert_eq!(server.publish("/publish?topic=a", "x").json()["subscribers"], 0);
}

#[test]
fn topic_and_name_come_from_the_query() {
    let server = Server::start(&[]);
    let mut socket = open(&server, "/ws?topic=*");
    let name = "x".repeat(256);
    let long = format!("/publish?topic={name}&event={name}");
    for (target, topic, event) in [
        ("/publish", "default", "message"),
        ("/publish?event=e", "default", "e"),
        ("/publish?event=one+two&topic=k%C3%A4se%2Fbrot&unknown=1", "käse/brot", "one two"),
        ("/publish?topic=default", "default", "message"),
        (&long, &name, &name),
    ] {
        server.publish_id(target, "x");
        let message = common::ws::json(&mut socket);
        assert_eq!((&message["topic"], &message["event"]), (&topic.into(), &event.into()));
    }
}

#[test]
fn bad_names_are_refused() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    let long = "x".repeat(257);
    for query in [
        "topic=",
        "event=",
        "topic=a%0Ab",
        "topic=a%0D",
        "event=a%0Adata:%20b",
        "event=%00",
        "topic=%C2%85",
        "topic=*",
        "topic=a&topic=b",
        &format!("topic={long}"),
        &format!("event={long}"),
    ] {
        let answer = server.publish(&format!("/publish?{query}"), "x");
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_query"), "{query}");
        sse.expect_nothing(&server, query);
    }
}

#[test]
fn lines_become_events() {
    let server = Server::start(&[]);
    let mut socket = open(&server, "/ws?topic=*");
    let body = concat!(
        "{\"topic\":\"a\",\"event\":\"e\",\"data\":\"one\"}\n",
        "{\"data\":\"defaults from the query\"}\r\n",
        "\n   \n",
        "{\"topic\":null,\"event\":\"own\",\"data\":{\"b\":[1,null,\"x\"]},\"more\":1}\n",
        "{\"topic\":\"a\",\"data\":42}\n",
        "{\"data\":null}\n",
        "{\"data\":\"two\\nlines \\u00fc\"}",
    );
    let answer = server.request("POST", "/publish?topic=t&event=n", NDJSON, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut last = json!(null);
    for (topic, event, data) in [
        ("a", "e", "one"),
        ("t", "n", "defaults from the query"),
        ("t", "own", r#"{"b":[1,null,"x"]}"#),
        ("a", "n", "42"),
        ("t", "n", "null"),
        ("t", "n", "two\nlines ü"),
    ] {
        let message = common::ws::json(&mut socket);
        assert_eq!(message["data"], data);
        assert_eq!((&message["topic"], &message["event"]), (&topic.into(), &event.into()));
        last = message["id"].clone();
    }
    assert_eq!(answer.json(), json!({"id": last, "subscribers": 1, "events": 6}));
    // Without the media type the same lines are one event.
    assert!(server.publish("/publish", body).json()["events"].is_null());
}

/// JSON that a parser would write back differently: `data` is published as these very bytes.
#[test]
fn data_that_is_no_string_is_published_as_its_bytes() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    let mut socket = open(&server, "/ws?topic=*");
    for data in [
        "1.0",
        "1e400",
        "-0",
        "12345678901234567890123",
        "0.10000000000000000000000001",
        r#"{"b":1,"a":2}"#,
        r#"{"a":1,"a":2}"#,
        "{ \"a\" :\t[ 1 , 2 ] }",
        r#"["\u00fc\/",true]"#,
        r#"["\ud800"]"#,
        &format!("{}1{}", "[".repeat(300), "]".repeat(300)),
    ] {
        let line = format!("{{\"data\": {data} }}\n");
        let answer = server.request("POST", "/publish", NDJSON, line.as_bytes());
        assert_eq!(answer.status, 200, "{data}: {}", answer.text());
        assert_eq!(sse.event().unwrap().data.as_deref(), Some(data));
        assert_eq!(common::ws::json(&mut socket)["data"], data);
    }
}

#[test]
fn one_bad_line_keeps_all_others_back() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    for line in [
        "no json",
        "[1]",
        "\"text\"",
        "{}",
        "{\"topic\":\"a\"}",
        "{\"data\":\"x\",\"topic\":7}",
        "{\"data\":1,\"data\":2}",
        "{\"data\":1,\"topic\":\"a\",\"topic\":\"a\"}",
        "{\"data\":01}",
        "{\"data\":\"\\ud800\"}",
        "{\"data\":\"x\",\"topic\":\"\"}",
        "{\"data\":\"x\",\"topic\":\"*\"}",
        "{\"data\":\"x\",\"event\":\"a\\nb\"}",
        "{\"data\":\"x\"} {\"data\":\"y\"}",
        "{\"data\":\"x\"",
    ] {
        let body = format!("{{\"data\":\"good\"}}\n\n{line}\n{{\"data\":\"good\"}}\n");
        let types = "Content-Type: Application/X-NDJSON; charset=utf-8\r\n";
        let answer = server.request("POST", "/publish", types, body.as_bytes());
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_line"), "{line}");
        assert!(answer.text().contains("line 3: "), "{line}: {}", answer.text());
        sse.expect_nothing(&server, line);
    }
    for body in ["", "\n\n"] {
        let answer = server.request("POST", "/publish", NDJSON, body.as_bytes());
        assert_eq!((answer.status, &*answer.error_code()), (400, "no_events"));
    }
}

#[test]
fn with_a_token_only_those_who_know_it_publish() {
    let folder = Folder::new("publish-token");
    let file = folder.write("token", "s3cret/+=\n");
    let from_file = ["--token-file", file.to_str().unwrap()];
    for server in [
        Server::start(&["--token", "s3cret/+="]),
        Server::start(&["--token", "s3cret/+=", "--listen", "0.0.0.0:0"]),
        Server::start(&from_file),
        Server::start_with_environment(&[("THREADCAST_TOKEN", "s3cret/+=")], &[]),
    ] {
        let server = reachable(server);
        let mut sse = Sse::open(&server, "/events");
        for refused in [
            "",
            "Authorization: Bearer\r\n",
            "Authorization: Bearer wrong\r\n",
            "Authorization: Bearer s3cret/+\r\n",
            "Authorization: Bearer s3cret/+==\r\n",
            "Authorization: Bearer S3CRET/+=\r\n",
            "Authorization: Basic s3cret/+=\r\n",
            "Authorization: s3cret/+=\r\n",
        ] {
            let answer = server.request("POST", "/publish?token=s3cret/+=", refused, b"x");
            assert_eq!((answer.status, &*answer.error_code()), (401, "unauthorized"), "{refused}");
            assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        }
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let right = format!("Authorization: {scheme} s3cret/+=\r\n");
            let id = server.request("POST", "/publish", &right, b"x").json()["id"].clone();
            assert_eq!(sse.event().unwrap().id.as_deref(), id.as_str(), "{scheme}");
        }
    }
}

/// The same server, whose address can be connected to also if it listens on all.
fn reachable(mut server: Server) -> Server {
    server.remote.address.set_ip(Ipv4Addr::LOCALHOST.into());
    server
}

#[test]
fn without_a_token_only_this_machine_publishes() {
    let server = reachable(Server::start(&["--listen", "0.0.0.0:0"]));
    let sse = Sse::open(&server, "/events");
    let answer = server.publish("/publish", "x");
    assert_eq!((answer.status, &*answer.error_code()), (403, "forbidden"));
    assert!(answer.text().contains("--token"), "{}", answer.text());
    wait_for("the client", || server.stats()["clients"]["sse"] == 1);
    assert_eq!(server.stats()["fanOut"]["events"], 0);
    drop(sse);
}

#[test]
fn every_name_of_ndjson_is_understood_and_codings_are_refused() {
    let server = Server::start(&[]);
    let lines = b"{\"data\":1}\n{\"data\":2}\n";
    for name in ["x-ndjson", "ndjson", "jsonl", "x-jsonlines", "NDJSON; charset=utf-8"] {
        let headers = format!("Content-Type: application/{name}\r\n");
        let answer = server.request("POST", "/publish", &headers, lines);
        assert_eq!(answer.json()["events"], 2, "{name}: {}", answer.text());
    }
    for (coding, status) in [("identity", 200), ("gzip", 415), ("br, gzip", 415)] {
        let headers = format!("Content-Encoding: {coding}\r\n");
        let answer = server.request("POST", "/publish", &headers, b"x");
        assert_eq!(answer.status, status, "{coding}");
    }
}

#[test]
fn a_misspelt_parameter_is_refused_with_the_right_name() {
    let server = Server::start(&[]);
    for target in ["/events?topics=a", "/publish?Topic=a", "/ws?topic[]=a", "/events?channel=a"] {
        let method = if target.starts_with("/publish") { "POST" } else { "GET" };
        let answer = server.request(method, target, "", b"");
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_query"), "{target}");
        assert!(answer.text().contains("use topic="), "{}", answer.text());
    }
    assert_eq!(server.publish("/publish?topic=caf%C3%A9&_=17", "x").status, 200);
}
