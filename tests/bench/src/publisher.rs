//! The one publisher: `POST /publish` on a schedule, blocking, on a thread of its own.
//!
//! On its own thread because a burst of a thousand arrivals must not delay the next event, and
//! blocking because a sleep on this thread is precise to microseconds where `epoll_wait` rounds
//! up to milliseconds. One request at a time, so that no two events can overtake each other; the
//! wait for a slow answer shows in the latency, which counts from the plan.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::error::Result;
use crate::feeder::{FeedReport, Feeder, Phase, sleep_until};
use crate::http::{ChunkDecoder, HeadReader};
use crate::ledger::Times;
use crate::stamp::Stamp;
use crate::sys::{monotonic_ns, precise_sleeps};
use crate::target::Target;

/// Failures in a row after which publishing is given up.
const MOST_FAILURES: u32 = 20;
/// Longest wait for one step of a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Publishes to one topic of one server.
pub struct Publisher {
    target: Target,
    topic: String,
}

impl Publisher {
    /// A publisher for `topic`.
    pub fn new(target: Target, topic: String) -> Self {
        Self { target, topic }
    }

    /// Sends one request and returns the number of subscribers the answer names.
    fn post(&self, request: &[u8]) -> std::result::Result<Option<u64>, String> {
        let say = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
        let mut stream = TcpStream::connect_timeout(&self.target.address, PATIENCE)
            .map_err(say("cannot connect to publish"))?;
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_write_timeout(Some(PATIENCE));
        stream.write_all(request).map_err(say("cannot send a publish request"))?;
        let (status, body) = read_answer(&mut stream)?;
        if !(200..300).contains(&status) {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("/publish answered {status} {}", text.trim()));
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(answer["subscribers"].as_u64())
    }

    /// The request for events `from..to`, one plain or several as lines of JSON.
    fn request(&self, phase: &Phase, from: u64, to: u64, out: &mut Vec<u8>) {
        out.clear();
        let mut body = Vec::with_capacity(phase.size + 64);
        let stamp =
            |n: u64| Stamp { planned: phase.planned(n), sequence: n as u32, run: phase.run };
        if phase.batch <= 1 {
            stamp(from).write(phase.size, &mut body);
            self.target.publish(&self.topic, "text/plain", &body, out);
            return;
        }
        let topic = Value::from(self.topic.as_str()).to_string();
        for n in from..to {
            body.extend_from_slice(format!("{{\"topic\":{topic},\"data\":\"").as_bytes());
            stamp(n).write(phase.size, &mut body);
            body.extend_from_slice(b"\"}\n");
        }
        self.target.publish(&self.topic, "application/x-ndjson", &body, out);
    }
}

impl Feeder for Publisher {
    fn feed(&mut self, phase: &Phase) -> Result<FeedReport> {
        precise_sleeps();
        let mut report = FeedReport::default();
        let (mut late, mut own_late, mut answers) = (Times::new(), Times::new(), Times::new());
        let mut request = Vec::new();
        let mut failures = 0;
        let mut free_since = 0;
        let mut next = 0;
        while next < phase.count {
            let end = (next + phase.batch.max(1)).min(phase.count);
            if failures >= MOST_FAILURES || monotonic_ns() > phase.deadline() {
                report.unsent = phase.count - next;
                break;
            }
            let planned = phase.planned(next);
            self.request(phase, next, end, &mut request);
            sleep_until(planned);
            let sent = monotonic_ns();
            late.record(sent.saturating_sub(planned));
            own_late.record(sent.saturating_sub(planned.max(free_since)));
            match self.post(&request) {
                Ok(subscribers) => {
                    failures = 0;
                    report.accepted += end - next;
                    if let Some(n) = subscribers {
                        let (low, high) = report.subscribers.unwrap_or((n, n));
                        report.subscribers = Some((low.min(n), high.max(n)));
                    }
                }
                Err(reason) => {
                    failures += 1;
                    report.failed += end - next;
                    report.first_error.get_or_insert(reason);
                }
            }
            free_since = monotonic_ns();
            answers.record(free_since - sent);
            next = end;
        }
        report.late = late.summary();
        report.own_late = own_late.summary();
        report.answer = answers.summary();
        Ok(report)
    }
}

/// Reads one response: to its length, to its last chunk, or to the end of the connection.
fn read_answer(stream: &mut impl Read) -> std::result::Result<(u16, Vec<u8>), String> {
    let mut reader = HeadReader::default();
    let mut chunks = ChunkDecoder::default();
    let mut head = None;
    let mut body = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(format!("no answer from /publish: {e}")),
        };
        let mut bytes = &buffer[..length];
        if length == 0 {
            return match head {
                Some((status, _, None)) => Ok((status, body)),
                Some(_) | None => Err("/publish closed in the middle of its answer".to_owned()),
            };
        }
        if head.is_none() {
            let Some((parsed, used)) = reader.feed(bytes)? else {
                continue;
            };
            bytes = &bytes[used..];
            head = Some((parsed.status, parsed.chunked, parsed.length));
        }
        let Some((status, chunked, wanted)) = head else {
            continue;
        };
        let ended = if chunked {
            chunks.feed(bytes, |piece| {
                body.extend_from_slice(piece);
                Ok(())
            })?
        } else {
            body.extend_from_slice(bytes);
            wanted.is_some_and(|wanted| body.len() >= wanted)
        };
        if ended {
            return Ok((status, body));
        }
        if body.len() > 1024 * 1024 {
            return Err("an answer over 1 MiB from /publish".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> std::result::Result<(u16, Vec<u8>), String> {
        read_answer(&mut text.as_bytes())
    }

    #[test]
    fn answers_in_every_form() {
        let body = |text: &str| answer(text).expect("valid").1;
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}ignored")[..2], *b"{}");
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n{}"), b"{}");
        assert_eq!(
            body("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
            b"{}"
        );
        assert_eq!(answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").map(|a| a.0), Ok(403));
        assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}").is_err());
        assert!(answer("").is_err());
    }

    #[test]
    fn one_event_is_the_body_and_several_are_lines() {
        let target = Target::parse("http://127.0.0.1:1").expect("valid");
        let publisher = Publisher::new(target, "t".to_owned());
        let mut phase = Phase { run: 1, start: 0, count: 4, rate: 1.0, size: 50, batch: 1 };
        let mut out = Vec::new();
        publisher.request(&phase, 2, 3, &mut out);
        let text = String::from_utf8(out.clone()).expect("text");
        assert!(text.starts_with("POST /publish?topic=t HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("Content-Length: 50\r\n"), "{text}");
        phase.batch = 2;
        publisher.request(&phase, 2, 4, &mut out);
        let text = String::from_utf8(out).expect("text");
        let body = text.split("\r\n\r\n").nth(1).expect("body");
        let lines: Vec<Value> =
            body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["data"].as_str().map(str::len), Some(50));
    }
}
