//! The head of a request: what is a request, what is none, and how soon that is told (RFC 9112
//! sections 2 to 7).

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use common::http::{Http, POST, get, post};
use common::ws::{open, upgrade_lines};
use common::{Answer, Server, wait_for};

/// Sends bytes, and returns the response that comes although the sending side stays open. Then the
/// server must close.
fn refusal(server: &Server, bytes: impl AsRef<[u8]>) -> Answer {
    let mut http = Http::connect(server);
    http.send(bytes);
    let answer = http.response();
    http.expect_end();
    answer
}

#[test]
fn field_values_and_targets_may_hold_bytes_above_127() {
    let server = Server::start(&[]);
    for value in [&b"Cookie: n=Zo\xeb"[..], b"Cookie: n=Zo\xc3\xab; m=\xff", b"X: \x80\xfe\t~"] {
        let request = [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", value, b"\r\n\r\n"].concat();
        assert_eq!(server.respond(&request).status, 200, "{}", value.escape_ascii());
    }
    let mut socket = open(&server, "/ws?topic=*");
    for (query, topic) in [
        // As it is typed, and as it should be sent.
        (&b"topic=k\xc3\xa4se"[..], "k\u{e4}se"),
        (b"topic=k%C3%A4se", "k\u{e4}se"),
    ] {
        let target = [b"POST /publish?", query, b" HTTP/1.1\r\nHost: x\r\n"].concat();
        let answer = server.respond([&target, &b"Content-Length: 1\r\n\r\nx"[..]].concat());
        assert_eq!(answer.status, 200, "{}", query.escape_ascii());
        assert_eq!(common::ws::json(&mut socket)["topic"], topic, "{}", query.escape_ascii());
    }
    // Latin-1 is taken as percent-encoded too, and stands for no UTF-8.
    for target in [&b"/events?topic=k\xe4se"[..], b"/events?topic=k%E4se"] {
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        assert_eq!(server.respond(&request).error_code(), "bad_query", "{}", target.escape_ascii());
    }
}

#[test]
fn unknown_versions_are_refused_at_once_and_cost_nothing() {
    let server = Server::start(&[]);
    let before = server.stats();
    for round in 0..75 {
        for start in [
            "GET / HTTP/2.0\r\n",
            "GET /events HTTP/3.0\r\nHost: x\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "POST /publish HTTP/1.2\r\n",
        ] {
            let answer = refusal(&server, start);
            assert_eq!(answer.status, 505, "{round}: {start:?}");
            assert_eq!(answer.error_code(), "unknown_version");
        }
    }
    for resource in ["descriptors", "threads"] {
        let count = |stats: &serde_json::Value| stats[resource].as_u64().unwrap();
        // Another thread may wait for the next request.
        let enough = count(&before) + 1;
        server.wait_stats(&format!("{resource} as before"), |stats| count(stats) <= enough);
    }
    let requests = |stats: &serde_json::Value| stats["listener"]["requests"].as_u64().unwrap();
    assert!(requests(&server.stats()) >= requests(&before), "requests are served as before");
}

#[test]
fn a_tls_handshake_is_closed_and_the_log_says_why() {
    let server = Server::start(&["--log", "info"]);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a ClientHello \r\n\r\n of 512 bytes";
    for bytes in [&hello[..], &[&hello[..], &[0; 4096]].concat()] {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // Whoever has sent more than was read is reset.
        let end = stream.read_to_end(&mut answer);
        assert!(end.is_ok() || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
        assert!(answer.is_empty(), "{}", answer.escape_ascii());
    }
    wait_for("the log to tell", || {
        server.log().lines().filter(|line| line.contains("INFO") && line.contains("TLS")).count()
            == 2
    });
}

#[test]
fn empty_lines_in_front_of_a_request_are_skipped() {
    let server = Server::start(&[]);
    let mut http = Http::connect(&server);
    for lines in ["", "\r\n", "\r\n\r\n\r\n"] {
        assert_eq!(http.ask(format!("{lines}{}", get("/healthz", ""))).status, 200, "{lines:?}");
    }
    // In pieces as well.
    for piece in ["\r", "\n\r\n", "GET /healthz HT", "TP/1.1\r", "\nHost: x\r\n\r"] {
        http.send(piece);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(http.ask("\n").status, 200);
}

#[test]
fn what_is_wrong_is_told_before_the_head_is_complete() {
    let server = Server::start(&["--header-timeout", "1h"]);
    let host = "GET / HTTP/1.1\r\nHost: x";
    for (bytes, status, code) in [
        ("\n".to_owned(), 400, "bad_line"),
        ("GET / HTTP/1.1\n".into(), 400, "bad_line"),
        (format!("{host}\n"), 400, "bad_line"),
        (format!("{host}\r\nX: y\n"), 400, "bad_line"),
        (format!("{host}\r\n\n"), 400, "bad_line"),
        (format!("{host}\r\nX: a\nb: c\r\n\r\n"), 400, "bad_line"),
        ("GET /\r\n".into(), 400, "bad_request_line"),
        ("GET / HTTP/1.1 x\r\n".into(), 400, "bad_request_line"),
        ("GET  / HTTP/1.1\r\n".into(), 400, "bad_request_line"),
        ("GET\t/ HTTP/1.1\r\n".into(), 400, "bad_request_line"),
        ("GET / http/1.1\r\n".into(), 400, "bad_request_line"),
        ("GET / HTTP/1.10\r\n".into(), 400, "bad_request_line"),
        ("GE(T / HTTP/1.1\r\n".into(), 400, "bad_method"),
        (format!("{} / HTTP/1.1\r\n", "X".repeat(33)), 501, "unknown_method"),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(9 * 1024)), 414, "target_too_long"),
        (format!("GET /{}", "x".repeat(9 * 1024)), 414, "target_too_long"),
        (format!("{host}\r\nX: {}", "x".repeat(32 * 1024)), 431, "header_too_large"),
        ("GET / HTTP/9.9\r\n".into(), 505, "unknown_version"),
    ] {
        let answer = refusal(&server, &bytes);
        assert_eq!((answer.status, &*answer.error_code()), (status, code), "{bytes:?}");
        is_a_last_response(&answer);
    }
}

/// What every refusal of the head says.
fn is_a_last_response(answer: &Answer) {
    assert_eq!(answer.header("Connection"), Some("close"), "{}", answer.head);
    let date = httpdate::parse_http_date(answer.header("Date").expect("a date")).unwrap();
    assert!(date.elapsed().expect("not from the future").as_secs() < 60);
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    let server = Server::start(&[]);
    let mut sse = common::sse::Sse::open(&server, "/events");
    let upgrade = upgrade_lines();
    for (lines, status, code) in [
        ("X : y\r\n", 400, "bad_header"),
        (" X: y\r\n", 400, "bad_header"),
        ("X: a\r\n b\r\n", 400, "bad_header"),
        ("no colon\r\n", 400, "bad_header"),
        ("X: a\0b\r\n", 400, "bad_header"),
        ("X: a\rb\r\n", 400, "bad_header"),
        ("X\u{1}: a\r\n", 400, "bad_header"),
        ("X(: a\r\n", 400, "bad_header"),
        (": a\r\n", 400, "bad_header"),
        ("@: 7\r\n", 400, "bad_header"),
        ("Host: y\r\n", 400, "bad_host"),
        ("Content-Length: 1, 1\r\n", 400, "bad_framing"),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400, "bad_framing"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, "bad_framing"),
        ("Transfer-Encoding: gzip, chunked\r\n", 501, "unknown_coding"),
        ("Transfer-Encoding: identity\r\n", 501, "unknown_coding"),
        ("Transfer-Encoding: xchunked\r\n", 501, "unknown_coding"),
        ("Transfer-Encoding: chunked;a\r\n", 501, "unknown_coding"),
        ("Transfer-Encoding: \x0bchunked\r\n", 400, "bad_header"),
        (&format!("{upgrade}Content-Length: 1\r\n"), 400, "bad_handshake"),
        (&format!("{upgrade}Transfer-Encoding: chunked\r\n"), 400, "bad_handshake"),
    ] {
        // Whatever follows a head that is refused is not served.
        let bytes = format!("{POST}{lines}\r\n{}", post("smuggled"));
        let answer = refusal(&server, &bytes);
        assert_eq!((answer.status, &*answer.error_code()), (status, code), "{lines:?}");
        is_a_last_response(&answer);
        sse.expect_nothing(&server, lines);
    }
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("POST /publish HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ] {
        assert_eq!(server.respond(head).status, status, "{head:?}");
    }
}

