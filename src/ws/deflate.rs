//! Compression (RFC 7692, `permessage-deflate`): each message by itself.
//!
//! Neither side takes over its context from one message to the next ([`negotiation`] sees to it).
//! So an event is compressed once for all its receivers, and a connection keeps no compressor and
//! no inflater, which are far larger than everything else that it has: a few in a pool serve all.
//!
//! Publishers and broadcasters compress, a client's own thread inflates. They share the pools, whose
//! locks are held to take one out or to put it back, never while it works.
//!
//! [`negotiation`]: super::negotiation

use std::sync::{Mutex, MutexGuard, PoisonError};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tungstenite::Bytes;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::failure::{Failure, TOO_LONG};
use super::frame::{HEADROOM, frame};

/// Shorter messages go out as they are. Of 150 bytes of JSON a fifth is saved, of 300 nearly half;
/// but the shortest takes 5 µs to compress, as long as everything else that is done for a message.
const MIN_COMPRESS_BYTES: usize = 256;

/// The fastest level with Huffman codes of the message's own. On JSON its output is 4 % larger than
/// that of zlib's default, 6, which takes up to three times as long; that of levels below is larger
/// by up to 60 %.
const LEVEL: u32 = 3;

/// What ends a compressed message, and is not sent (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The tail, and behind it an empty last block. A message that was whole ends here exactly; what
/// was cut off inside a block does not.
const END: [u8; 6] = [0x00, 0x00, 0xff, 0xff, 0x03, 0x00];

/// How many idle compressors of each window, and how many inflaters, are kept.
const MAX_IDLE: usize = 4;

/// How many [`Window`]s there are: one encoding of an event for each.
pub const WINDOWS: usize = 7;

/// How far back a compressed message to a client may refer: 2 to the power of this many bytes, 9 to 15
/// (RFC 7692 section 7.1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window(u8);

impl Window {
    /// A window of so many bits. zlib cannot make raw streams for one of 8.
    pub fn new(bits: u8) -> Option<Window> {
        (9..=15).contains(&bits).then_some(Window(bits))
    }

    /// Its place among all [`WINDOWS`], from 0 on.
    pub fn index(self) -> usize {
        usize::from(self.0 - 9)
    }
}

/// Idle compressors or inflaters, so that not each message pays for the memory of a new one.
struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    const fn new() -> Pool<T> {
        Pool(Mutex::new(Vec::new()))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with an idle one, or one that is made for it. One whose work has failed is not used again.
    /// (zlib-rs 0.6.8 would panic: a reset compressor forgets the output that was not taken, but not
    /// the room that it took.)
    fn with<R, E>(
        &self,
        make: impl FnOnce() -> T,
        work: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        // Two statements: the lock must be free again before one is made, and while it works.
        let idle = self.idle().pop();
        let mut one = idle.unwrap_or_else(make);
        let result = work(&mut one)?;
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(one);
        }
        Ok(result)
    }
}

static COMPRESSORS: [Pool<Compress>; WINDOWS] = [const { Pool::new() }; WINDOWS];
static INFLATERS: Pool<Decompress> = Pool::new();

/// A compressed message as one unmasked frame; `None` where it is better sent as it is.
pub fn compressed_frame(window: Window, kind: Data, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < MIN_COMPRESS_BYTES {
        return None;
    }
    let payload = compress(window, payload)?;
    let header = FrameHeader { rsv1: true, opcode: OpCode::Data(kind), ..FrameHeader::default() };
    Some(frame(Frame::from_payload(header, Bytes::from(payload))))
}

/// Section 7.2.1; `None` where nothing is gained.
fn compress(window: Window, payload: &[u8]) -> Option<Vec<u8>> {
    let make = || Compress::new_with_window_bits(Compression::new(LEVEL), false, window.0);
    let compressed = COMPRESSORS[window.index()].with(make, |compressor| {
        compressor.reset();
        // Room for what gains nothing, too: a compressor that could write all can be used again.
        let mut bytes = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
        compressor.compress_vec(payload, &mut bytes, FlushCompress::Sync).map_err(|_| ())?;
        // With no room left, not all may be flushed.
        if bytes.len() == bytes.capacity() || !bytes.ends_with(&TAIL) {
            return Err(());
        }
        bytes.truncate(bytes.len() - TAIL.len());
        Ok((bytes.len() < payload.len()).then_some(bytes))
    });
    compressed.ok().flatten()
}

