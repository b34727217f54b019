//! The opening handshake of a WebSocket: who gets in, and what the others are told (RFC 6455 section
//! 4.2).

mod common;

use std::io::{Read, Write};

use common::ws::{ACCEPT, KEY, Raw, masked, text, upgrade, upgrade_lines};
use common::{Server, wait_for};

#[test]
fn the_handshake_is_answered() {
    let server = Server::start(&[]);
    for target in ["/ws", "/ws/", "/", "/echo", "/ws?topic=a", "/?topic=a"] {
        // Checks the status and the accept key.
        let answer = Raw::connect(&server, target).answer;
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert_eq!(answer.header("Connection"), Some("Upgrade"));
        for not_asked_for in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
            assert_eq!(answer.header(not_asked_for), None);
        }
    }
    for connection in [
        // As Firefox sends it.
        "connection: keep-alive, upgrade",
        // Several fields of one name are one list (RFC 9110 section 5.3).
        "Connection: keep-alive\r\nConnection: Upgrade",
        "Connection: Upgrade\r\nConnection: x-hop",
        // There is no body that could wait for the server (RFC 9110 section 10.1.1).
        "Connection: Upgrade\r\nExpect: 100-continue",
    ] {
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\n{connection}\r\nUPGRADE: WebSocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
        );
        let answer = server.respond([head.as_bytes(), &masked(0x88, b"")].concat());
        let accept = answer.header("Sec-WebSocket-Accept");
        assert_eq!((answer.status, accept), (101, Some(ACCEPT)), "{connection}");
    }
    server.wait_clients(0, 0);
}

#[test]
fn a_wrong_handshake_is_told_why() {
    let server = Server::start(&[]);
    let lines = upgrade_lines();
    let without = |name: &str| {
        let kept = lines.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        kept.collect::<String>()
    };
    let with = |name: &str, value: &str| without(name) + &format!("{name}: {value}\r\n");
    let key = "Sec-WebSocket-Key";
    let version = "Sec-WebSocket-Version";
    for (method, headers, status) in [
        ("GET", String::new(), 426),
        ("GET", without("Upgrade"), 426),
        ("GET", with("Upgrade", "h2c"), 426),
        ("GET", with(version, "8"), 426),
        ("GET", with(version, "x"), 426),
        ("GET", without(version), 400),
        ("GET", without("Connection"), 400),
        ("GET", with("Connection", "keep-alive"), 400),
        ("GET", without(key), 400),
        ("GET", with(key, "c2hvcnQ="), 400),
        ("GET", with(key, "dGhlIHNhbXBsZSBub25jZQ"), 400),
        ("GET", with(key, "dGhlIHNhbXBsZSBub25jZSBpcyBsb25n"), 400),
        ("GET", with(key, "!!!!!!!!!!!!!!!!!!!!!!=="), 400),
        ("GET", lines.clone() + "Expect: 200-ok\r\n", 417),
        ("GET", lines.clone() + "Content-Length: 4\r\n", 400),
        ("GET", lines.clone() + "Transfer-Encoding: chunked\r\n", 400),
        ("POST", lines.clone(), 405),
        ("HEAD", lines.clone(), 405),
    ] {
        for target in ["/ws", "/echo"] {
            let answer = server.request(method, target, &headers, b"");
            assert_eq!(answer.status, status, "{method} {headers}");
            if method != "HEAD" {
                let code = answer.error_code();
                let expected = match status {
                    400 => "bad_handshake",
                    405 => "method_not_allowed",
                    417 => "unknown_expectation",
                    _ => "upgrade_required",
                };
                assert_eq!(code, expected, "{method} {headers}");
            }
            assert_eq!(answer.header("Allow"), (status == 405).then_some("GET, OPTIONS"));
            // RFC 6455 section 4.4: which version would have been understood.
            assert_eq!(answer.header(version), (status == 426).then_some("13"));
            assert_eq!(answer.header("Upgrade"), (status == 426).then_some("websocket"));
        }
    }
    assert_eq!(server.request("GET", "/ws", &lines, b"a body").status, 400);
    let old = format!("GET /ws HTTP/1.0\r\n{lines}\r\n");
    assert_eq!(server.respond(old).status, 400);
    // On / there is a page for those who want no WebSocket.
    assert_eq!(server.request("GET", "/", &with("Upgrade", "h2c"), b"").status, 200);
    assert_eq!(server.request("GET", "/", &without(key), b"").status, 400);
    assert_eq!(server.request("GET", "/nothing", &lines, b"").status, 404);
    server.wait_clients(0, 0);
}

/// RFC 6455 section 4.2.2: "an appropriate HTTP error code (such as 404 Not Found)". An event stream
/// would leave the client with a response that never ends.
#[test]
fn where_there_is_no_websocket_the_client_is_told() {
    let server = Server::start(&[]);
    let lines = upgrade_lines();
    for target in
        ["/events", "/events?topic=a", "/publish", "/ticket", "/stats", "/app.js", "/chat"]
    {
        let answer = server.request("GET", target, &lines, b"");
        assert_eq!((answer.status, &*answer.error_code()), (404, "not_found"), "{target}");
        assert!(answer.text().contains("/ws"), "{target}: {}", answer.text());
    }
    // With another method it is no handshake, and who answers may ignore an offer to switch (RFC 9110
    // section 7.8). So it is where a proxy adds the field to every request.
    assert_eq!(server.request("POST", "/publish", &lines, b"").status, 200);
    assert_eq!(server.request("POST", "/events", &lines, b"").status, 405);
    assert_eq!(server.request("POST", "/chat", &lines, b"").status, 404);
    let added = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(server.request("GET", "/healthz", added, b"").status, 200);
    server.wait_clients(0, 0);
}

