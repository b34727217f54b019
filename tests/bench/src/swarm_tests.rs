//! Tests of the event loop against small servers in threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::*;
use crate::ledger::Ledger;
use crate::stamp::Stamp;
use crate::target::Transport;

/// Accepts one connection per answer, reads the request and sends the answer in two pieces.
fn serve(answers: Vec<Vec<u8>>) -> (SocketAddr, thread::JoinHandle<Vec<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let accept = move |answer: Vec<u8>| {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).expect("request") > 0);
        let (first, second) = answer.split_at(answer.len() / 2);
        stream.write_all(first).expect("answer");
        thread::sleep(Duration::from_millis(5));
        stream.write_all(second).expect("answer");
        stream
    };
    (address, thread::spawn(move || answers.into_iter().map(accept).collect()))
}

fn event(sequence: u32) -> String {
    let mut body = Vec::new();
    Stamp { planned: 0, sequence, run: 5 }.write(40, &mut body);
    String::from_utf8(body).expect("ASCII")
}

fn swarm(address: SocketAddr, endpoint: Endpoint) -> Swarm {
    Swarm::new(Target::local(address), endpoint, Some("t")).expect("event loop")
}

#[test]
fn plain_and_chunked_streams_are_read_and_their_end_is_noticed() {
    let body = format!("data: {}\n\ndata: {}\n\n", event(0), event(1));
    let plain = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    let (address, server) = serve(vec![plain.into_bytes(), chunked.into_bytes()]);
    let mut swarm = swarm(address, Endpoint::Events(Transport::Sse));
    let mut ledger = Ledger::new(5, 2, 2);
    for index in 0..2 {
        swarm.start_one().expect("connect");
        while swarm.welcomes.len() <= index {
            swarm.pump(Duration::from_secs(1), &mut ledger).expect("poll");
        }
    }
    while ledger.delivered < 4 {
        swarm.pump(Duration::from_secs(1), &mut ledger).expect("poll");
    }
    assert_eq!((ledger.duplicates, ledger.out_of_order), (0, 0));
    assert_eq!(swarm.connected(), 2);
    drop(server.join().expect("server"));
    while swarm.closed < 2 {
        swarm.pump(Duration::from_secs(1), &mut ledger).expect("poll");
    }
    assert_eq!(swarm.first_loss.as_deref(), Some("the server closed the connection"));
}

#[test]
fn a_refusal_is_one_line_with_advice() {
    let (address, server) = serve(vec![b"HTTP/1.1 503 Busy\r\n\r\n".to_vec()]);
    let error = swarm(address, Endpoint::Echo).connect(1, 1).expect_err("refused").to_string();
    assert!(error.contains("answered 503") && error.lines().count() == 1, "{error}");
    drop(server.join().expect("server"));
    let error = swarm(address, Endpoint::Echo).connect(1, 1).expect_err("nobody").to_string();
    assert!(error.contains("cannot connect"), "{error}");
}

#[test]
fn a_wrong_accept_key_is_refused() {
    let answer = b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: x\r\n\r\n".to_vec();
    let (address, _server) = serve(vec![answer]);
    let error = swarm(address, Endpoint::Echo).connect(1, 1).expect_err("refused").to_string();
    assert!(error.contains("Sec-WebSocket-Accept"), "{error}");
}

#[test]
fn a_client_can_come_from_another_loopback_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let target = Target::local(listener.local_addr().expect("address"));
    let source = Ipv4Addr::new(127, 0, 0, 9);
    let client =
        Connection::open(&target, Endpoint::Echo, None, None, Some(source)).expect("connect");
    let (_, peer) = listener.accept().expect("accept");
    assert_eq!(peer.ip(), IpAddr::V4(source));
    drop(client);
}

#[test]
fn source_addresses_change_before_the_ports_run_out() {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(source_address(0, loopback, 20_000), None);
    assert_eq!(source_address(19_999, loopback, 20_000), None);
    assert_eq!(source_address(20_000, loopback, 20_000), Some(Ipv4Addr::new(127, 0, 0, 2)));
    assert_eq!(source_address(45_000, loopback, 20_000), Some(Ipv4Addr::new(127, 0, 0, 3)));
    let remote = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(source_address(45_000, remote, 20_000), None);
}
