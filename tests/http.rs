//! What any HTTP client sees: reports, errors, and what a hostile request does not do.

mod common;

use std::io::{Read, Write};

use common::http::{Http, get};
use common::sse::Sse;
use common::ws::open;
use common::{Answer, Server, wait_for};

#[test]
fn metrics_are_openmetrics_and_follow_the_clients() {
    let server = Server::start(&[]);
    let value = |name: &str| {
        let answer = server.get("/metrics");
        let line =
            answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse::<u64>().unwrap()
    };
    let answer = server.get("/metrics");
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(answer.text().ends_with("\n# EOF\n"), "{}", answer.text());
    assert_eq!(answer.text().matches("# EOF").count(), 1);
    for (name, kind, suffix) in [
        ("clients_sse", "gauge", ""),
        ("clients_websocket", "gauge", ""),
        ("clients_limit", "gauge", ""),
        ("threads", "gauge", ""),
        ("descriptors", "gauge", ""),
        ("memory_bytes", "gauge", ""),
        ("backlog_bytes", "gauge", ""),
        ("draining", "gauge", ""),
        ("fan_out_last_microseconds", "gauge", ""),
        ("requests", "counter", "_total"),
        ("events", "counter", "_total"),
        ("fan_out_microseconds", "counter", "_total"),
        ("pipe_restarts", "counter", "_total"),
        ("clients_shed", "counter", "_total"),
        ("reaped", "counter", "_total"),
    ] {
        let declared = format!("# TYPE threadcast_{name} {kind}\n");
        assert!(answer.text().contains(&declared), "{name}: {}", answer.text());
        value(&format!("threadcast_{name}{suffix}"));
    }

    let counts = || (value("threadcast_clients_sse"), value("threadcast_clients_websocket"));
    assert_eq!(counts(), (0, 0));
    let clients = (Sse::open(&server, "/events"), open(&server, "/ws"));
    assert_eq!(counts(), (1, 1));
    server.publish("/publish", "x");
    wait_for("the event", || value("threadcast_events_total") == 1);
    drop(clients);
    wait_for("both to leave", || counts() == (0, 0));
    assert!(value("threadcast_requests_total") > 2);
}

#[test]
fn stats_describe_every_client() {
    let server = Server::start(&["--max-clients", "7"]);
    let before = server.stats();
    assert_eq!(before["clients"]["listed"], serde_json::json!([]));
    let mut sse = Sse::open(&server, "/events");
    let mut socket = open(&server, "/ws?topic=other");
    server.publish("/publish", "x");
    sse.event().unwrap();
    server.wait_stats("the event to be counted", |stats| {
        stats["clients"]["listed"][0]["sent"] == 1 && stats["fanOut"]["events"] == 1
    });

    let stats = server.stats();
    let addresses =
        [sse.stream(), socket.get_mut()].map(|one| one.local_addr().unwrap().to_string());
    let expected = [("sse", 1), ("websocket", 0)];
    for (number, (transport, sent)) in expected.into_iter().enumerate() {
        let client = &stats["clients"]["listed"][number];
        assert_eq!(client["transport"], transport);
        assert_eq!(client["address"], *addresses[number]);
        assert_eq!(client["state"], "live");
        assert_eq!((&client["queue"], &client["queueBytes"]), (&0.into(), &0.into()));
        assert_eq!(client["sent"], sent);
        assert!(client["seconds"].is_u64());
    }
    assert_eq!((&stats["clients"]["limit"], &stats["draining"]), (&7.into(), &false.into()));
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    assert!(number(&stats["threads"]) >= number(&before["threads"]), "a client is a thread");
    assert!(number(&stats["threads"]) > 4 && number(&stats["descriptors"]) > 4);
    assert!(number(&stats["memoryBytes"]) > 100_000);
    for field in ["lastMicros", "longestMicros", "totalMicros"] {
        number(&stats["fanOut"][field]);
    }
    for field in ["restarts", "reaped", "requests"] {
        number(&stats["listener"][field]);
    }
    number(&stats["uptimeSeconds"]);
}

#[test]
fn errors_have_one_form() {
    let server = Server::start(&[]);
    let long = format!("/events?topic={}", "x".repeat(257));
    let cases: &[(&str, &str, u16, &str, Option<&str>)] = &[
        ("GET", "/nothing", 404, "not_found", None),
        ("GET", "/events/", 404, "not_found", None),
        ("POST", "/nothing", 404, "not_found", None),
        ("POST", "/", 405, "method_not_allowed", Some("GET, HEAD, OPTIONS")),
        ("DELETE", "/app.js", 405, "method_not_allowed", Some("GET, HEAD, OPTIONS")),
        ("PUT", "/events", 405, "method_not_allowed", Some("GET, HEAD, OPTIONS")),
        ("POST", "/stats", 405, "method_not_allowed", Some("GET, HEAD, OPTIONS")),
        ("PATCH", "/metrics", 405, "method_not_allowed", Some("GET, HEAD, OPTIONS")),
        ("BREW", "/", 405, "method_not_allowed", Some("GET, HEAD, OPTIONS")),
        ("GET", "/publish", 405, "method_not_allowed", Some("POST, OPTIONS")),
        ("PUT", "/publish", 405, "method_not_allowed", Some("POST, OPTIONS")),
        ("DELETE", "/publish", 405, "method_not_allowed", Some("POST, OPTIONS")),
        ("GET", "/events?topic=", 400, "bad_query", None),
        ("GET", "/events?topic=a%0Ab", 400, "bad_query", None),
        ("GET", &long, 400, "bad_query", None),
        ("GET", "events", 400, "bad_target", None),
        ("GET", "*", 400, "bad_target", None),
    ];
    for (method, target, status, code, allow) in cases {
        let answer = server.request(method, target, "", b"");
        assert_eq!((answer.status, &*answer.error_code()), (*status, *code), "{method} {target}");
        assert_eq!(answer.header("Allow"), *allow, "{method} {target}");
    }
    let answer = server.request("GET", "/events", "", b"a body");
    assert_eq!((answer.status, &*answer.error_code()), (400, "unexpected_body"));
    let answer = server.request("POST", "/publish", "", &vec![b'x'; (1 << 20) + 1]);
    assert_eq!((answer.status, &*answer.error_code()), (413, "too_large"));
}