#[test]
fn only_allowed_pages_may_connect() {
    let flags = ["--allow-origin", "https://app.example", "--allow-origin", "http://b.example:81"];
    let server = Server::start(&flags);
    let open = Server::start(&["--allow-origin", "*"]);
    let sandbox = Server::start(&["--allow-origin", "null"]);
    let (own, other) = (format!("http://{}", server.address), format!("http://{}", open.address));
    for (server, origin, status) in [
        (&server, "", 101),
        (&server, &*own, 101),
        (&server, "https://app.example", 101),
        (&server, "HTTPS://App.Example", 101),
        (&server, "http://b.example:81", 101),
        (&server, "http://app.example", 403),
        (&server, "https://app.example:444", 403),
        (&server, "https://app.example.evil.example", 403),
        (&server, "https://evil.example", 403),
        (&server, &*other, 403),
        (&server, "null", 403),
        (&open, "https://evil.example", 101),
        (&open, "null", 101),
        (&sandbox, "null", 101),
        (&sandbox, "https://app.example", 403),
    ] {
        let line = if origin.is_empty() { "".into() } else { format!("Origin: {origin}\r\n") };
        for target in ["/ws", "/", "/echo"] {
            let answer = upgrade(server, target, &line);
            assert_eq!(answer.status, status, "{origin} on {target}");
            if status == 403 {
                assert_eq!(answer.error_code(), "forbidden_origin");
            }
        }
    }
}

/// The one who reads the log is the one who can mend the proxy.
#[test]
fn a_refused_origin_is_warned_of_once_with_what_mends_it() {
    let server = Server::start(&["--log", "warn"]);
    let refuse = |origin: &str| {
        let answer = upgrade(&server, "/ws", &format!("Origin: {origin}\r\n"));
        assert_eq!(answer.status, 403);
        let post = server.request("POST", "/publish", &format!("Origin: {origin}\r\n"), b"x");
        assert_eq!(post.status, 403);
    };
    for _ in 0..3 {
        refuse("https://pub.example");
        refuse("HTTPS://Pub.example:443/");
    }
    refuse("null");
    wait_for("both warnings", || server.log().lines().count() == 2);
    let log = server.log();
    let host = server.address.to_string();
    for part in ["WARN", "pub.example", &host, "proxy_set_header Host $http_host;"] {
        assert!(log.lines().next().unwrap().contains(part), "{part} is not in {log}");
    }
    // However many there are: bounded.
    for number in 0..200 {
        refuse(&format!("https://{number}.example"));
    }
    refuse("https://last.example");
    let warnings = server.log().lines().count();
    assert!((50..150).contains(&warnings), "{warnings} warnings");
}

#[test]
fn refused_handshakes_are_logged_and_a_flood_of_them_is_not() {
    let flags = ["--subscribe-token", "s3cret", "--max-clients", "1"];
    let server = Server::start(&flags);
    let bearer = "Authorization: Bearer s3cret\r\n";
    let _client = Raw::connect_with(&server, "/ws", bearer, b"");
    for (lines, reason) in [
        ("", "401"),
        ("Authorization: Bearer s3cret\r\nOrigin: https://evil.example\r\n", "403"),
        (bearer, "503"),
    ] {
        let answer = upgrade(&server, "/ws", lines);
        assert_eq!(answer.status.to_string(), reason);
    }
    assert_eq!(upgrade(&server, "/ws?topics=a", bearer).status, 400);
    let no_key = format!("{bearer}Connection: Upgrade\r\nUpgrade: websocket\r\n");
    assert_eq!(server.request("GET", "/ws", &no_key, b"").status, 400);
    let refused = || server.log().matches(" refused with ").count();
    wait_for("five lines", || refused() == 5);
    let log = server.log();
    for part in [
        "refused with 401: reading needs",
        "refused with 403: origin https://evil.example is",
        "refused with 503: ",
        "refused with 400: there is no parameter",
        "refused with 400: Sec-WebSocket-Version is missing",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
    for _ in 0..200 {
        upgrade(&server, "/ws", "");
    }
    assert!(refused() < 100, "{} lines", refused());
}

#[test]
fn what_comes_together_with_the_handshake_is_not_lost() {
    let server = Server::start(&[]);
    let long = vec![b'x'; 20_000];
    let early = [masked(0x81, b"one"), masked(0x81, &long), masked(0x89, b"two")].concat();
    // The last frame is cut in the middle: the rest comes later.
    let (now, later) = early.split_at(early.len() - 4);
    let mut client = Raw::connect_with(&server, "/echo", "", now);
    client.stream.write_all(later).unwrap();
    assert_eq!(client.frame(), Some(text("one")));
    assert_eq!(client.frame(), Some(text(long)));
    assert_eq!(client.frame().unwrap().payload, b"two");
}

/// Some clients do not look at what they read together with the response until more comes.
#[test]
fn the_first_frame_does_not_come_in_one_piece_with_the_response() {
    const TRIES: usize = 20;
    let server = Server::start(&[]);
    for target in ["/ws", "/", "/ws?topic=a"] {
        let is_apart = |_: &usize| {
            let mut stream = server.connect();
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{}\r\n", upgrade_lines());
            stream.write_all(head.as_bytes()).unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            assert!(bytes.starts_with(b"HTTP/1.1 101 "));
            bytes[..count].ends_with(b"\r\n\r\n")
        };
        // A reader that the system wakes late may still find both.
        let apart = (0..TRIES).filter(is_apart).count();
        assert!(apart > TRIES / 2, "{apart} of {TRIES} on {target}");
    }
}
