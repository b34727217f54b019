//! The mark inside every payload: when it was meant to be sent, and which one it is.
//!
//! `~` + 16 hex digits of monotonic nanoseconds + 8 of the sequence number + 8 of the run, then
//! dots up to the wanted size. Everything is plain ASCII that neither JSON nor SSE escapes, so the
//! reader finds it with one `memchr` in the raw bytes and never parses JSON.

/// Size of the mark; no payload can be smaller.
pub const LENGTH: usize = 33;
const MARKER: u8 = b'~';

/// What a payload carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it should have been sent, not when it was.
    pub planned: u64,
    /// Its place in the run, from 0.
    pub sequence: u32,
    /// Which run it belongs to, so that leftovers of an earlier one are not counted.
    pub run: u32,
}

impl Stamp {
    /// Appends a payload of exactly `size` bytes (at least [`LENGTH`]) that carries this stamp.
    pub fn write(&self, size: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(MARKER);
        push_hex(self.planned, 16, out);
        push_hex(self.sequence.into(), 8, out);
        push_hex(self.run.into(), 8, out);
        out.resize(start + size.max(LENGTH), b'.');
    }

    /// Finds the stamp in an event or a message, wherever in it the payload is.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        // A topic or an id may contain the marker as well; each is tried in turn.
        while let Some(at) = memchr::memchr(MARKER, rest) {
            rest = &rest[at + 1..];
            let digits = rest.get(..LENGTH - 1)?;
            if let Some(stamp) = Self::parse(digits) {
                return Some(stamp);
            }
        }
        None
    }

    fn parse(digits: &[u8]) -> Option<Self> {
        Some(Self {
            planned: hex(&digits[..16])?,
            sequence: hex(&digits[16..24])? as u32,
            run: hex(&digits[24..32])? as u32,
        })
    }
}

fn push_hex(value: u64, digits: u32, out: &mut Vec<u8>) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * digit)) as usize & 15]);
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// A number that tells this run's events from those of another run.
pub fn new_run() -> u32 {
    let now = crate::sys::monotonic_ns();
    (now as u32).rotate_left(7) ^ (now >> 32) as u32 ^ std::process::id().rotate_left(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { planned: 0x0123_4567_89ab_cdef, sequence: 42, run: 0xffff_ffff };

    #[test]
    fn round_trip_inside_json_and_sse() {
        for size in [LENGTH, 100, 1000] {
            let mut body = Vec::new();
            STAMP.write(size, &mut body);
            assert_eq!(body.len(), size);
            let text = String::from_utf8(body).expect("ASCII");
            assert_eq!(Stamp::find(format!("id: 1\ndata: {text}\n").as_bytes()), Some(STAMP));
            let json = serde_json::json!({ "topic": "a~b", "data": text }).to_string();
            assert_eq!(Stamp::find(json.as_bytes()), Some(STAMP));
        }
    }

    #[test]
    fn nothing_where_nothing_is() {
        assert_eq!(Stamp::find(b""), None);
        assert_eq!(Stamp::find(b"~0123"), None);
        assert_eq!(Stamp::find(b"data: a ~ tilde and forty bytes that are no stamp at all"), None);
    }
}
