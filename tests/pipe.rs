//! The pipe to tiny_http: that it breaks costs at most the requests that are in it, and it needs no
//! directory.

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::http::{connect_here, get, post, start_here};
use common::sse::Sse;
use common::{PATIENCE, Server, wait_for};

fn restarts(server: &threadcast::Server) -> u64 {
    let stats = connect_here(server).ask(get("/stats", "")).json();
    stats["listener"]["restarts"].as_u64().expect("a number")
}

#[test]
fn a_broken_pipe_is_replaced() {
    let server = start_here();
    let mut kept = connect_here(&server);
    let mut stream = connect_here(&server);
    stream.send(get("/events", ""));
    assert_eq!(stream.head().status, 200);
    for round in 1..=5 {
        assert_eq!(kept.ask(post("before")).status, 200);
        server.break_pipe();
        wait_for("a new pipe", || {
            let status = connect_here(&server).ask(get("/healthz", "")).status;
            assert!([200, 500, 503].contains(&status), "{status}");
            status == 200
        });
        assert_eq!(kept.ask(post("after")).status, 200);
        assert_eq!(restarts(&server), round);
    }
    let metrics = connect_here(&server).ask(get("/metrics", ""));
    assert!(metrics.text().contains("threadcast_pipe_restarts_total 5\n"), "{}", metrics.text());
    // A client has nothing to do with it.
    stream.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(server.shutdown());
    let events = String::from_utf8(stream.rest()).unwrap();
    assert_eq!(
        (events.matches("data: before").count(), events.matches("data: after").count()),
        (5, 5)
    );
}

#[test]
fn while_the_pipe_breaks_every_request_is_answered() {
    let server = start_here();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..4)
            .map(|number| {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let (mut good, mut refused) = (0, 0);
                    let mut http = connect_here(server);
                    while !is_over.load(Ordering::SeqCst) {
                        // Half of them come on a new connection each time.
                        if number % 2 == 0 {
                            http = connect_here(server);
                        }
                        let answer = http.ask(get("/healthz", ""));
                        match answer.status {
                            200 => good += 1,
                            500 | 503 => {
                                assert!(
                                    ["internal", "overloaded"].contains(&&*answer.error_code())
                                );
                                refused += 1;
                                http.expect_end();
                                http = connect_here(server);
                            }
                            other => panic!("{other}"),
                        }
                    }
                    (good, refused)
                })
            })
            .collect();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(50));
            server.break_pipe();
        }
        is_over.store(true, Ordering::SeqCst);
        for asker in askers {
            let (good, refused) = asker.join().expect("no request is lost");
            assert!(good > 100, "{good} good ones, {refused} refused");
        }
    });
    wait_for("the last new pipe", || connect_here(&server).ask(get("/healthz", "")).status == 200);
    assert!(restarts(&server) >= 5);
}

/// The local ports of this process's sockets on loopback, but for one. (The system's table may show a
/// socket twice while others come and go.)
#[cfg(target_os = "linux")]
fn inner_ports(pid: u32, except: u16) -> BTreeSet<u16> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = descriptors
        .filter_map(|one| std::fs::read_link(one.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let ports = table.lines().skip(1).filter_map(|line| {
        // Number, local address, remote address, state, queues, timer, resends, user, timeout, inode.
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words[1].split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let is_own = sockets.contains(&format!("socket:[{}]", words[9]));
        (is_own && port != except && address == "0100007F").then_some(port)
    });
    ports.collect()
}

#[test]
fn where_no_directory_can_be_made_the_pipe_is_a_port_that_nobody_else_reaches() {
    for folder in ["/nonexistent", "/dev/null"] {
        let server = Server::start_with_environment(&[("TMPDIR", folder)], &[]);
        let mut sse = Sse::open(&server, "/events");
        let mut socket = common::ws::open(&server, "/ws?topic=*");
        let id = server.publish_id("/publish", "x");
        assert_eq!(sse.event().unwrap().id.as_ref(), Some(&id));
        assert_eq!(common::ws::json(&mut socket)["id"], *id);
        #[cfg(target_os = "linux")]
        {
            let ports = inner_ports(server.pid(), server.address.port());
            assert_eq!(ports.len(), 2, "both ends of the pipe: {ports:?}");
            for port in ports {
                let stranger = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
                assert_eq!(stranger.map(drop).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            }
        }
        for _ in 0..50 {
            assert_eq!(server.get("/healthz").status, 200);
        }
        assert_eq!(server.stats()["listener"]["restarts"], 0);
    }
}

#[test]
fn no_directory_is_left_behind() {
    let folder = common::Folder::new("pipe");
    let path = folder.path.to_str().unwrap();
    let mut server = Server::start_with_environment(&[("TMPDIR", path)], &[]);
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 0);
    server.signal("TERM");
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 0);
}
