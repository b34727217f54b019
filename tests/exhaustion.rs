//! What happens while the pipe to tiny_http cannot be made anew: no descriptors, no threads. One
//! test, in a process of its own: the limits are the whole process's.

mod common;

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use common::http::{Http, get};
use common::{PATIENCE, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use threadcast::Config;

fn set_limit(resource: Resource, limit: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: limit.or(maximum), maximum }).expect("a lower limit");
}

/// Asks on a connection that is there, until the answer is this one.
fn ask_until(kept: &mut Vec<Http>, status: u16) {
    wait_for("the answer", || {
        let mut http = kept.pop().expect("enough connections");
        let got = http.ask(get("/healthz", "")).status;
        assert!([200, 500, 503].contains(&got), "{got}");
        if got == 200 {
            kept.push(http);
        }
        got == status
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_pipe_that_cannot_be_made_is_made_later() {
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let config = Config { listen, tick: Duration::ZERO, ..Config::default() };
    let server = threadcast::Server::start(config).expect("the server starts");
    for exhausted in ["descriptors", "threads"] {
        // On each of them a thread waits already.
        let mut kept: Vec<Http> = (0..8)
            .map(|_| {
                let stream = TcpStream::connect(server.address()).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut http = Http::on(stream);
                assert_eq!(http.ask(get("/healthz", "")).status, 200);
                http
            })
            .collect();
        let mut taken = Vec::new();
        match exhausted {
            "descriptors" => {
                set_limit(Resource::Nofile, Some(100));
                taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
            }
            _ => {
                // Too little address space for a stack of tiny_http's, of 2 MiB.
                let status = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
                set_limit(Resource::As, Some(pages * 4096 + (1 << 20)));
            }
        }
        server.break_pipe();
        ask_until(&mut kept, 503);
        drop(taken);
        set_limit(Resource::Nofile, None);
        set_limit(Resource::As, None);
        ask_until(&mut kept, 200);
    }
}