/// The longest compressed form that is received of a message of `limit` bytes. A client may compress
/// badly, but not as badly as it likes.
pub fn longest(_: Window, limit: usize) -> usize {
    limit.saturating_add(limit / 4).saturating_add(64)
}

/// Section 7.2.2: the message, behind [`HEADROOM`] bytes. Whatever window the client uses is part
/// of the widest.
///
/// # Errors
/// Where it is longer than `limit` (no more than that is ever inflated), or no deflate stream.
pub fn inflate(_: Window, compressed: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    INFLATERS.with(
        || Decompress::new(false),
        |inflater| {
            inflater.reset(false);
            let most = HEADROOM.saturating_add(limit);
            // Room for what JSON usually becomes; `feed` makes more where that is not enough.
            let mut message = Vec::with_capacity(most.min(HEADROOM + 4 * compressed.len() + 64));
            message.resize(HEADROOM, 0);
            // A stream may have ended properly, with a last block (section 7.2.3.4). Usually it has
            // not: then the end of one must be all that is missing.
            if !feed(inflater, compressed, &mut message, most)? {
                let length = message.len();
                if !feed(inflater, &END, &mut message, most)? || message.len() > length {
                    return Err(INVALID);
                }
            }
            Ok(message)
        },
    )
}

const INVALID: Failure = Failure::Wrong(CloseCode::Invalid, "invalid compressed data");

