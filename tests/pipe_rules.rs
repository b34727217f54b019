//! The rules of the pipe to tiny_http, one by one: what is written in a wrong moment, by a wrong
//! hand, or read by nobody.

mod common;

use std::time::Duration;

use common::PATIENCE;
use common::http::{Http, connect_here, get, start_here};
use threadcast::door::head::Scanner;
use threadcast::http::head::Head;
use threadcast::listener::pipe::{self, Pipe};

fn head(target: &str) -> Head {
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let taken = Scanner::default().take(&mut bytes.into_bytes(), 1000);
    taken.expect("a good head").expect("a whole one")
}

/// The tickets and targets that come out, until nothing does for a while.
fn receive(pipe: &Pipe, most: usize) -> Vec<(u64, String)> {
    let mut received = Vec::new();
    let mut patience = PATIENCE;
    while received.len() < most {
        match pipe.server.recv_timeout(patience) {
            Ok(Some(request)) => {
                received.push((pipe.ticket(&request).unwrap_or(0), request.url().to_owned()));
                pipe::discard(request);
            }
            // tiny_http's accept thread has ended, as it should.
            Err(_) => {}
            Ok(None) => break,
        }
        patience = Duration::from_millis(500);
    }
    received
}

#[test]
fn a_pipe_is_made_when_its_probe_has_come_back() {
    let pipe = Pipe::open().expect("a pipe");
    pipe.write(pipe::encode(&head("/a?b"), 8).as_bytes()).unwrap();
    assert_eq!(receive(&pipe, 1), [(8, "/a?b".to_owned())], "the probe does not come out again");
}

#[test]
fn heads_wait_while_nobody_receives() {
    const MANY: u64 = 20_000;
    let pipe = Pipe::open().unwrap();
    let long = format!("/{}", "x".repeat(200));
    for ticket in 1..=MANY {
        pipe.write(pipe::encode(&head(&long), ticket).as_bytes()).expect("tiny_http reads ahead");
    }
    let received = receive(&pipe, MANY as usize);
    assert!(received.iter().map(|(ticket, _)| *ticket).eq(1..=MANY), "all of them, in order");
}

#[test]
fn heads_behind_a_break_vanish() {
    let pipe = Pipe::open().unwrap();
    for ticket in 1..=5 {
        pipe.write(pipe::encode(&head("/"), ticket).as_bytes()).unwrap();
    }
    let _ = pipe.write(b"this is no head\r\n\r\n");
    for ticket in 6..=10 {
        let _ = pipe.write(pipe::encode(&head("/"), ticket).as_bytes());
    }
    let received = receive(&pipe, 10);
    assert!(received.iter().all(|(ticket, _)| (1..=5).contains(ticket)), "{received:?}");
    let is_seen = || pipe.write_now(b"GET / HTTP/1.1\r\n\r\n").is_err();
    common::wait_for("the writer to be told", is_seen);
}

#[test]
fn in_the_middle_of_ten_requests_a_break_loses_none() {
    let server = start_here();
    for round in 1..=5_u64 {
        let mut askers: Vec<Http> = (0..10).map(|_| connect_here(&server)).collect();
        for (number, asker) in askers.iter_mut().enumerate() {
            if number == 5 {
                server.write_to_pipe(b"GET / HTTP/2.0\r\n\r\n");
            }
            asker.send(get("/healthz", ""));
        }
        for (number, asker) in askers.iter_mut().enumerate() {
            let status = asker.response().status;
            assert!(
                matches!(status, 200 | 500 | 503),
                "request {number} of round {round}: {status}"
            );
        }
        common::wait_for("a new pipe", || {
            connect_here(&server).ask(get("/healthz", "")).status == 200
        });
        let stats = connect_here(&server).ask(get("/stats", "")).json();
        assert_eq!(stats["listener"]["restarts"], round, "{stats}");
    }
}

#[test]
fn a_forged_ticket_gets_nothing() {
    let server = start_here();
    let mut kept = connect_here(&server);
    for ticket in ["@: 0", "@: 1", "@: 18446744073709551615", "@: x", "@:", "X: 1", "@: -1"] {
        server.write_to_pipe(format!("POST /publish HTTP/1.1\r\n{ticket}\r\n\r\n").as_bytes());
        assert_eq!(kept.ask(get("/healthz", "")).status, 200, "{ticket}");
    }
    let stats = kept.ask(get("/stats", "")).json();
    assert_eq!(
        (&stats["listener"]["restarts"], &stats["fanOut"]["events"]),
        (&0.into(), &0.into())
    );
}
