//! WebSocket sessions over arbitrary bytes: right frames, wrong frames and noise, mixed, cut and
//! mutated, over real sockets, against the predictions of [`crate::reference`].

use std::cell::Cell;
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::campaign::{Failure, Outcome, Plan, campaign};
use crate::frames::{self, LengthForm, opcode};
use crate::live::{self, Live};
use crate::mutations::{Mutation, mutation};
use crate::reference::{End, predict};
use crate::wsclient::{self, Endpoint};

/// The longest message that the server is set to accept. Small, so that the limit is met often.
const LIMIT: usize = 4096;

/// How much memory the process may take more than after the first batch. A length that a frame
/// claims must not be allocated.
const MORE_MEMORY: u64 = 64 << 20;

/// First and second bytes of frames.
const SPECIAL: &[u8] = &[0x00, 0x01, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xc1, 0xfe, 0xff, 0x7e];

/// A part of what a client sends.
#[derive(Debug, Clone)]
enum Piece {
    /// A right message, in as many frames as there are parts, a ping between each.
    Message { text: bool, parts: Vec<Vec<u8>>, pings: bool },
    /// A right control frame.
    Control(u8, Vec<u8>),
    /// A frame with anything in its header. The length is that of the payload, but for `claim`.
    Frame { first: u8, masked: bool, form: LengthForm, claim: Option<u64>, payload: Vec<u8> },
    /// No frame at all.
    Noise(Vec<u8>),
}

#[derive(Clone)]
struct Case {
    endpoint: Endpoint,
    pieces: Vec<Piece>,
    mutations: Vec<Mutation>,
    /// How many bytes go out with the handshake.
    early: usize,
    cuts: Vec<usize>,
}

impl Piece {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = |first, payload: &[u8]| {
            bytes.extend(frames::client_frame(first, payload, key));
        };
        match self {
            Piece::Message { text, parts, pings } => {
                for (number, part) in parts.iter().enumerate() {
                    let kind = match (number, text) {
                        (0, true) => opcode::TEXT,
                        (0, false) => opcode::BINARY,
                        _ => opcode::CONTINUATION,
                    };
                    let last = number + 1 == parts.len();
                    frame(if last { 0x80 | kind } else { kind }, part);
                    if *pings && !last {
                        frame(0x80 | opcode::PING, &[number as u8]);
                    }
                }
            }
            Piece::Control(kind, payload) => frame(0x80 | kind, payload),
            Piece::Frame { first, masked, form, claim, payload } => {
                let length = claim.unwrap_or(payload.len() as u64);
                bytes.extend(frames::head(*first, *masked, length, *form));
                if *masked {
                    bytes.extend(key);
                    bytes.extend(frames::apply_mask(payload, key));
                } else {
                    bytes.extend(payload);
                }
            }
            Piece::Noise(noise) => bytes.extend(noise),
        }
    }
}

/// The pieces in one line each: numbers one below the other help nobody.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, {} early, cuts {:?}", self.endpoint, self.early, self.cuts)?;
        self.pieces.iter().try_for_each(|piece| writeln!(f, "  {piece:?}"))?;
        self.mutations.iter().try_for_each(|mutation| writeln!(f, "  {mutation:?}"))
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.pieces.iter().for_each(|piece| piece.encode(&mut bytes));
        self.mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    }
}

/// Text that is mostly UTF-8, with all lengths of characters, cut anywhere.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => "\\PC{0,40}".prop_map(String::into_bytes),
        6 => "[a-zé€😀\u{0}\u{d7ff}\u{e000}\u{10ffff}]{0,30}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..8),
        // What UTF-8 forbids: a surrogate, an overlong form, too high a number, half a character.
        1 => select(vec![
            b"ab\xed\xa0\x80".to_vec(), b"\xc0\xaf".to_vec(), b"\xf4\x90\x80\x80".to_vec(),
            b"x\xe2\x82".to_vec(), b"\xf0\x9f".to_vec(), b"\xff".to_vec(),
        ]),
    ]
}

/// Up to and around every limit that a length has.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => text(),
        4 => vec(any::<u8>(), 0..40),
        1 => select(vec![125, 126, 127, 200, LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT])
            .prop_map(|length| vec![b'a'; length]),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let cut = (payload(), vec(any::<Index>(), 0..4)).prop_map(|(whole, cuts)| {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| whole[pair[0]..pair[1]].to_vec()).collect()
    });
    prop_oneof![3 => cut, 1 => vec(payload(), 1..4)]
}

