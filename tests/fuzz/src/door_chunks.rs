//! Chunked bodies, right and wrong, in pieces, published to a live server: the status must be what
//! the reference decoder says, a WebSocket must get exactly the decoded bytes, and the request behind
//! the body must get its response too.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::TcpStream;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::bystanders::websocket_data;
use crate::campaign::{Failure, Outcome, Plan, Tally, campaign};
use crate::chunks::{self, Decoded};
use crate::exchange::{self, Ending, Sending};
use crate::frames::{self, opcode};
use crate::live::{self, Live};
use crate::mutations::{Mutation, mutation};

/// The longest body. Small, so that the limit is met often.
const MAX_MESSAGE: usize = 3000;

const HEAD: &[u8] =
    b"POST /publish?topic=chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What stands behind the body; its response closes the connection.
const NEXT: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[derive(Clone)]
struct Case {
    body: Vec<u8>,
    mutations: Vec<Mutation>,
    cuts: Vec<usize>,
    waits: bool,
}

impl Case {
    fn body(&self) -> Vec<u8> {
        let mut body = self.body.clone();
        self.mutations.iter().for_each(|mutation| mutation.apply(&mut body));
        body
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = self.body().escape_ascii().to_string();
        // What is long is one byte again and again; the seed repeats it.
        if body.len() > 600 {
            body = format!("{}… ({} characters)", &body[..600], body.len());
        }
        f.debug_struct("Case").field("body", &body).field("cuts", &self.cuts).finish()
    }
}

/// One chunk, with its size line and its end.
fn chunk() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        6 => "[a-z\u{e4}\u{1f600} ]{1,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..10),
        1 => select(vec![1, 15, 16, 255, 256, 1000, 2999, 3000, 3001])
            .prop_map(|length| vec![b'x'; length]),
    ];
    let extension = prop_oneof![
        12 => Just(String::new()),
        3 => select(vec![";", ";a=b", ";a=\"\\\"\"", ";\t", " ;a", "; \u{e4}", "x"])
            .prop_map(str::to_owned),
        1 => select(vec![100, 4080, 4090, 4091, 4092, 4093, 4094, 4095, 4096, 5000])
            .prop_map(|length| format!(";{}", "e".repeat(length))),
    ];
    let size = select(vec!["", "", "", "", "0", "000", "0000000000000000", "+", "0x", " "]);
    (data, extension, size, any::<bool>()).prop_map(|(data, extension, zeros, is_upper)| {
        let size = match is_upper {
            true => format!("{:X}", data.len()),
            false => format!("{:x}", data.len()),
        };
        let line = format!("{zeros}{size}{extension}\r\n");
        [line.as_bytes(), &data, b"\r\n"].concat()
    })
}

fn case() -> impl Strategy<Value = Case> {
    let last = prop_oneof![
        8 => Just("0\r\n\r\n".to_owned()),
        1 => select(vec![
            "0;x\r\n\r\n", "00\r\nT: t\r\n\r\n", "0\r\nT: t\n\r\n", "0\r\n\r", "", "0\r\nno colon\r\n\r\n",
            "ffffffffffffffff\r\n", "10000000000000000\r\n", "-1\r\n",
        ]).prop_map(str::to_owned),
        1 => (0_usize..20).prop_map(|lines| {
            format!("0\r\n{}\r\n", format!("T: {}\r\n", "t".repeat(1000)).repeat(lines))
        }),
    ];
    let mutations = prop_oneof![
        4 => Just(Vec::new()),
        1 => vec(mutation(b"\r\n0a;\xff "), 1..3),
    ];
    let cuts = prop_oneof![
        3 => vec(any::<usize>(), 0..6),
        1 => vec(any::<usize>(), 40..60),
    ];
    let chunks = prop_oneof![
        8 => vec(chunk(), 0..6).boxed(),
        1 => vec(chunk(), 6..40).boxed(),
    ];
    (chunks, last, mutations, cuts, prop::bool::weighted(0.05)).prop_map(
        |(chunks, last, mutations, cuts, waits)| Case {
            body: [chunks.concat(), last.into_bytes()].concat(),
            mutations,
            cuts,
            waits,
        },
    )
}

/// Runs the part.
pub fn run(plan: &Plan) -> Outcome {
    let failed = |text| Failure { seed: plan.seed, cases: 0, text };
    let live = Live::start(|config| {
        config.set_max_message(MAX_MESSAGE)?;
        config.set_header_timeout(Duration::from_millis(500))
    });
    let live = live.map_err(failed)?;
    let mut reader = live.connect().map_err(failed)?;
    frames::handshake(&mut reader, "/ws?topic=chunks", "", &[]).map_err(failed)?;
    frames::read_frame(&mut reader).map_err(failed)?;
    let (reader, published) = (RefCell::new(reader), Cell::new(0_u64));
    let one = |case: &Case| {
        let body = case.body();
        let bytes = [HEAD, &body, NEXT].concat();
        // What stands behind the body may be read as more of it.
        let decoded = chunks::decode(&bytes[HEAD.len()..], MAX_MESSAGE);
        let data = match &decoded {
            Decoded::Whole(data, _) => String::from_utf8(data.clone()).map_err(|_| 400),
            Decoded::TooLong => Err(413),
            Decoded::Broken => Err(400),
            // It ends early, or does not end.
            Decoded::Partial if case.waits => Err(408),
            Decoded::Partial => Err(400),
        };
        let ending = if case.waits { Ending::Wait } else { Ending::HalfClose };
        let sending = Sending { cuts: &case.cuts, pause: Duration::ZERO, ending };
        let seen = exchange::run(&live, &bytes, &sending, MAX_MESSAGE)?;
        let status = *data.as_ref().err().unwrap_or(&200);
        if seen.statuses.first() != Some(&status) {
            return Err(format!("{:?} instead of {status}: {decoded:?}", seen.statuses));
        }
        let Ok(data) = data else { return Ok(()) };
        published.set(published.get() + 1);
        let frame = frames::read_frame(&mut *reader.borrow_mut())?;
        let frame = frame.filter(|frame| frame.opcode == opcode::TEXT);
        let came = frame.and_then(|frame| websocket_data(&frame.payload));
        // An event's lines end in line feeds.
        let sent = data.replace("\r\n", "\n").replace('\r', "\n");
        match came {
            Some(came) if came == sent => Ok(()),
            came => Err(format!("{came:?} instead of {sent:?}")),
        }
    };
    let test = |case: &Case| {
        // While a failing case is made smaller, each must find what it has published itself.
        one(case).inspect_err(|_| discard_all(&mut reader.borrow_mut()))
    };
    let between = || live.check_health().and_then(|()| live.check_pipe());
    let note = || format!("{} chunked bodies published", published.get());
    let tally = campaign(plan, 200, case(), test, between, note)?;
    let note = format!("{} with chunks, {}", tally.cases, tally.note);
    Ok(Tally { note, ..tally })
}

/// Reads until nothing comes for a moment.
fn discard_all(stream: &mut TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    while matches!(frames::read_frame(stream), Ok(Some(_))) {}
    let _ = stream.set_read_timeout(Some(live::PATIENCE));
}
