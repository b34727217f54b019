//! Cuts a stream of Server-Sent Events into events, whatever pieces it arrives in.

/// An event longer than this is a broken server, not a reason to fill the memory.
const LONGEST_EVENT: usize = 64 * 1024 * 1024;

/// Finds the empty lines between events.
///
/// Lines may end in LF or CR LF (the standard's lone CR is not used by anybody we measure). A
/// block of comments only, such as a heartbeat, is handed out like an event: whoever looks for a
/// stamp in it will not find one.
#[derive(Default)]
pub struct SseParser {
    /// The beginning of an event whose end has not arrived.
    carry: Vec<u8>,
    /// Where the last, unfinished line of `carry` starts: nothing before it is searched again.
    line: usize,
}

impl SseParser {
    /// Takes the next bytes and hands each complete event, as its raw lines, to `event`.
    ///
    /// The usual case is one whole event per read, which is handed on without a copy.
    pub fn feed(&mut self, bytes: &[u8], event: impl FnMut(&[u8])) -> Result<(), String> {
        if self.carry.is_empty() {
            let (used, line) = Self::scan(bytes, 0, event);
            self.carry.extend_from_slice(&bytes[used..]);
            self.line = line - used;
        } else {
            self.carry.extend_from_slice(bytes);
            let (used, line) = Self::scan(&self.carry, self.line, event);
            self.carry.drain(..used);
            self.line = line - used;
        }
        if self.carry.len() > LONGEST_EVENT {
            return Err("an event over 64 MiB".to_owned());
        }
        Ok(())
    }

    /// Returns how many bytes were whole events, and where the unfinished line starts.
    fn scan(bytes: &[u8], from: usize, mut event: impl FnMut(&[u8])) -> (usize, usize) {
        let mut block = 0;
        let mut line = from;
        while let Some(length) = memchr::memchr(b'\n', &bytes[line..]) {
            let end = line + length;
            if matches!(&bytes[line..end], b"" | b"\r") {
                if block < line {
                    event(&bytes[block..line]);
                }
                block = end + 1;
            }
            line = end + 1;
        }
        (block, line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser
                .feed(piece, |event| events.push(String::from_utf8_lossy(event).into_owned()))
                .expect("valid");
        }
        events
    }

    const STREAM: &[u8] =
        b"retry: 2000\n\nid: 1\nevent: message\ndata: a\ndata: b\n\n\n: beat\n\ndata: c\r\n\r\nid: 4";
    const EVENTS: [&str; 4] =
        ["retry: 2000\n", "id: 1\nevent: message\ndata: a\ndata: b\n", ": beat\n", "data: c\r\n"];

    #[test]
    fn whole() {
        assert_eq!(events_of(&[STREAM]), EVENTS);
    }

    #[test]
    fn split_everywhere() {
        for cut in 0..=STREAM.len() {
            let (first, second) = STREAM.split_at(cut);
            assert_eq!(events_of(&[first, second]), EVENTS, "cut at {cut}");
        }
    }

    #[test]
    fn byte_by_byte() {
        let pieces: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(events_of(&pieces), EVENTS);
    }

    #[test]
    fn an_unfinished_event_is_kept() {
        assert!(events_of(&[b"data: x\n"]).is_empty());
        assert_eq!(events_of(&[b"data: x\n", b"\n"]), ["data: x\n"]);
    }
}
