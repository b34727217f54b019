//! Heads of all kinds, mostly right: read by the server's reader and by the reference, and where
//! they are accepted sent through a pipe to tiny_http, a batch at a time. What comes out must be the
//! heads that went in, in order, and nothing else.

use std::time::{Duration, Instant};

use threadcast::listener::pipe::{self, Pipe};

use crate::campaign::{Failure, Outcome, Plan, Tally};
use crate::live::MAX_HEAD;
use crate::rng::Rng;
use crate::{heads, live, panics};

/// Heads that go through the pipe before what comes out is compared.
const BATCH: u64 = 200;

const METHODS: &[&str] =
    &["GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "get", "M-SEARCH", "PRI", "CONNECT"];

const PATHS: &[&str] =
    &["/", "/healthz", "/events?topic=a&topic=%2A", "/publish", "//", "/?", "/a/..b/", "/%41%20"];

/// Fields that are right on their own.
const FIELDS: &[&str] = &[
    "Accept: */*",
    "accept:text/event-stream",
    "Cookie: a=\u{e4}; b=c",
    "User-Agent:\tx (y) \t",
    "Connection: keep-alive",
    "Connection: close\u{3000}",
    "Connection: a, close ,b",
    "Connection: Upgrade",
    "connection:\u{a0}upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c, WebSocket",
    "Upgrade: websocket\u{85}",
    "Content-Length: 5",
    "Content-Length: 0005",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Expect: ,",
    "X:",
    "Sec-WebSocket-Key: GET / HTTP/1.1",
];

const NAMES: &[&str] =
    &["Content-Length", "Transfer-Encoding", "Expect", "X", "@", "Host", "Connection", "X Y", ""];

const VALUES: &[&str] = &[
    "5",
    "-5",
    "5, 5",
    "99999999999999999999",
    "gzip",
    "chunked, x",
    "x/y",
    "100-continue\u{2003}",
];

const COLONS: &[&str] = &[":", ": ", ": ", ":\t ", " :", ""];

/// Appends what is like a word, of the characters in `of`.
fn append_text(bytes: &mut Vec<u8>, rng: &mut Rng, of: &[u8], most: usize) {
    for _ in 0..rng.below(most + 1) {
        bytes.push(of[rng.below(of.len())]);
    }
}

fn choose<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a [u8] {
    from[rng.below(from.len())].as_bytes()
}

/// A head, mostly right.
pub fn head(rng: &mut Rng) -> Vec<u8> {
    const TOKEN: &[u8] = b"abcXYZ019!#$%&'*+-.^_`|~";
    const TARGET: &[u8] = b"abc/?&=+%412e.;:@!$'()*,-_~[]|\\\"<>^`{}\xc3\xa4\xff";
    const VALUE: &[u8] = b"abc XYZ\t,;=\"/:@()<>\x80\xc3\xa0\xe3\x80\xff";
    let mut bytes = Vec::with_capacity(256);
    if rng.below(20) == 0 {
        bytes.extend_from_slice(b"\r\n");
    }
    match rng.below(8) {
        0 => append_text(&mut bytes, rng, TOKEN, 33),
        _ => bytes.extend_from_slice(choose(rng, METHODS)),
    }
    bytes.push(b' ');
    if rng.below(12) == 0 {
        let schemes = ["http://", "https://x:1", "HTTP://a", "http://[::1]:80", "http://u@x"];
        bytes.extend_from_slice(choose(rng, &schemes));
    }
    match rng.below(4) {
        0 => {
            bytes.push(b'/');
            append_text(&mut bytes, rng, TARGET, 12);
        }
        _ => bytes.extend_from_slice(choose(rng, PATHS)),
    }
    if rng.below(200) == 0 {
        bytes.extend(std::iter::repeat_n(b'a', 8150 + rng.below(60)));
    }
    let versions = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"];
    bytes.push(b' ');
    bytes.extend_from_slice(choose(rng, &versions));
    bytes.extend_from_slice(b"\r\n");
    if rng.below(30) > 0 {
        bytes.extend_from_slice(b"Host: x\r\n");
    }
    let fields = if rng.below(500) == 0 { 90 + rng.below(20) } else { rng.below(6) };
    for _ in 0..fields {
        match rng.below(16) {
            0 => {
                bytes.extend_from_slice(choose(rng, NAMES));
                bytes.extend_from_slice(choose(rng, COLONS));
                bytes.extend_from_slice(choose(rng, VALUES));
            }
            1..6 => {
                bytes.push(b'x');
                append_text(&mut bytes, rng, TOKEN, 8);
                bytes.push(b':');
                append_text(&mut bytes, rng, VALUE, 16);
            }
            _ => bytes.extend_from_slice(choose(rng, FIELDS)),
        }
        bytes.extend_from_slice(b"\r\n");
    }
    // A handshake, often enough.
    if rng.below(6) == 0 {
        bytes.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    if rng.below(4) == 0 {
        mutate(&mut bytes, rng);
    }
    bytes
}

/// Changes, inserts or leaves out a byte or two.
pub fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const SPECIAL: &[u8] = b"\r\n\0 \t:,;%#/.\x0b\x0c\x7f\x80\x85\xa0\xff@";
    for _ in 0..1 + rng.below(2) {
        let place = rng.below(bytes.len().max(1));
        match rng.below(4) {
            _ if bytes.is_empty() => bytes.push(b'x'),
            0 => bytes[place] ^= 1 << rng.below(8),
            1 => drop(bytes.remove(place)),
            _ => bytes.insert(place, SPECIAL[rng.below(SPECIAL.len())]),
        }
    }
}

/// Where a head is cut, to be scanned in pieces.
fn cuts(rng: &mut Rng, length: usize) -> Vec<usize> {
    match rng.below(8) {
        0 if length < 300 => (0..length).collect(),
        1..4 => (0..1 + rng.below(3)).map(|_| rng.below(length + 1)).collect(),
        _ => Vec::new(),
    }
}

/// Runs the part. A batch has a seed of its own, that of the plan plus its number.
pub fn run(plan: &Plan) -> Outcome {
    let panics = panics::seen();
    let (mut seed, mut cases, mut through) = (plan.seed, 0, 0);
    let failed = |seed, cases, text| Failure { seed, cases, text };
    let pipe = Pipe::open().map_err(|error| failed(seed, 0, format!("no pipe: {error}")))?;
    while Instant::now() < plan.until {
        let (heads, rng) = (&mut through, Rng::new(seed));
        batch(&pipe, rng, heads).map_err(|text| failed(seed, cases, text))?;
        cases += BATCH;
        seed = seed.wrapping_add(1);
    }
    pipe.close();
    panics::check(panics).map_err(|text| failed(seed, cases, text))?;
    Ok(Tally { cases, note: format!("{through} heads accepted and through one pipe") })
}

/// `through` counts the heads that were accepted, and is the next ticket's number.
fn batch(pipe: &Pipe, mut rng: Rng, through: &mut u64) -> Result<(), String> {
    let (mut sent, mut encoded) = (Vec::new(), Vec::new());
    let first = *through + 1;
    for _ in 0..BATCH {
        let bytes = head(&mut rng);
        let cuts = cuts(&mut rng, bytes.len());
        match heads::check(&bytes, &cuts, MAX_HEAD) {
            Ok(None) => {}
            Ok(Some(head)) => {
                *through += 1;
                encoded.extend_from_slice(pipe::encode(&head, *through).as_bytes());
                sent.push(head);
            }
            Err(why) => {
                let fails = |bytes: &[u8]| heads::check(bytes, &[], MAX_HEAD).is_err();
                let is_same_in_one_piece = fails(&bytes);
                let why = match is_same_in_one_piece {
                    true => heads::check(&heads::smallest(bytes, fails), &[], MAX_HEAD).err(),
                    false => None,
                }
                .unwrap_or_else(|| format!("in pieces that end at {cuts:?}: {why}"));
                return Err(why);
            }
        }
    }
    let written = pipe.write(&encoded);
    for (head, ticket) in sent.iter().zip(first..) {
        let Some(request) = receive(pipe, live::PATIENCE) else {
            return Err(format!("nothing came out ({written:?}), and {head:?} went in"));
        };
        let is_upgrade = request.headers().iter().any(|field| field.field.equiv("Upgrade"));
        let came = (request.method().as_str(), request.url(), pipe.ticket(&request), is_upgrade);
        let went = (head.method.as_str(), head.target.as_str(), Some(ticket), head.is_upgrade);
        if came != went || request.headers().len() != 1 + usize::from(is_upgrade) {
            return Err(format!("{came:?} came out, and {went:?} went in"));
        }
        pipe::discard(request);
    }
    match receive(pipe, Duration::ZERO) {
        None => Ok(()),
        Some(request) => Err(format!("{request:?} came out, and nothing more went in")),
    }
}

/// The next request that comes out. An error is none: one comes when tiny_http's accept thread has
/// ended, as it should.
fn receive(pipe: &Pipe, patience: Duration) -> Option<tiny_http::Request> {
    let request = pipe.server.recv_timeout(patience);
    request.or_else(|_| pipe.server.recv_timeout(patience)).ok().flatten()
}
