//! What happens while the pipe to tiny_http cannot be made anew: no descriptors, no threads. One
//! test, in a process of its own: the limits are the whole process's.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::{Read, Write};

use common::http::{Http, connect_here, get, start_here};
use common::{Answer, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn set_limit(resource: Resource, limit: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: limit.or(maximum), maximum }).expect("a lower limit");
}

/// Takes all that there is. What the server gives up later must be taken again.
fn exhaust(what: &str, taken: &mut Vec<File>) {
    match what {
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
}

/// The status of the response on a kept connection; `None` where it was closed to make room.
fn ask(http: Http) -> Option<u16> {
    let mut stream = http.stream();
    stream.write_all(get("/healthz", "Connection: close\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    (!answer.is_empty()).then(|| Answer::parse(&answer).status)
}

#[test]
fn a_pipe_that_cannot_be_made_is_made_later() {
    let server = start_here();
    for what in ["descriptors", "threads"] {
        // For each of them there are a descriptor and a thread already.
        let mut kept: Vec<Http> = (0..20)
            .map(|_| {
                let mut http = connect_here(&server);
                assert_eq!(http.ask(get("/healthz", "")).status, 200);
                http
            })
            .collect();
        let mut taken = Vec::new();
        exhaust(what, &mut taken);
        let mut statuses = Vec::new();
        while !statuses.contains(&Some(503)) {
            server.break_pipe();
            exhaust(what, &mut taken);
            statuses.push(ask(kept.pop().expect("one that is told 503")));
        }
        assert!(statuses.iter().flatten().all(|one| [200, 500, 503].contains(one)), "{statuses:?}");
        drop((taken, kept));
        set_limit(Resource::Nofile, None);
        set_limit(Resource::As, None);
        wait_for("a new pipe", || ask(connect_here(&server)) == Some(200));
    }
}
