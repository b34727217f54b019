//! The body of a request: how it may be framed, how long it may be and take, and that one which did
//! not come whole goes nowhere.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use common::sse::Sse;
use common::{Answer, Server};

/// The beginning of a request whose body framing the test chooses.
const HEAD: &str = "POST /publish HTTP/1.1\r\nHost: x\r\n";

/// Sends a request, ends the sending side, and returns all that comes back.
fn send_and_close(server: &Server, request: &str) -> Vec<u8> {
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server closes");
    answer
}

#[test]
fn bodies_may_be_chunked_or_announced() {
    let server = Server::start(&["--max-message", "2000"]);
    let mut sse = Sse::open(&server, "/events");
    let most = "x".repeat(2000);
    for (request, data) in [
        (format!("{HEAD}Content-Length: 2000\r\n\r\n{most}"), &*most),
        (format!("{HEAD}Content-Length: 0\r\n\r\n"), ""),
        (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n7d0\r\n{most}\r\n0\r\n\r\n"), &most),
        (
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n4;x=y\r\n two\r\n0\r\n\r\n"
            ),
            "one two",
        ),
        (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), ""),
        // Some clients offer another protocol with every request.
        (format!("{HEAD}Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx"), "x"),
    ] {
        let answer = Answer::parse(&server.exchange(request.as_bytes()));
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        assert_eq!(sse.event().unwrap().data.as_deref(), Some(data), "{request}");
    }
}

#[test]
fn a_client_that_expects_100_continue_gets_it_where_the_body_is_wanted() {
    let server = Server::start(&["--max-message", "5000"]);
    for length in [5, 5000] {
        let head = format!("{HEAD}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut interim = Vec::new();
        while !interim.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an interim answer");
            interim.push(byte[0]);
        }
        assert_eq!(Answer::parse(&interim).status, 100);
        stream.write_all(&vec![b'x'; length]).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(Answer::parse(&answer).status, 200);
    }
    let head = format!("{HEAD}Expect: 100-continue\r\nContent-Length: 5001\r\n\r\n");
    assert_eq!(Answer::parse(&server.exchange(head.as_bytes())).status, 413);
}

#[test]
fn bodies_that_are_too_long_or_no_text_are_refused() {
    let server = Server::start(&["--max-message", "1000"]);
    let mut sse = Sse::open(&server, "/events");
    let long = "x".repeat(1001);
    let half = "x".repeat(600);
    for (request, status, code) in [
        (format!("{HEAD}Content-Length: 1001\r\n\r\n{long}"), 413, "too_large"),
        (format!("{HEAD}Content-Length: 100000000\r\n\r\nx"), 413, "too_large"),
        (
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n3e9\r\n{long}\r\n0\r\n\r\n"),
            413,
            "too_large",
        ),
        (
            format!(
                "{HEAD}Transfer-Encoding: chunked\r\n\r\n258\r\n{half}\r\n258\r\n{half}\r\n0\r\n\r\n"
            ),
            413,
            "too_large",
        ),
        (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n"), 400, "bad_body"),
        (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n"), 400, "bad_body"),
    ] {
        let answer = Answer::parse(&server.exchange(request.as_bytes()));
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
        "Content-Length: 18446744073709551616",
        "Content-Length: 1\r\nContent-Length: 2",
    ] {
        let request = format!("{HEAD}{lines}\r\n\r\nx");
        let answer = Answer::parse(&server.exchange(request.as_bytes()));
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
    let accepted = framings.iter().filter(|framing| {
        let answer = send_and_close(&server, &format!("{HEAD}{framing}"));
        // A short one is read by tiny_http, which closes without a word.
        !answer.is_empty() && Answer::parse(&answer).status != 400
    });
    assert_eq!(accepted.collect::<Vec<_>>(), Vec::<&String>::new());
    sse.expect_nothing(&server, "a body that was cut short");
}

/// However the body is framed, and whoever reads it: the time for it ends.
#[test]
fn a_body_that_trickles_is_given_up() {
    let server = Server::start(&["--header-timeout", "1s"]);
    let mut sse = Sse::open(&server, "/events");
    std::thread::scope(|scope| {
        for framing in [
            "Content-Length: 5000\r\n\r\n",
            // Short enough that tiny_http reads it, before there is a request.
            "Content-Length: 500\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1388\r\n",
        ] {
            let mut stream = server.connect();
            write!(stream, "{HEAD}{framing}").unwrap();
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