#[test]
fn every_plain_response_is_dated_and_its_connection_kept_or_closed_as_asked() {
    let server = Server::start(&[]);
    for (method, target, body, can_be_kept) in [
        ("GET", "/", "", true),
        ("HEAD", "/", "", true),
        // The head of a stream, whose end would be the connection's.
        ("HEAD", "/events", "", false),
        ("GET", "/healthz", "", true),
        ("GET", "/metrics", "", true),
        ("GET", "/stats", "", true),
        ("GET", "/ws", "", true),
        ("GET", "/nothing", "", true),
        // Nobody reads this body, so what follows it cannot be found.
        ("PUT", "/", "x", false),
        ("GET", "/events?topic=", "", true),
        ("POST", "/publish", "x", true),
        ("OPTIONS", "/publish", "", true),
    ] {
        for asked in ["", "Connection: keep-alive\r\n", "Connection: close\r\n"] {
            let case = format!("{method} {target} {asked}");
            let length = match body {
                "" => String::new(),
                _ => format!("Content-Length: {}\r\n", body.len()),
            };
            let mut http = Http::connect(&server);
            http.send(format!(
                "{method} {target} HTTP/1.1\r\nHost: x\r\n{length}{asked}\r\n{body}"
            ));
            let answer = if method == "HEAD" { http.head() } else { http.response() };
            let is_kept = can_be_kept && !asked.contains("close");
            // 426 also names the Upgrade that it carries.
            let connection = answer.header("Connection").unwrap_or_default();
            let says_close = connection.split(", ").any(|member| member == "close");
            assert_eq!(says_close, !is_kept, "{case}{}", answer.head);
            let date = httpdate::parse_http_date(answer.header("Date").expect("a date")).unwrap();
            let age = date.elapsed().expect("not from the future");
            assert!(age.as_secs() < 60, "{case}: {age:?}");
            if is_kept {
                let next = http.ask(get("/healthz", "Connection: close\r\n"));
                assert_eq!(next.json(), serde_json::json!({"status": "ok"}), "{case}");
                assert_eq!(next.header("Connection"), Some("close"));
            }
            http.expect_end();
        }
    }
}

#[test]
fn absurd_lengths_cost_nothing() {
    let server = Server::start(&["--header-timeout", "1s"]);
    let count = |field: &str| server.stats()[field].as_u64().unwrap();
    let (threads, descriptors) = (count("threads"), count("descriptors"));
    for length in ["100000000000000", "6000000000000000000", "18446744073709551615"] {
        for (method, target, expected) in [
            ("POST", "/publish", &[413][..]),
            ("POST", "/nothing", &[404]),
            ("GET", "/healthz", &[200, 400, 413]),
            ("GET", "/events", &[400, 413]),
            ("PUT", "/", &[405]),
        ] {
            for more in ["", "Expect: 100-continue\r\n", "Connection: upgrade\r\n"] {
                let head = format!(
                    "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n"
                );
                let mut stream = server.connect();
                stream.write_all(&[head.as_bytes(), b"some of it"].concat()).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).expect("the server answers and closes");
                let status = Answer::parse(&answer).status;
                assert!(expected.contains(&status), "{status} for {head}");
            }
        }
    }
    wait_for("the connections to be closed", || count("descriptors") <= descriptors);
    wait_for("the threads to end", || server.client_threads() == 0);
    // Not one for each of the 45 bodies; a few may wait for the next request.
    assert!(count("threads") < threads + 8, "{} threads", count("threads"));
    assert!(server.stats()["memoryBytes"].as_u64().unwrap() < 200 << 20);
}

/// HAProxy asks so whether a server is there: `option httpchk` without more.
#[test]
fn options_says_what_may_be_asked() {
    let server = Server::start(&[]);
    for (target, allow) in [
        ("/", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
        ("/index.html", "GET, HEAD, OPTIONS"),
        ("/events", "GET, HEAD, OPTIONS"),
        ("/stats", "GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/ws", "GET, OPTIONS"),
        ("/publish", "POST, OPTIONS"),
        ("/ticket", "POST, OPTIONS"),
        ("/nothing/here", "GET, HEAD, OPTIONS"),
    ] {
        for version in ["1.0", "1.1"] {
            let answer =
                server.respond(format!("OPTIONS {target} HTTP/{version}\r\nHost: x\r\n\r\n"));
            assert_eq!((answer.status, answer.header("Allow")), (204, Some(allow)), "{target}");
        }
    }
    assert_eq!(server.respond("OPTIONS / HTTP/1.0\r\n\r\n").status, 204);
    assert_eq!(server.respond("GET * HTTP/1.1\r\nHost: x\r\n\r\n").status, 400);
}
