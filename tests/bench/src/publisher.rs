//! The one publisher: `POST /publish` on a schedule, blocking, on a thread of its own.
//!
//! On its own thread because a burst of a thousand arrivals must not delay the next event, and
//! blocking because a sleep on this thread is precise to microseconds where `epoll_wait` rounds
//! up to milliseconds. One request at a time, so that no two events can overtake each other; the
//! wait for a slow answer shows in the latency, which counts from the plan.
//!
//! The connection is kept where the server keeps it. A server that closes after each answer pays
//! for a connection per request, and the report says how many there were.

use serde_json::Value;

use crate::error::Result;
use crate::feeder::{FeedReport, Feeder, Phase, sleep_until};
use crate::ledger::Times;
use crate::post::Poster;
use crate::stamp::Stamp;
use crate::sys::{monotonic_ns, precise_sleeps};
use crate::target::Target;

/// Failures in a row after which publishing is given up.
const MOST_FAILURES: u32 = 20;

/// Publishes to one topic of one server.
pub struct Publisher {
    poster: Poster,
    topic: String,
}

impl Publisher {
    /// A publisher for `topic`.
    pub fn new(target: Target, topic: String) -> Self {
        Self { poster: Poster::new(target), topic }
    }

    /// The requests for events `from..to`, one after another in `out`, and where each ends. They are
    /// one request with lines of JSON for a server that takes these, else one request for each.
    fn requests(&self, phase: &Phase, from: u64, to: u64, out: &mut Vec<u8>) -> Vec<usize> {
        out.clear();
        let target = self.poster.target();
        let mut body = Vec::with_capacity(phase.size + 64);
        let stamp =
            |n: u64| Stamp { planned: phase.planned(n), sequence: n as u32, run: phase.run };
        if phase.batch <= 1 || !target.batches {
            let one = |n| {
                body.clear();
                stamp(n).write(phase.size, &mut body);
                target.publish(&self.topic, "text/plain", &body, out);
                out.len()
            };
            return (from..to).map(one).collect();
        }
        let topic = Value::from(self.topic.as_str()).to_string();
        for n in from..to {
            body.extend_from_slice(format!("{{\"topic\":{topic},\"data\":\"").as_bytes());
            stamp(n).write(phase.size, &mut body);
            body.extend_from_slice(b"\"}\n");
        }
        target.publish(&self.topic, "application/x-ndjson", &body, out);
        vec![out.len()]
    }

    /// Sends them; the number of subscribers the last answer names.
    fn post_all(
        &mut self,
        bytes: &[u8],
        ends: &[usize],
    ) -> std::result::Result<Option<u64>, String> {
        let mut start = 0;
        let mut subscribers = None;
        for &end in ends {
            subscribers = self.poster.post(&bytes[start..end])?;
            start = end;
        }
        Ok(subscribers)
    }
}

impl Feeder for Publisher {
    fn feed(&mut self, phase: &Phase) -> Result<FeedReport> {
        precise_sleeps();
        let mut report = FeedReport::default();
        let (mut late, mut own_late, mut answers) = (Times::new(), Times::new(), Times::new());
        let (requests_before, connections_before) = (self.poster.requests, self.poster.connections);
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
            let ends = self.requests(phase, next, end, &mut request);
            sleep_until(planned);
            let sent = monotonic_ns();
            late.record(sent.saturating_sub(planned));
            own_late.record(sent.saturating_sub(planned.max(free_since)));
            match self.post_all(&request, &ends) {
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
        report.requests = self.poster.requests - requests_before;
        report.connections = self.poster.connections - connections_before;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_the_body_and_several_are_lines() {
        let target = Target::parse("http://127.0.0.1:1").expect("valid");
        let publisher = Publisher::new(target, "t".to_owned());
        let mut phase = Phase { run: 1, start: 0, count: 4, rate: 1.0, size: 50, batch: 1 };
        let mut out = Vec::new();
        assert_eq!(publisher.requests(&phase, 2, 3, &mut out), [out.len()]);
        let text = String::from_utf8(out.clone()).expect("text");
        assert!(text.starts_with("POST /publish?topic=t HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("Content-Length: 50\r\n"), "{text}");
        phase.batch = 2;
        assert_eq!(publisher.requests(&phase, 2, 4, &mut out), [out.len()]);
        let text = String::from_utf8(out).expect("text");
        let body = text.split("\r\n\r\n").nth(1).expect("body");
        let lines: Vec<Value> =
            body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["data"].as_str().map(str::len), Some(50));
    }

    #[test]
    fn a_server_without_batches_gets_one_request_each() {
        let mut target = Target::parse("http://127.0.0.1:1").expect("valid");
        target.batches = false;
        let publisher = Publisher::new(target, "t".to_owned());
        let phase = Phase { run: 1, start: 0, count: 4, rate: 1.0, size: 50, batch: 3 };
        let mut out = Vec::new();
        let ends = publisher.requests(&phase, 0, 3, &mut out);
        assert_eq!(ends.len(), 3);
        for (start, end) in [(0, ends[0]), (ends[0], ends[1]), (ends[1], ends[2])] {
            assert!(out[start..end].starts_with(b"POST /publish?topic=t"));
        }
        assert_eq!(ends[2], out.len());
    }
}
