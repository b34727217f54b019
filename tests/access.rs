//! `--subscribe-token`: who may read, and what the others are told.

mod common;

use common::sse::Sse;
use common::ws::{Raw, upgrade};
use common::{Answer, Folder, Server};

const TOKEN: &str = "s3cret/+=";
const BEARER: &str = "Authorization: Bearer s3cret/+=\r\n";
const COOKIE: &str = "Cookie: theme=dark; threadcast_token=s3cret/+=\r\n";

fn protected(flags: &[&str]) -> Server {
    Server::start(&[flags, &["--subscribe-token", TOKEN]].concat())
}

/// A new ticket.
fn ticket(server: &Server) -> String {
    let answer = server.request("POST", "/ticket", BEARER, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["ticket"].as_str().expect("a ticket").to_owned()
}

fn assert_refused(answer: &Answer, what: &str) {
    assert_eq!((answer.status, &*answer.error_code()), (401, "unauthorized"), "{what}");
    assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"), "{what}");
    assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{what}");
    assert!(!answer.text().contains(TOKEN), "{what}: {}", answer.text());
}

#[test]
fn every_way_in_works() {
    let folder = Folder::new("subscribe-token");
    let file = folder.write("token", "s3cret/+=\n");
    for server in [
        protected(&[]),
        Server::start(&["--subscribe-token-file", file.to_str().unwrap()]),
        Server::start_with_environment(&[("THREADCAST_SUBSCRIBE_TOKEN", TOKEN)], &[]),
    ] {
        for headers in [BEARER, COOKIE, "authorization: bearer s3cret/+=\r\n", ""] {
            let target = |path: &str| match headers {
                "" => format!("{path}?topic=default&ticket={}", ticket(&server)),
                _ => format!("{path}?topic=default"),
            };
            let mut sse = Sse::connect(&server, &target("/events"), headers);
            let mut sockets: Vec<Raw> = ["/ws", "/"]
                .iter()
                .map(|path| Raw::connect_with(&server, &target(path), headers, b""))
                .collect();
            server.publish_id("/publish", "x");
            while sse.event().expect("the event").data.as_deref() != Some("x") {}
            for socket in &mut sockets {
                assert!(socket.frame().is_some(), "the welcome");
                let event = String::from_utf8(socket.frame().unwrap().payload).unwrap();
                assert!(event.contains(r#""data":"x""#), "{event}");
            }
            let mut echo = Raw::connect_with(&server, &target("/echo"), headers, b"");
            echo.send(0x81, b"back");
            assert_eq!(echo.frame().unwrap().payload, b"back");
            for (method, path) in [("GET", "/stats"), ("HEAD", "/stats"), ("HEAD", "/events")] {
                let answer = server.request(method, &target(path), headers, b"");
                assert_eq!(answer.status, 200, "{method} {path} {headers}");
            }
        }
    }
}

#[test]
fn all_others_are_refused() {
    let server = protected(&["--token", "publisher"]);
    for headers in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer s3cret/+\r\n",
        "Authorization: Bearer s3cret/+==\r\n",
        "Authorization: Bearer S3CRET/+=\r\n",
        "Authorization: Bearer publisher\r\n",
        "Authorization: Basic s3cret/+=\r\n",
        "Authorization: s3cret/+=\r\n",
        "Cookie: threadcast_token=wrong\r\n",
        "Cookie: threadcast_token=publisher\r\n",
        "Cookie: token=s3cret/+=\r\n",
        "Cookie: Threadcast_Token=s3cret/+=\r\n",
        "Cookie: threadcast_token=\"s3cret/+=\"\r\n",
        "Cookie: s3cret/+=\r\n",
        "X-Token: s3cret/+=\r\n",
    ] {
        for path in ["/events", "/stats"] {
            assert_refused(&server.request("GET", path, headers, b""), headers);
            let head = server.request("HEAD", path, headers, b"");
            assert_eq!((head.status, head.text()), (401, ""), "{headers}");
        }
        for path in ["/ws", "/", "/echo"] {
            assert_refused(&upgrade(&server, path, headers), headers);
        }
        assert_refused(&server.request("POST", "/ticket", headers, b""), headers);
    }
    // A URL holds a ticket, and never the token.
    for query in [
        "token=s3cret/%2B%3D",
        "subscribe_token=s3cret/%2B%3D",
        "access_token=s3cret/%2B%3D",
        "threadcast_token=s3cret/%2B%3D",
        "ticket=s3cret/%2B%3D",
        "ticket=",
        "ticket",
        "ticket=00000000000000000000000000000000",
    ] {
        for path in ["/events", "/stats"] {
            assert_refused(&server.get(&format!("{path}?{query}")), query);
        }
        for path in ["/ws", "/", "/echo"] {
            assert_refused(&upgrade(&server, &format!("{path}?{query}"), ""), query);
        }
        let answer = server.request("POST", &format!("/ticket?{query}"), "", b"");
        assert_refused(&answer, query);
    }
    // A wrong handshake is not looked at before it is known who asks.
    assert_refused(&server.get("/ws"), "no upgrade");
    let stats = server.request("GET", "/stats", BEARER, b"").json();
    assert_eq!((&stats["clients"]["sse"], &stats["clients"]["websocket"]), (&0.into(), &0.into()));
}

#[test]
fn a_ticket_works_once() {
    let server = protected(&[]);
    for headers in [BEARER, COOKIE] {
        let answer = server.request("POST", "/ticket", headers, b"ignored");
        assert_eq!((answer.status, answer.header("Cache-Control")), (200, Some("no-store")));
        let value = answer.json();
        assert_eq!((&value["expiresInSeconds"], value.as_object().unwrap().len()), (&30.into(), 2));
        let ticket = value["ticket"].as_str().unwrap();
        assert!(ticket.len() == 32 && ticket.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // It gives one reading, no other ticket, and no right to publish.
        assert_refused(&server.request("POST", &format!("/ticket?ticket={ticket}"), "", b""), "");
        let sse = Sse::open(&server, &format!("/events?ticket={ticket}"));
        for path in ["/events", "/stats"] {
            assert_refused(&server.get(&format!("{path}?ticket={ticket}")), "used");
        }
        for path in ["/ws", "/", "/echo"] {
            assert_refused(&upgrade(&server, &format!("{path}?ticket={ticket}"), ""), "used");
        }
        drop(sse);
    }
    // Tickets do not take each other's place.
    let tickets: Vec<String> = (0..20).map(|_| ticket(&server)).collect();
    for ticket in tickets.iter().rev() {
        assert_eq!(server.get(&format!("/stats?ticket={ticket}")).status, 200);
    }
    // A HEAD is a request like any other.
    let target = format!("/events?ticket={}", ticket(&server));
    assert_eq!(server.request("HEAD", &target, "", b"").status, 200);
    assert_refused(&server.get(&target), "used by HEAD");
}

#[test]
fn reading_and_publishing_are_two_rights() {
    let server = protected(&["--token", "publisher"]);
    let answer = server.request("POST", "/publish", BEARER, b"x");
    assert_eq!((answer.status, &*answer.error_code()), (401, "unauthorized"));
    let answer = server.request("POST", "/publish", COOKIE, b"x");
    assert_eq!((answer.status, &*answer.error_code()), (401, "unauthorized"));
    let target = format!("/publish?ticket={}", ticket(&server));
    assert_eq!(server.publish(&target, "x").status, 401);
    let publisher = "Authorization: Bearer publisher\r\n";
    assert_eq!(server.request("POST", "/publish", publisher, b"x").status, 200);
}

#[test]
fn what_holds_nothing_of_any_client_stays_open() {
    let server = protected(&[]);
    let sse = Sse::connect(&server, "/events", BEARER);
    let port = sse.stream().local_addr().unwrap().port().to_string();
    for path in ["/", "/app.js", "/healthz", "/metrics"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let metrics = server.get("/metrics");
    assert!(!metrics.text().contains("127.0.0.1"), "{}", metrics.text());
    let stats = server.request("GET", "/stats", BEARER, b"");
    assert!(stats.text().contains(&port), "what is protected: {}", stats.text());
}

#[test]
fn other_methods_are_refused() {
    for server in [protected(&[]), Server::start(&[])] {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let answer = server.request(method, "/ticket", BEARER, b"");
            assert_eq!((answer.status, answer.header("Allow")), (405, Some("POST, OPTIONS")));
        }
        for path in ["/events", "/stats"] {
            let answer = server.request("POST", path, "", b"");
            assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD, OPTIONS")));
        }
    }
}

#[test]
fn without_the_flag_reading_is_public() {
    let server = Server::start(&["--token", "publisher"]);
    for headers in ["", "Authorization: Bearer publisher\r\n", "Authorization: Bearer wrong\r\n"] {
        let answer = server.request("POST", "/ticket", headers, b"");
        assert_eq!((answer.status, &*answer.error_code()), (404, "not_protected"));
        assert!(answer.text().contains("--subscribe-token"), "{}", answer.text());
        drop(Sse::connect(&server, "/events?ticket=none", headers));
        assert_eq!(upgrade(&server, "/ws?ticket=none", headers).status, 101);
        assert_eq!(server.request("GET", "/stats", headers, b"").status, 200);
    }
}

#[test]
fn tokens_and_tickets_are_not_logged() {
    let server = protected(&["--log", "trace"]);
    let tickets = [ticket(&server), ticket(&server), ticket(&server), ticket(&server)];
    let [first, second, third, unused] = &tickets;
    let mut sse = Sse::open(&server, &format!("/events?ticket={first}"));
    let mut socket = Raw::connect_with(&server, &format!("/ws?ticket={second}"), "", b"");
    let with_bearer = Sse::connect(&server, "/events", BEARER);
    let with_cookie = Raw::connect_with(&server, "/echo", COOKIE, b"");
    server.publish_id("/publish", "x");
    assert!(sse.event().is_some() && socket.frame().is_some());
    let stats = server.get(&format!("/stats?ticket={third}"));
    let metrics = server.get("/metrics");
    for target in ["/events", "/ws", "/stats"] {
        let refused = server.get(&format!("{target}?ticket={first}&token={TOKEN}"));
        assert_refused(&refused, target);
        assert!(!refused.text().contains(first.as_str()));
    }
    // Also a request that is wrong in other ways.
    server.request("GET", &format!("/events?topic=&ticket={unused}"), BEARER, b"");
    upgrade(&server, "/ws", &format!("{BEARER}Sec-WebSocket-Key: twice\r\n"));
    drop((sse, socket, with_bearer, with_cookie));
    server.signal("TERM");
    common::wait_for("the end of the log", || server.log().contains("shutting down"));
    let log = server.log();
    assert!(log.contains("connected"), "{log}");
    for text in [&log, stats.text(), metrics.text()] {
        for secret in tickets.iter().map(String::as_str).chain([TOKEN]) {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }
}

#[test]
fn clients_are_listed_only_where_strangers_cannot_ask() {
    let bearer = "Authorization: Bearer secret\r\n";
    for (flags, headers, listed) in [
        (&["--listen", "127.0.0.1:0"][..], "", 1),
        (&["--listen", "0.0.0.0:0"], "", 0),
        (&["--listen", "0.0.0.0:0", "--token", "secret"], "", 0),
        (&["--listen", "0.0.0.0:0", "--token", "secret"], bearer, 1),
    ] {
        let server = Server::start(flags);
        let _client = Sse::open(&server, "/events");
        let clients = &server.request("GET", "/stats", headers, b"").json()["clients"];
        assert_eq!(clients["sse"], 1);
        assert_eq!(clients["listed"].as_array().unwrap().len(), listed, "{flags:?} {headers}");
    }
}
