//! The physical limit: a process that does nothing but `send` the bytes of each event.
//!
//! It runs as a child of the generator. It accepts connections, answers each with the head of an
//! SSE stream so that the generator reads it with the same code as any server, and then, told over
//! stdin what to send when, calls a blocking `send(2)` per client and event. No threads to wake, no
//! queue, no lock: what a server spends beyond this is the price of being a server.

use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::feeder::{FeedReport, Phase, sleep_until};
use crate::floor_echo;
use crate::ledger::{Summary, Times};
use crate::stamp::Stamp;
use crate::sys::{monotonic_ns, precise_sleeps, raise_descriptor_limit, run_on};

const HINT: &str = "this is the helper process of `floor`; run that instead";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// The helper process. Prints its port, accepts `clients`, then serves orders until stdin ends.
///
/// With `echo` it is the other floor instead, until stdin ends. It inherits the generator's CPU, if that has one of its own, and takes all others instead.
pub fn run(clients: usize, echo: bool, not_cpu: Option<usize>) -> Result<()> {
    let io = |what: &str, e: std::io::Error| Failure::new(format!("{what}: {e}"), HINT);
    raise_descriptor_limit();
    if let Some(generators) = not_cpu {
        run_on(|cpu| cpu != generators).map_err(|e| io("no other CPU", e))?;
    }
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| io("cannot listen", e))?;
    let port = listener.local_addr().map_err(|e| io("cannot listen", e))?.port();
    println!("{port}");
    let orders = orders_from_stdin();
    if echo {
        floor_echo::serve(&listener);
    }
    let mut streams = Vec::with_capacity(clients);
    for _ in 0..clients {
        let (stream, _) = listener.accept().map_err(|e| io("cannot accept", e))?;
        streams.push(greet(stream).map_err(|e| io("cannot greet a client", e))?);
    }
    precise_sleeps();
    while let Ok(line) = orders.recv() {
        let phase = decode_order(&line)
            .ok_or_else(|| Failure::new(format!("not an order: {line:?}"), HINT))?;
        println!("{}", encode_report(&send_all(&mut streams, &phase)));
    }
    Ok(())
}

/// Orders, and a way to end with the parent even while blocked in `accept` or `send`.
fn orders_from_stdin() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receiver
}

/// Reads a request to its empty line and answers it.
fn greet(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 16 * 1024 {
        match stream.read(&mut buffer)? {
            0 => break,
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    stream.write_all(HEAD)?;
    Ok(stream)
}

fn send_all(streams: &mut [TcpStream], phase: &Phase) -> FeedReport {
    let mut report = FeedReport::default();
    let (mut late, mut own_late, mut answers) = (Times::new(), Times::new(), Times::new());
    let mut frame = Vec::with_capacity(phase.size + 64);
    let mut free_since = 0;
    for n in 0..phase.count {
        if monotonic_ns() > phase.deadline() {
            report.unsent = phase.count - n;
            break;
        }
        let planned = phase.planned(n);
        frame.clear();
        // An id of the usual form, so that the frame is as long as a server's.
        let id = format!("id: {}-{n}\nevent: message\ndata: ", 1_700_000_000_000 + n);
        frame.extend_from_slice(id.as_bytes());
        Stamp { planned, sequence: n as u32, run: phase.run }.write(phase.size, &mut frame);
        frame.extend_from_slice(b"\n\n");
        sleep_until(planned);
        let sent = monotonic_ns();
        late.record(sent.saturating_sub(planned));
        own_late.record(sent.saturating_sub(planned.max(free_since)));
        for stream in streams.iter_mut() {
            if let Err(e) = stream.write_all(&frame) {
                report.first_error.get_or_insert_with(|| format!("cannot send: {e}"));
            }
        }
        free_since = monotonic_ns();
        answers.record(free_since - sent);
        report.accepted += 1;
    }
    report.late = late.summary();
    report.own_late = own_late.summary();
    report.answer = answers.summary();
    report
}

/// A phase as one line.
pub fn encode_order(phase: &Phase) -> String {
    let Phase { run, start, count, rate, size, batch } = phase;
    format!("{run} {start} {count} {rate} {size} {batch}")
}

fn decode_order(line: &str) -> Option<Phase> {
    let mut words = line.split_whitespace();
    Some(Phase {
        run: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
        count: words.next()?.parse().ok()?,
        rate: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        batch: words.next()?.parse().ok()?,
    })
}

fn encode_report(report: &FeedReport) -> String {
    let mut line = format!("{} {}", report.accepted, report.unsent);
    for times in [&report.late, &report.own_late, &report.answer] {
        for value in [times.p50, times.p90, times.p99, times.p999, times.max] {
            line.push_str(&format!(" {value}"));
        }
    }
    if let Some(error) = &report.first_error {
        line.push_str(&format!(" {error}"));
    }
    line
}

/// A report back from its line.
pub fn decode_report(line: &str) -> Option<FeedReport> {
    let mut words = line.trim_end().splitn(18, ' ');
    let accepted = words.next()?.parse().ok()?;
    let unsent = words.next()?.parse().ok()?;
    let mut times = || {
        let mut value = || words.next()?.parse().ok();
        Some(Summary { p50: value()?, p90: value()?, p99: value()?, p999: value()?, max: value()? })
    };
    let (late, own_late, answer) = (times()?, times()?, times()?);
    let first_error = words.next().map(str::to_owned);
    Some(FeedReport {
        accepted,
        unsent,
        first_error,
        late,
        own_late,
        answer,
        ..FeedReport::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_survive_the_pipe() {
        let phase = Phase { run: 9, start: u64::MAX, count: 3, rate: 0.5, size: 100, batch: 1 };
        assert_eq!(decode_order(&encode_order(&phase)), Some(phase));
        let times = Summary { p50: 1.5, p90: 2.0, p99: 3.25, p999: 4.0, max: 5.0 };
        let mut report = FeedReport { accepted: 7, late: times, ..FeedReport::default() };
        assert_eq!(decode_report(&encode_report(&report)), Some(report.clone()));
        report.first_error = Some("cannot send: broken pipe".to_owned());
        assert_eq!(decode_report(&encode_report(&report)), Some(report));
        assert_eq!(decode_report("1 2 3"), None);
        assert_eq!(decode_order("x"), None);
    }
}
