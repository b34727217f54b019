//! Clients' addresses behind a proxy: believed of those named by --trust-proxy, and of nobody else.

mod common;

use common::sse::Sse;
use common::ws::{Raw, masked, upgrade_lines};
use common::{Answer, FANOUTS, Server, wait_for};

/// The addresses that `/stats` shows.
fn addresses(server: &Server) -> Vec<String> {
    let stats = server.stats();
    let listed = stats["clients"]["listed"].as_array().unwrap().iter();
    listed.map(|client| client["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_trusted_proxy_names_its_clients() {
    for headers in [
        "X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n",
        "Forwarded: for=1.1.1.1\r\nForwarded: for=192.0.2.7;proto=https\r\n",
        "X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nForwarded: For=\"192.0.2.7\"\r\n",
    ] {
        // Both transports, both ways out, and what is named after a client: its threads.
        for fanout in FANOUTS {
            let server = Server::start(&["--trust-proxy", "127.0.0.0/8", "--fanout", fanout]);
            let sse = Sse::connect(&server, "/events", headers);
            let socket = Raw::connect_with(&server, "/ws?topic=a", headers, b"");
            assert_eq!(addresses(&server), ["192.0.2.7", "192.0.2.7"], "{headers}");
            let tasks = server.tasks();
            for name in ["sse 192.0.2.7", "ws 192.0.2.7"] {
                assert!(tasks.iter().any(|(_, one)| one == name), "{name} is not among {tasks:?}");
            }
            drop((sse, socket));
            wait_for("both to leave", || server.log().matches(" left after ").count() == 2);
            for line in ["sse 192.0.2.7 connected", "websocket 192.0.2.7 left after "] {
                assert!(server.log().contains(line), "{}", server.log());
            }
            assert!(!server.log().contains("1.1.1.1"), "{}", server.log());
        }
    }
}

#[test]
fn nobody_else_does() {
    let header = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n";
    for flags in [&[][..], &["--trust-proxy", "10.0.0.0/8", "--trust-proxy", "::1"]] {
        let server = Server::start(flags);
        let sse = Sse::connect(&server, "/events", header);
        assert_eq!(addresses(&server), [sse.stream().local_addr().unwrap().to_string()]);
        assert!(!server.log().contains("192.0.2.7"), "{}", server.log());
    }
}

#[test]
fn what_cannot_be_read_leaves_the_proxys_address() {
    let server = Server::start_with_environment(
        &[("THREADCAST_TRUST_PROXY", "10.0.0.0/8,127.0.0.1")],
        &["--log", "trace"],
    );
    for header in [
        "Forwarded: for=unknown",
        "Forwarded: for=_hidden;by=_me",
        "Forwarded: for=\", for=192.0.2.7",
        "X-Forwarded-For: 192.0.2.7, %1b[31m",
        "X-Forwarded-For: 192.0.2.7, ' OR 1=1",
        "X-Forwarded-For:",
    ] {
        let sse = Sse::connect(&server, "/events", &format!("{header}\r\n"));
        let own = sse.stream().local_addr().unwrap().to_string();
        assert_eq!(addresses(&server), [own], "{header}");
        drop(sse);
        server.wait_clients(0, 0);
    }
    assert!(!server.log().contains("31m") && !server.log().contains("OR"), "{}", server.log());
}

#[test]
fn the_limit_for_an_address_counts_clients_not_the_proxy() {
    let flags = ["--trust-proxy", "127.0.0.1", "--max-clients-per-ip", "1"];
    let server = Server::start(&flags);
    let from = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let first = Sse::connect(&server, "/events", &from("192.0.2.1"));
    let _second = Sse::connect(&server, "/events", &from("192.0.2.2"));
    // Whatever the client has put in front of what the proxy says, it stays the same client.
    for client in ["192.0.2.1", "192.0.2.1:99", "198.51.100.1, 192.0.2.1", "::ffff:192.0.2.1"] {
        let answer = server.request("GET", "/events", &from(client), b"");
        assert_eq!((answer.status, &*answer.error_code()), (503, "address_full"), "{client}");
        let head =
            format!("GET /ws HTTP/1.1\r\nHost: x\r\n{}{}\r\n", upgrade_lines(), from(client));
        assert_eq!(Answer::parse(&server.exchange(head.as_bytes())).status, 503);
    }
    drop(first);
    server.wait_clients(1, 0);
    drop(Sse::connect(&server, "/events", &from("192.0.2.1")));
}

/// Who may publish is decided by the address that the server listens on.
#[test]
fn a_named_address_gives_no_right() {
    let trust = ["--trust-proxy", "0.0.0.0/0,::/0"];
    let open = Server::start(&trust);
    let closed = Server::start(&[&trust[..], &["--listen", "0.0.0.0:0"]].concat());
    for client in ["127.0.0.1", "192.0.2.7"] {
        let header = format!("Forwarded: for={client}\r\nX-Forwarded-For: {client}\r\n");
        let publish = |server: &Server| server.request("POST", "/publish", &header, b"x").status;
        assert_eq!((publish(&open), publish(&closed)), (200, 403), "{client}");
    }
}

/// Behind a proxy that puts its own name in for the host, as nginx does without
/// `proxy_set_header Host`, the page's origin is compared with the host that the proxy names.
#[test]
fn the_host_that_a_trusted_proxy_names_is_the_servers_own() {
    let trusting = Server::start(&["--trust-proxy", "127.0.0.0/8,10.0.0.0/8"]);
    let plain = Server::start(&[]);
    let status = |server: &Server, headers: &str| {
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: backend\r\n{}Origin: https://pub.example\r\n{headers}\r\n",
            upgrade_lines()
        );
        let closing = [head.as_bytes(), &masked(0x88, b"")].concat();
        Answer::parse(&server.exchange(&closing)).status
    };
    for headers in [
        "X-Forwarded-Host: pub.example\r\n",
        "X-Forwarded-Host: Pub.example:443\r\n",
        "X-Forwarded-Host: evil.example, pub.example\r\n",
        "X-Forwarded-Host: evil.example\r\nX-Forwarded-Host: pub.example\r\n",
        "Forwarded: for=192.0.2.7;host=pub.example\r\n",
        "Forwarded: host=evil.example, for=192.0.2.7;host=\"pub.example:443\";proto=https\r\n",
        // Two proxies: the outer one has seen the client, and the host that the client used.
        "Forwarded: for=192.0.2.7;host=pub.example, for=10.0.0.2;host=inner\r\n",
        "X-Forwarded-Host: pub.example, inner\r\nX-Forwarded-For: 192.0.2.7, 10.0.0.2\r\n",
        "X-Forwarded-Host: pub.example\r\nX-Forwarded-For: 192.0.2.7, 10.0.0.2\r\n",
        "X-Forwarded-Host: pub.example\r\nForwarded: host=pub.example\r\n",
        "X-Forwarded-Host: pub.example,\r\nX-Forwarded-Host:\r\n",
    ] {
        assert_eq!((status(&trusting, headers), status(&plain, headers)), (101, 403), "{headers}");
    }
    for headers in [
        "",
        "X-Forwarded-Host:\r\n",
        "X-Forwarded-Host: pub.example, other.example\r\n",
        "X-Forwarded-Host: pub.example.evil.example\r\n",
        "Forwarded: for=192.0.2.7;host=pub.example, for=192.0.2.8\r\n",
        "Forwarded: host=pub.example;host=pub.example\r\n",
        // One of the two may be what the client has sent.
        "X-Forwarded-Host: pub.example\r\nForwarded: host=other.example\r\n",
    ] {
        assert_eq!(status(&trusting, headers), 403, "{headers}");
    }
}
