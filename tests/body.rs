//! The body of a request: how it may be framed, how long it may be and take, and that one which did
//! not come whole goes nowhere.

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::http::{Http, POST};
use common::sse::Sse;
use common::{Answer, Server};

const H2C: &str = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n";

#[test]
fn bodies_may_be_chunked_or_announced() {
    let server = Server::start(&["--max-message", "2000"]);
    let mut sse = Sse::open(&server, "/events");
    let most = "x".repeat(2000);
    for (request, data) in [
        (format!("{POST}Content-Length: 2000\r\n\r\n{most}"), &*most),
        (format!("{POST}Content-Length: 0\r\n\r\n"), ""),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\n7d0\r\n{most}\r\n0\r\n\r\n"), &most),
        (
            format!(
                "{POST}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n4;x=y\r\n two\r\n0\r\n\r\n"
            ),
            "one two",
        ),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), ""),
        (
            format!(
                "{POST}Transfer-Encoding: Chunked\r\n\r\n00a;a=b;c=\"d\"\r\n0123456789\r\n0;e\r\n\
                 Trailer: one\r\nAnother: two\r\n\r\n"
            ),
            "0123456789",
        ),
        // Some clients offer another protocol with every request.
        (format!("{POST}{H2C}Content-Length: 1\r\n\r\nx"), "x"),
        (format!("{POST}{H2C}Transfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n"), "y"),
    ] {
        let answer = server.respond(&request);
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        assert_eq!(sse.event().unwrap().data.as_deref(), Some(data), "{request}");
    }
}

#[test]
fn bodies_that_are_too_long_or_no_text_are_refused() {
    let server = Server::start(&["--max-message", "1000"]);
    let mut sse = Sse::open(&server, "/events");
    let long = "x".repeat(1001);
    let half = "x".repeat(600);
    for (request, status, code) in [
        (format!("{POST}Content-Length: 1001\r\n\r\n{long}"), 413, "too_large"),
        (format!("{POST}Content-Length: 100000000\r\n\r\nx"), 413, "too_large"),
        (
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n3e9\r\n{long}\r\n0\r\n\r\n"),
            413,
            "too_large",
        ),
        (
            format!(
                "{POST}Transfer-Encoding: chunked\r\n\r\n258\r\n{half}\r\n258\r\n{half}\r\n0\r\n\r\n"
            ),
            413,
            "too_large",
        ),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\n3e9\r\n"), 413, "too_large"),
        (format!("{POST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"), 413, "too_large"),
    ] {
        let answer = server.respond(&request);
        assert_eq!((answer.status, &*answer.error_code()), (status, code), "{request}");
        sse.expect_nothing(&server, &request);
    }
    for body in [&b"\xff"[..], b"gr\xfc\xdfe", b"\xf0\x9f\xa6", b"\xed\xa0\x80"] {
        for headers in ["", "Content-Type: application/x-ndjson\r\n"] {
            let answer = server.request("POST", "/publish", headers, body);
            assert_eq!((answer.status, &*answer.error_code()), (400, "not_utf8"));
        }
    }
    sse.expect_nothing(&server, "what is not UTF-8");
}

/// However the bytes come, they are the same body, and what follows it is the next request.
#[test]
fn a_body_in_pieces_is_the_same() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    for (framing, data) in [
        ("Content-Length: 7\r\n\r\none two", "one two"),
        (
            "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n04;x=\"y\"\r\n two\r\n0;z\r\nT: t\r\n\r\n",
            "one two",
        ),
    ] {
        let mut http = Http::connect(&server);
        let (head, body) = framing.split_at(framing.find("\r\n\r\n").unwrap() + 4);
        http.send(format!("{POST}{head}"));
        for byte in body.bytes() {
            // Long enough that most bytes are read one by one.
            std::thread::sleep(Duration::from_millis(10));
            http.send([byte]);
        }
        http.send(format!("\r\n{}", common::http::post("next")));
        assert_eq!((http.response().status, http.response().status), (200, 200), "{framing}");
        assert_eq!(sse.event().unwrap().data.as_deref(), Some(data), "{framing}");
        assert_eq!(sse.event().unwrap().data.as_deref(), Some("next"), "{framing}");
    }
}

/// A chunk's size is hexadecimal digits, and every line ends in CR LF: what another server might read
/// in another way is not read at all.
#[test]
fn chunks_that_are_malformed_are_refused() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    for chunks in [
        "zz\r\nx\r\n0\r\n\r\n",
        "1\r\nxyz\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t;a\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nTrailer: a\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "-0\r\n\r\n",
        "0\r\nno field\r\n\r\n",
        "0\r\nT: \u{1}\r\n\r\n",
    ] {
        let answer = server.respond(format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}"));
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_body"), "{chunks:?}");
        sse.expect_nothing(&server, chunks);
    }
}

/// RFC 9112 section 6.3: where a length cannot be trusted, neither can the body.
#[test]
fn a_length_that_is_none_is_refused() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    for lines in [
        "Content-Length: abc",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 0x1",
        "Content-Length: 1,1",
        "Content-Length: 1 1",
        "Content-Length: 1;",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length: 1\r\nContent-Length: 2",
    ] {
        let request = format!("{POST}{lines}\r\n\r\nx");
        let answer = server.respond(&request);
        assert!([400, 413].contains(&answer.status), "{} for {lines}", answer.status);
        sse.expect_nothing(&server, lines);
    }
}