#[test]
fn targets_are_paths_that_lead_nowhere_else() {
    let server = Server::start(&[]);
    let mut http = Http::connect(&server);
    for target in ["/a/b?c=d&e=%0A", "/..a", "/a..", "/%41", "/b?x=../..", "//", "/a?b?c", "/a%2fb"]
    {
        assert_eq!(http.ask(get(target, "")).status, 404, "{target}");
    }
    for target in [
        "*",
        "a",
        "h:80",
        "",
        "/a b",
        "/a\0",
        "/a%00",
        "/%",
        "/%2",
        "/%zz",
        "/..",
        "/a/../b",
        "/a#b",
        "/%2e%2E/b",
        "/a%2f..%2fb",
        "/a\\..\\b",
        "/a\tb",
        "/a\u{7f}",
        "http://h/../a",
        "http://h/%",
    ] {
        let answer = server.respond(get(target, ""));
        let codes = ["bad_target", "bad_request_line"];
        assert_eq!(answer.status, 400, "{target:?}");
        assert!(codes.contains(&&*answer.error_code()), "{target:?}: {}", answer.text());
    }
    // Its length counts as it is percent-encoded.
    let umlauts = |count| get(&format!("/{}", "\u{e4}".repeat(count)), "");
    assert_eq!(server.respond(umlauts(8 * 1024 / 6)).status, 404);
    assert_eq!(server.respond(umlauts(8 * 1024 / 6 + 1)).status, 414);
}