fn close() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![
        select(vec![999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1014, 1015, 1016]),
        select(vec![1100, 2000, 2999, 3000, 4999, 5000, 65535]),
        any::<u16>(),
    ];
    let reason = text().prop_map(|reason| reason[..reason.len().min(123)].to_vec());
    prop_oneof![
        1 => Just(Vec::new()),
        1 => vec(any::<u8>(), 1..3),
        6 => (code, reason).prop_map(|(code, reason)| frames::close_payload(code, &reason)),
    ]
}

fn piece() -> impl Strategy<Value = Piece> {
    let short = || vec(any::<u8>(), 0..=125);
    let form = select(vec![
        LengthForm::Minimal,
        LengthForm::Minimal,
        LengthForm::Minimal,
        LengthForm::Sixteen,
        LengthForm::SixtyFour,
    ]);
    let claim = prop_oneof![
        12 => Just(None),
        1 => select(vec![0, 1, 126, 4096, 4097, 65535, 65536, 1 << 31, 1 << 32, 1 << 40, 1 << 62])
            .prop_map(Some),
        1 => select(vec![1 << 63, u64::MAX, u64::MAX - 1, i64::MAX as u64]).prop_map(Some),
    ];
    let odd = (any::<u8>(), prop::bool::weighted(0.9), form, claim, payload());
    // Reserved bits and opcodes are wrong for certain: most frames get neither.
    let opcodes = select(vec![0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0x08, 0x09]);
    let odd = (odd, prop::bool::weighted(0.2), opcodes);
    prop_oneof![
        10 => (any::<bool>(), parts(), any::<bool>())
            .prop_map(|(text, parts, pings)| Piece::Message { text, parts, pings }),
        3 => (select(vec![opcode::PING, opcode::PONG]), short())
            .prop_map(|(kind, payload)| Piece::Control(kind, payload)),
        1 => close().prop_map(|payload| Piece::Control(opcode::CLOSE, payload)),
        2 => odd.prop_map(|((any, masked, form, claim, payload), wild, usual)| {
            Piece::Frame { first: if wild { any } else { usual }, masked, form, claim, payload }
        }),
        1 => vec(any::<u8>(), 1..20).prop_map(Piece::Noise),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let mutations = prop_oneof![3 => Just(Vec::new()), 1 => vec(mutation(SPECIAL), 1..4)];
    let endpoint = select(vec![Endpoint::Echo, Endpoint::Echo, Endpoint::Client]);
    // What came with the head is kept beside the socket; what is beyond is still in it.
    let early = prop_oneof![3 => Just(0), 1 => 0_usize..64, 1 => 0_usize..8192];
    (endpoint, vec(piece(), 0..10), mutations, early, vec(any::<usize>(), 0..6)).prop_map(
        |(endpoint, pieces, mutations, early, cuts)| Case {
            endpoint,
            pieces,
            mutations,
            early,
            cuts,
        },
    )
}

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    let failed = |text| Failure { seed: plan.seed, cases: 0, text };
    let live = Live::start(|config| config.set_max_message(LIMIT)).map_err(failed)?;
    live.check_health().map_err(failed)?;
    let threads = threadcast::os::procfs::ProcessInfo::read().threads;
    let ends = Cell::new([0_u64; 3]);
    let test = |case: &Case| {
        let bytes = case.bytes();
        let prediction = predict(&bytes, LIMIT);
        let mut counts = ends.get();
        counts[match prediction.last_end() {
            End::Open => 0,
            End::Closed(_) => 1,
            End::Failed(_) => 2,
        }] += 1;
        ends.set(counts);
        wsclient::check(&live, case.endpoint, &bytes, case.early, &case.cuts, &prediction)
            .map_err(|why| format!("{why}\nfor the bytes {}", hex(&bytes)))
    };
    let mut at_first = None;
    let between = || {
        live.check_health()?;
        let (first, now) = (*at_first.get_or_insert_with(live::resident), live::resident());
        match now <= first + MORE_MEMORY {
            true => Ok(()),
            false => Err(format!("{now} bytes of memory, {first} after the first batch")),
        }
    };
    let note = || {
        let [open, closed, failed] = ends.get();
        format!("expected ends: {open} open, {closed} closed, {failed} failed")
    };
    let tally = campaign(plan, 500, case(), test, between, note)?;
    let leaked = |text| Failure { seed: plan.seed, cases: tally.cases, text };
    live.wait_threads(threads + 4).map_err(leaked)?;
    Ok(tally)
}

fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(400).map(|byte| format!("{byte:02x}")).collect();
    match bytes.len() {
        0..=400 => shown,
        length => format!("{shown}… ({length} bytes)"),
    }
}