#[test]
fn a_body_that_is_cut_short_is_not_published() {
    let server = Server::start(&[]);
    let mut sse = Sse::open(&server, "/events");
    let long = "x".repeat(1500);
    let framings = [
        "Content-Length: 10\r\n\r\nshort".to_owned(),
        format!("Content-Length: 3000\r\n\r\n{long}"),
        "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\na\r\nshort".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n5\r\nwhole".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n".to_owned(),
    ];
    for framing in framings {
        let answer = server.respond(format!("{POST}{framing}"));
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_body"), "{framing}");
    }
    sse.expect_nothing(&server, "a body that was cut short");
}

/// However the body is framed, the time for it ends.
#[test]
fn a_body_that_trickles_is_given_up() {
    let server = Server::start(&["--header-timeout", "1s"]);
    let mut sse = Sse::open(&server, "/events");
    std::thread::scope(|scope| {
        for framing in [
            "Content-Length: 5000\r\n\r\n",
            "Content-Length: 500\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1388\r\n",
        ] {
            let mut stream = server.connect();
            write!(stream, "{POST}{framing}").unwrap();
            let mut sender = stream.try_clone().unwrap();
            // Ends with an error, when the server has closed.
            scope.spawn(move || {
                while sender.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            scope.spawn(move || {
                let mut answer = Vec::new();
                // A byte that comes after the server has closed resets the connection.
                let _ = stream.read_to_end(&mut answer);
                let answer = Answer::parse(&answer);
                assert_eq!(answer.status, 408, "{framing}: {}", answer.text());
                assert_eq!(answer.error_code(), "timeout");
            });
        }
    });
    sse.expect_nothing(&server, "a body that did not come whole");
}

/// RFC 9112 section 9.6: who is still sending must not be reset before the response is read.
#[test]
fn whoever_sends_the_whole_body_first_sees_that_it_was_too_long() {
    let server = Server::start(&["--max-message", "1048576"]);
    let body = vec![b'x'; 8 << 20];
    for round in 0..50 {
        let framing = match round % 2 {
            0 => format!("Content-Length: {}\r\n\r\n", body.len()),
            _ => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()),
        };
        let mut http = Http::connect(&server);
        http.send(format!("{POST}{framing}"));
        http.send(&body);
        let answer = http.response();
        assert_eq!((answer.status, &*answer.error_code()), (413, "too_large"), "{round}");
        http.expect_end();
    }
}

/// RFC 9110 section 10.1.1.
#[test]
fn a_client_that_expects_100_continue_gets_it_where_the_body_is_wanted() {
    let server = Server::start(&["--max-message", "5000", "--token", "t"]);
    let post = format!("{POST}Authorization: Bearer t\r\nExpect: 100-continue\r\n");
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut http = Http::connect(&server);
    for (framing, body) in [
        ("Content-Length: 5", "hello".to_owned()),
        ("Content-Length: 5000", "x".repeat(5000)),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n".to_owned()),
    ] {
        http.send(format!("{post}{framing}\r\n\r\n"));
        let mut bytes = [0; 25];
        http.stream().read_exact(&mut bytes).expect("an interim response");
        assert_eq!(bytes.escape_ascii().to_string(), interim.escape_ascii().to_string());
        // What follows it is the response to the body, and nothing before that.
        assert_eq!(http.ask(body).status, 200, "{framing}");
    }
    // Who has sent the body already does not wait.
    assert_eq!(http.ask(format!("{post}Content-Length: 1\r\n\r\nx")).status, 200);

    let bare = "HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let old = post.replace("HTTP/1.1", "HTTP/1.0");
    for (head, body, status) in [
        (format!("{post}Content-Length: 5001\r\n\r\n"), "", 413),
        (format!("POST /publish {bare}"), "", 401),
        (format!("POST /nothing {bare}"), "", 404),
        (format!("PUT / {bare}"), "", 405),
        (format!("GET /healthz {bare}"), "", 200),
        (format!("{post}Expect: 200-ok\r\nContent-Length: 5\r\n\r\n"), "", 417),
        (post.replace("100-continue", "x") + "Content-Length: 5\r\n\r\n", "", 417),
        (format!("{old}Content-Length: 5\r\n\r\n"), "hello", 200),
        (old.replace("100-continue", "x") + "Content-Length: 5\r\n\r\n", "hello", 200),
    ] {
        let mut http = Http::connect(&server);
        http.send(&head);
        if !body.is_empty() {
            // Where 100 would come, it is here before the body is sent.
            http.stream().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert!(http.stream().peek(&mut [0]).is_err(), "{head}: a response without a body");
            http.stream().set_read_timeout(Some(common::PATIENCE)).unwrap();
            http.send(body);
        }
        assert_eq!(http.response().status, status, "{head}");
        http.stream().shutdown(std::net::Shutdown::Write).unwrap();
        http.expect_end();
    }
}
