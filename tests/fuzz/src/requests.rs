//! Requests, right, wrong and mutated, against a live server, and its checks called directly.
//!
//! Whatever is sent, the answer is one well-formed answer or the end of the connection, never one
//! for what must be refused, and afterwards the server is as well as before.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use threadcast::Config;
use threadcast::stats::ProcessInfo;

use crate::campaign::{Failure, Outcome, Plan, campaign};
use crate::live::{self, Live};
use crate::refusals::{self, Head};
use crate::requests_cases::{Case, case};
use crate::responses::{self, Reading};

/// How long a request may take to arrive. Short, because some are never complete.
const HEADER_TIMEOUT: Duration = Duration::from_millis(500);

/// How much memory the process may take more than after the first batch.
const MORE_MEMORY: u64 = 64 << 20;

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    let failed = |text| Failure { seed: plan.seed, cases: 0, text };
    let config =
        Config { max_message: 4096, history: 100, header_timeout: HEADER_TIMEOUT, ..live::quiet() };
    let live = Live::start(config).map_err(failed)?;
    live.check_health().map_err(failed)?;
    let threads = ProcessInfo::read().threads;
    let seen = Cell::new([0_u64; 6]);
    let test = |case: &Case| {
        direct(case)?;
        let bytes = case.bytes();
        let status = exchange(&live, case, &bytes)?;
        let mut counts = seen.get();
        counts[usize::from(status.unwrap_or(0) / 100)] += 1;
        seen.set(counts);
        Ok(())
    };
    let mut at_first = None;
    let between = || {
        live.check_health()?;
        let (first, now) = (*at_first.get_or_insert_with(live::resident), live::resident());
        if now > first + MORE_MEMORY {
            return Err(format!("{now} bytes of memory, {first} after the first batch"));
        }
        // Waiting for idle workers to go takes seconds: only where there is something to wait for.
        if ProcessInfo::read().threads > threads + 8 {
            live.wait_threads(threads + 4)?;
        }
        Ok(())
    };
    let note = || {
        let [closed, one, two, three, four, five] = seen.get();
        format!("{closed} closed, {one} upgraded, {two} 2xx, {three} 304, {four} 4xx, {five} 50x")
    };
    let tally = campaign(plan, 200, case(), test, between, note)?;
    let leaked = |text| Failure { seed: plan.seed, cases: tally.cases, text };
    live.wait_threads(threads + 4).map_err(leaked)?;
    Ok(tally)
}

/// Calls the server's checks without a connection.
fn direct(case: &Case) -> Result<(), String> {
    let target = String::from_utf8_lossy(&case.target);
    let path = target.split('?').next().unwrap_or_default();
    let (theirs, ours) = (threadcast::validate::decode(path), refusals::decode(path.as_bytes()));
    if theirs != ours {
        return Err(format!("{path:?} decodes to {theirs:?}, and should to {ours:?}"));
    }
    let Some(request) = case.as_test_request() else { return Ok(()) };
    let head = Head {
        method: request.method().as_str().into(),
        target: request.url().into(),
        version: format!("HTTP/{}", request.http_version()).into(),
        fields: request.headers().iter().map(field).collect(),
    };
    let length = request.body_length().unwrap_or(0);
    let verdict = threadcast::validate::validate(&request).map_err(|answer| answer.status);
    threadcast::listener::socket::discard(request, length);
    match (refusals::refusal(&head), verdict) {
        (Some(why), Ok(())) => Err(format!("accepted by validate, but {why}: {head:?}")),
        (_, Err(status)) if !matches!(status, 400 | 413 | 414 | 431 | 501) => {
            Err(format!("validate answers {status} to {head:?}"))
        }
        _ => Ok(()),
    }
}

fn field(header: &tiny_http::Header) -> (Vec<u8>, Vec<u8>) {
    (header.field.as_str().as_str().into(), header.value.as_str().into())
}

/// Sends the bytes and reads the answer. Returns its status, or nothing for a close.
fn exchange(live: &Live, case: &Case, bytes: &[u8]) -> Result<Option<u16>, String> {
    let mut stream = live.connect()?;
    let mut cuts: Vec<usize> = case.cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    for to in cuts {
        // The server may have hung up; what it said before counts.
        if stream.write_all(&bytes[from..to]).is_err() {
            break;
        }
        from = to;
    }
    if !case.patient {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let maybe_head = live::find(bytes, b"HEAD").is_some();
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let ended = loop {
        match responses::read(&answer, maybe_head)? {
            // It has begun as it should; how it goes on is for other targets.
            Reading::Streaming(_) => break false,
            Reading::Partial | Reading::Whole(_) => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
            Err(error) => {
                let text = String::from_utf8_lossy(&answer);
                return Err(format!("{error}: the server does not close, after {text:?}"));
            }
        }
    };
    let status = match responses::read(&answer, maybe_head)? {
        Reading::Partial if answer.is_empty() => None,
        Reading::Partial => {
            return Err(format!("half an answer: {:?}", String::from_utf8_lossy(&answer)));
        }
        Reading::Streaming(response) if !ended => Some(response.status),
        Reading::Streaming(response) | Reading::Whole(response) => Some(response.status),
    };
    judge(bytes, status)?;
    Ok(status)
}

/// Whether this status is a right answer.
fn judge(bytes: &[u8], status: Option<u16>) -> Result<(), String> {
    let served = status.is_some_and(|status| status < 400);
    match refusals::read(bytes) {
        refusals::Reading::Incomplete if served => Err("served before it was complete".to_owned()),
        refusals::Reading::Broken(why) if served => {
            Err(format!("served with {status:?}, but {why}"))
        }
        refusals::Reading::Head(head) => match refusals::refusal(&head) {
            Some(why) if served => Err(format!("served with {status:?}, but {why}")),
            // A second request behind the first may end the connection before it is answered.
            None if is_plain(&head) && ends_with_its_head(bytes) && status != Some(200) => {
                Err(format!("a plain request is answered with {status:?}"))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn ends_with_its_head(bytes: &[u8]) -> bool {
    live::find(bytes, b"\r\n\r\n").is_some_and(|end| end + 4 == bytes.len())
}

/// What any server must answer: a GET for something that is there, with nothing special about it.
fn is_plain(head: &Head) -> bool {
    let known: [&[u8]; 4] = [b"/healthz", b"/stats", b"/metrics", b"/app.js"];
    head.method == b"GET"
        && known.contains(&&head.target[..])
        && head.fields.len() < 20
        && head.fields.iter().all(|(name, value)| {
            let plain = [&b"host"[..], b"accept", b"origin", b"x-custom"];
            let ordinary = |b: &u8| b.is_ascii_alphanumeric() || b".-/:* ".contains(b);
            plain.contains(&&name.to_ascii_lowercase()[..]) && value.iter().all(ordinary)
        })
        && head.fields.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"host") && value.iter().all(|b| b.is_ascii_alphanumeric())
        })
}