#[test]
fn the_authority_of_an_absolute_target_wins_over_host() {
    let server = Server::start(&[]);
    for (target, host, origin, status) in [
        ("http://one.example/publish", "two.example", "http://one.example", 200),
        ("http://one.example/publish", "two.example", "http://two.example", 403),
        ("HTTP://one.example:81/publish", "one.example", "http://one.example:81", 200),
        ("https://one.example/publish?topic=a", "one.example:443", "https://one.example", 200),
        ("/publish", "two.example", "http://two.example", 200),
        ("/publish", "two.example", "http://one.example", 403),
        ("http:///publish", "x", "http://x", 400),
        ("http://user@x/publish", "x", "http://x", 400),
        ("ftp://x/publish", "x", "http://x", 400),
        ("x:80", "x", "http://x", 400),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n");
        let answer = server.respond(format!("{head}Content-Length: 1\r\n\r\nx"));
        assert_eq!(answer.status, status, "{head}{}", answer.text());
    }
    // Host is needed all the same.
    assert_eq!(server.respond("GET http://x/healthz HTTP/1.1\r\n\r\n").status, 400);
    assert_eq!(server.respond("GET http://x?y HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
}

/// RFC 9110 section 7.6.1 is for those who forward: a field that Connection names is still there.
#[test]
fn connection_drops_no_field() {
    let server = Server::start(&["--token", "t"]);
    for connection in ["Authorization", "Authorization, Content-Length, Host", "close, Connection"]
    {
        let lines = format!("Connection: {connection}\r\nAuthorization: Bearer t\r\n");
        let answer = server.request("POST", "/publish", &lines, b"x");
        assert_eq!(answer.status, 200, "{connection}: {}", answer.text());
        assert_eq!(answer.json()["id"].as_str().map(str::is_empty), Some(false));
    }
}

#[test]
fn heads_are_bounded() {
    let server = Server::start(&["--max-head", "2048"]);
    let of_length = |length: usize| {
        let start = "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
    };
    for (head, status) in [
        (of_length(2048), 200),
        (of_length(2049), 431),
        (of_length(10_000), 431),
        ("\r\n".repeat(1_025), 431),
        (get("/healthz", &"X: a\r\n".repeat(99)), 200),
        (get("/healthz", &"X: a\r\n".repeat(100)), 431),
    ] {
        let answer = server.respond(&head);
        assert_eq!(answer.status, status, "{} bytes: {}", head.len(), answer.text());
        if status == 431 {
            assert_eq!(answer.error_code(), "header_too_large");
            is_a_last_response(&answer);
        }
    }
    assert!(server.respond(of_length(2049)).text().contains("2048 bytes (--max-head)"));
    let server = Server::start(&[]);
    let target = |length: usize| get(&format!("/{}", "x".repeat(length - 1)), "");
    assert_eq!(server.respond(target(8 * 1024)).status, 404);
    assert_eq!(server.respond(target(8 * 1024 + 1)).status, 414);
    assert_eq!(server.respond(of_length(32 * 1024)).status, 200);
    assert_eq!(server.respond(of_length(32 * 1024 + 1)).status, 431);
}

#[test]
fn who_is_too_late_with_a_head_is_told_and_who_says_nothing_is_not() {
    let server = Server::start(&["--header-timeout", "500ms"]);
    let begun = ["G", "GET / HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\nHost: x\r\nX: y"];
    let mut clients: Vec<_> =
        ["", "\r\n"].into_iter().chain(begun).map(|part| (part, Http::connect(&server))).collect();
    for (part, http) in &mut clients {
        http.send(part);
    }
    for (part, http) in &mut clients {
        if begun.contains(part) {
            let answer = http.response();
            assert_eq!((answer.status, &*answer.error_code()), (408, "timeout"), "{part:?}");
            is_a_last_response(&answer);
        }
        http.expect_end();
    }
    // A head that was cut off is nobody's to answer.
    let mut http = Http::connect(&server);
    http.send("GET / HTTP/1.1\r\nHost: x\r\n");
    http.stream().shutdown(Shutdown::Write).unwrap();
    http.expect_end();
    assert_eq!(server.stats()["listener"]["reaped"], 5);
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let server = Server::start(&[]);
    for (target, status) in [
        ("/", 200),
        ("/app.js", 200),
        ("/healthz", 200),
        ("/stats", 200),
        ("/metrics", 200),
        ("/events", 200),
        ("/nothing", 404),
        ("/events?topic=", 400),
        ("/publish", 405),
    ] {
        // Reports may have become longer in between.
        let varies = ["/stats", "/metrics"].contains(&target);
        let fields = |answer: &Answer| {
            let lines = answer.head.lines().filter(|line| !line.starts_with("Date: "));
            let lines = lines.map(|line| match line.starts_with("Content-Length: ") && varies {
                true => "Content-Length".to_owned(),
                false => line.to_owned(),
            });
            lines.collect::<Vec<_>>()
        };
        let mut http = Http::connect(&server);
        http.send(get(target, ""));
        let full = http.head();
        drop(http);
        let mut http = Http::connect(&server);
        http.send(get(target, "Connection: keep-alive\r\n").replacen("GET", "HEAD", 1));
        let head = http.head();
        assert_eq!((full.status, fields(&full)), (status, fields(&head)), "{target}");
        assert!(head.header("Date").is_some() && full.header("Date").is_some());
        if target == "/events" {
            http.expect_end();
        } else {
            // The next bytes are the next response.
            assert!(head.header("Content-Length").unwrap().parse::<u64>().unwrap() > 0);
            assert_eq!(http.ask(get("/healthz", "")).status, 200, "{target}");
        }
    }
}