/// Inflates all of `input` into `message`, which may have `most` bytes. Returns whether the stream ends
/// with it.
fn feed(
    inflater: &mut Decompress,
    mut input: &[u8],
    message: &mut Vec<u8>,
    most: usize,
) -> Result<bool, Failure> {
    loop {
        if message.len() == message.capacity() {
            // One byte above the limit is room enough to see that it is passed.
            let room = (most - message.len()).saturating_add(1);
            message.reserve_exact(room.min(message.len()));
        }
        let (consumed, produced) = (inflater.total_in(), message.len());
        let status = inflater.decompress_vec(input, message, FlushDecompress::None);
        let status = status.map_err(|_| INVALID)?;
        input = &input[(inflater.total_in() - consumed) as usize..];
        if message.len() > most {
            return Err(TOO_LONG);
        }
        match status {
            Status::StreamEnd if input.is_empty() => return Ok(true),
            // What follows a last block is another stream.
            Status::StreamEnd => inflater.reset(false),
            // With room left, all that came was written.
            _ if message.len() < message.capacity() && input.is_empty() => return Ok(false),
            // No progress, though there is room: more would loop for ever.
            _ if inflater.total_in() == consumed && message.len() == produced => {
                return Err(INVALID);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDEST: Window = Window(15);

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|i| b"some words, some more "[i * i % 22]).collect()
    }

    fn inflated(compressed: &[u8], limit: usize) -> Result<Vec<u8>, CloseCode> {
        match inflate(WIDEST, compressed, limit) {
            Ok(message) => Ok(message[HEADROOM..].to_vec()),
            Err(Failure::Wrong(code, _)) => Err(code),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_compressed_comes_back_in_every_window() {
        for bits in 9..=15 {
            let window = Window::new(bits).unwrap();
            for length in [128, 129, 1_000, 40_000, 300_000] {
                let original = text(length);
                let compressed = compress(window, &original).unwrap();
                assert!(compressed.len() < length / 2, "{bits} bits, {length} bytes");
                assert_eq!(inflated(&compressed, length).unwrap(), original);
                // A client's memory is bounded.
                let mut narrow = Decompress::new_with_window_bits(false, bits);
                let mut back = Vec::with_capacity(length);
                narrow.decompress_vec(&compressed, &mut back, FlushDecompress::None).unwrap();
                assert_eq!(back, original, "{bits} bits");
            }
        }
        assert_eq!([Window::new(8), Window::new(16)], [None, None]);
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut noise = 1_u32;
        let mut next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn a_message_that_gained_nothing_leaves_nothing_to_the_next() {
        // Autobahn's case 12.2.3.
        for _ in 0..2_000 {
            assert_eq!(compress(WIDEST, &noise(256)), None);
        }
        let half = [noise(30_000), text(30_000)].concat();
        let compressed = compress(WIDEST, &half).unwrap();
        assert!(inflated(&compressed, half.len()).unwrap() == half);
    }

    #[test]
    fn what_gains_nothing_is_not_compressed() {
        let noise = noise(5_000);
        assert_eq!(compressed_frame(WIDEST, Data::Binary, &noise), None);
        assert_eq!(compressed_frame(WIDEST, Data::Text, &[b'x'; MIN_COMPRESS_BYTES - 1]), None);
        let frame = compressed_frame(WIDEST, Data::Text, &[b'x'; MIN_COMPRESS_BYTES]).unwrap();
        assert_eq!((frame[0], frame[1] as usize), (0xc1, frame.len() - 2));
    }

    /// zlib-rs 0.6.8 loses a part of its buffer at each reset of a compressor that could not write
    /// all: after some two hundred of them it panicked, in whichever thread was next.
    #[test]
    fn a_compressor_that_gained_nothing_serves_the_next() {
        let mut noise = 1_u32;
        let mut next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        for bits in 9..=15 {
            let window = Window::new(bits).unwrap();
            for length in [256, 1_000, 20_000] {
                for _ in 0..600 {
                    let noise: Vec<u8> = (0..length).map(|_| next()).collect();
                    assert_eq!(compress(window, &noise), None);
                }
                let original = text(length);
                let compressed = compress(window, &original).unwrap();
                assert_eq!(inflated(&compressed, length).unwrap(), original);
            }
        }
    }

    #[test]
    fn the_examples_of_section_7_2_3() {
        let hello = Ok(b"Hello".to_vec());
        // One block; two blocks of which the first is empty; no compression; a last block.
        for compressed in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            // The same without the byte that section 7.2.3.4 adds.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflated(compressed, 5), hello, "{compressed:x?}");
            assert_eq!(inflated(compressed, 4), Err(CloseCode::Size), "{compressed:x?}");
        }
        assert_eq!(inflated(&[0x00], 0), Ok(vec![])); // section 7.2.3.6
        // The second message of section 7.2.3.2, which needs the first: not agreed on.
        assert_eq!(inflated(&[0xf2, 0x00, 0x11, 0x00, 0x00], 5), Err(CloseCode::Invalid));
    }

    #[test]
    fn nonsense_and_what_is_cut_off_is_refused() {
        let compressed = compress(WIDEST, &text(2_000)).unwrap();
        let whole = inflated(&compressed, 2_000).unwrap();
        for end in 0..compressed.len() {
            let result = inflated(&compressed[..end], 2_000);
            assert!(result != Ok(whole.clone()), "{end}");
        }
        for bad in [&b"\x07"[..], b"\xff\xff\xff", b"", b"\x00\x05\x00\xfa\xffHel", b"\xf2\x48"] {
            assert_eq!(inflated(bad, 100), Err(CloseCode::Invalid), "{bad:x?}");
        }
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let bomb = compress(WIDEST, &vec![0; 20 << 20]).unwrap();
        assert!(bomb.len() < 1 << 18);
        assert_eq!(inflated(&bomb, 1 << 20), Err(CloseCode::Size));
        assert_eq!(inflated(&bomb, 0), Err(CloseCode::Size));
        // No limit is a limit too.
        assert_eq!(inflated(&bomb, usize::MAX).unwrap().len(), 20 << 20);
    }
}
