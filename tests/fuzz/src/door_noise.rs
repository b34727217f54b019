//! Arbitrary bytes, in arbitrary pieces, from many connections at once. None may make the server
//! panic, break its pipe, keep a connection longer than the timeouts allow, or take an event from a
//! bystander.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use threadcast::os::procfs::{ProcessInfo, open_descriptors};

use crate::bystanders::Bystanders;
use crate::campaign::{Failure, Outcome, Plan, Tally};
use crate::exchange::{self, Ending, Sending};
use crate::live::{self, Live};
use crate::rng::Rng;
use crate::{door_heads, panics};

const WORKERS: u64 = 6;

/// Short, because many heads and bodies are never complete.
const HEADER_TIMEOUT: Duration = Duration::from_millis(300);

/// The longest body that is published.
const MAX_MESSAGE: usize = 2048;

/// How often an event is published for the bystanders.
const EVENT_INTERVAL: Duration = Duration::from_millis(10);

/// What all threads share.
struct Stage {
    live: Live,
    is_over: AtomicBool,
    wrong: Mutex<Option<String>>,
    connections: AtomicU64,
    responses: AtomicU64,
}

impl Stage {
    /// Keeps the first thing that goes wrong, and ends the run.
    fn fail(&self, text: String) {
        if let Ok(mut wrong) = self.wrong.lock() {
            wrong.get_or_insert(text);
        }
        self.is_over.store(true, SeqCst);
    }
}

/// Runs the part.
pub fn run(plan: &Plan) -> Outcome {
    let failed = |cases, text| Failure { seed: plan.seed, cases, text };
    let live = Live::start(|config| {
        config.set_header_timeout(HEADER_TIMEOUT)?;
        config.set_max_message(MAX_MESSAGE)
    });
    let live = live.map_err(|text| failed(0, text))?;
    live.check_health().map_err(|text| failed(0, text))?;
    let before = (ProcessInfo::read().threads, open_descriptors());
    let panics = panics::seen();
    let mut bystanders = Bystanders::connect(&live).map_err(|text| failed(0, text))?;
    let stage = Stage {
        live,
        is_over: AtomicBool::new(false),
        wrong: Mutex::new(None),
        connections: AtomicU64::new(0),
        responses: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for number in 0..WORKERS {
            let (stage, rng) = (&stage, Rng::new(plan.seed ^ (number + 1) << 32));
            scope.spawn(move || {
                if let Err(text) = work(stage, rng) {
                    stage.fail(text);
                }
            });
        }
        while Instant::now() < plan.until && !stage.is_over.load(SeqCst) {
            if let Err(text) = bystanders.check() {
                stage.fail(format!("a bystander: {text}"));
            }
            std::thread::sleep(EVENT_INTERVAL);
        }
        stage.is_over.store(true, SeqCst);
    });
    let events = bystanders.events;
    drop(bystanders);
    let cases = stage.connections.load(SeqCst);
    let wrong = stage.wrong.lock().map(|mut wrong| wrong.take()).unwrap_or_default();
    let verdict = match wrong {
        Some(text) => Err(text),
        None => settle(&stage.live, before).and_then(|()| panics::check(panics)),
    };
    verdict.map_err(|text| failed(cases, text))?;
    let responses = stage.responses.load(SeqCst);
    let note = format!(
        "{cases} connections with noise, {responses} responses, {events} events to each bystander"
    );
    Ok(Tally { cases, note })
}

/// One worker thread.
fn work(stage: &Stage, mut rng: Rng) -> Result<(), String> {
    while !stage.is_over.load(SeqCst) {
        if rng.below(400) == 0 {
            endless(stage, &mut rng)?;
        } else {
            connection(stage, &mut rng)?;
        }
        stage.connections.fetch_add(1, SeqCst);
    }
    Ok(())
}

/// A connection with noise on it.
fn connection(stage: &Stage, rng: &mut Rng) -> Result<(), String> {
    let bytes = noise(rng);
    let count = if rng.below(10) == 0 { 40 } else { 4 };
    let cuts: Vec<usize> = (0..rng.below(count)).map(|_| rng.below(bytes.len() + 1)).collect();
    let ending = match rng.below(20) {
        0 => Ending::Wait,
        1..5 => Ending::Reset,
        _ => Ending::HalfClose,
    };
    let pause = if rng.below(4) == 0 { rng.next() % 8000 } else { 0 };
    let sending = Sending { cuts: &cuts, pause: Duration::from_micros(pause), ending };
    let seen = exchange::run(&stage.live, &bytes, &sending, MAX_MESSAGE).map_err(|why| {
        format!(
            "{why}\nbytes: {}\ncuts {cuts:?}, pause {pause} µs, {ending:?}",
            bytes.escape_ascii()
        )
    })?;
    stage.responses.fetch_add(seen.statuses.len() as u64, SeqCst);
    Ok(())
}

/// A few heads, bodies and stretches of anything.
fn noise(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + rng.below(4) {
        match rng.below(12) {
            0 => {
                let length = rng.below(200);
                bytes.extend(rng.bytes(length));
            }
            1 => bytes.extend_from_slice(b"\r\n"),
            2 => bytes.extend_from_slice(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            3 => bytes.extend(std::iter::repeat_n(b'a', rng.below(40_000))),
            4 => bytes.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            5 => {
                let length = rng.below(MAX_MESSAGE + 100);
                let head = "POST /publish?topic=noise HTTP/1.1\r\nHost: x\r\nContent-Length: ";
                bytes.extend(format!("{head}{length}\r\n\r\n").bytes());
                bytes.extend(std::iter::repeat_n(b'b', length));
            }
            6 => bytes.extend_from_slice(
                b"POST /publish?topic=noise HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5;x\r\nhello\r\n0\r\n\r\n",
            ),
            7 => bytes.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
            _ => bytes.extend(door_heads::head(rng)),
        }
    }
    if rng.below(3) == 0 {
        door_heads::mutate(&mut bytes, rng);
    }
    bytes
}

/// A head, or a body, that goes on and on, a byte at a time: the server must end it.
fn endless(stage: &Stage, rng: &mut Rng) -> Result<(), String> {
    let beginnings = [
        "G",
        "GET / HTTP/1.1\r\nHost: x\r\nX: ",
        "POST /publish?topic=noise HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n",
        "POST /publish?topic=noise HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n700;",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nX:",
    ];
    let beginning = beginnings[rng.below(beginnings.len())];
    let mut stream = stage.live.connect()?;
    let deadline = Instant::now() + live::PATIENCE;
    let _ = stream.write_all(beginning.as_bytes());
    // The server closes its side, waits a moment for ours, and then resets the connection.
    while stream.write_all(b"a").is_ok() {
        if Instant::now() > deadline {
            return Err(format!(
                "the server does not end {beginning:?} and one byte after another"
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// After all clients have gone the server must be what it was.
fn settle(live: &Live, (threads, descriptors): (u64, u64)) -> Result<(), String> {
    live.check_health()?;
    live.check_pipe()?;
    live.wait_threads(threads + 4)?;
    let deadline = Instant::now() + live::PATIENCE;
    loop {
        let now = open_descriptors();
        // A few connections of the checks themselves may still be closing.
        if now <= descriptors + 4 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{now} descriptors, {descriptors} before"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
