//! A reader of event streams, written from the WHATWG HTML standard, sections 9.2.5 and 9.2.6, with
//! nothing left out because this server happens not to send it.

use std::collections::VecDeque;

use crate::chunks;

/// An event as a page would get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `lastEventId`: sticks until another one comes.
    pub id: String,
    /// Its type: `message` where none is given.
    pub kind: String,
    /// Its data.
    pub data: String,
}

/// What has been read of a stream so far.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR: an LF now belongs to it.
    behind_cr: bool,
    /// The byte order mark, if there is one, is behind us.
    begun: bool,
    data: String,
    kind: String,
    id: String,
    /// The reconnection time, once it was set.
    pub retry: Option<u64>,
    events: VecDeque<Event>,
}

impl Parser {
    /// Reads on. The cut between two calls means nothing.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let behind_cr = std::mem::replace(&mut self.behind_cr, byte == b'\r');
            match byte {
                b'\n' if behind_cr => {}
                b'\r' | b'\n' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    /// The next event that is complete.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.begun, true);
        // 'UTF-8 decode': one leading byte order mark goes, what is not UTF-8 is replaced.
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if first => rest,
            _ => &line,
        };
        let line = String::from_utf8_lossy(line);
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match line.split_once(':') {
            Some(("", _)) => return,
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (&*line, ""),
        };
        match field {
            "event" => self.kind = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = value.to_owned(),
            // ('If the value consists of only ASCII digits': an empty one is no number.)
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().or(self.retry);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        let kind = std::mem::take(&mut self.kind);
        if data.is_empty() {
            return;
        }
        data.pop(); // the line feed behind the last line
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        self.events.push_back(Event { id: self.id.clone(), kind, data });
    }
}

/// An event stream as HTTP/1.1 gets it: in chunks.
#[derive(Debug, Default)]
pub struct Chunked {
    chunks: chunks::Stream,
    parser: Parser,
}

impl Chunked {
    /// Reads on.
    ///
    /// # Errors
    /// Where the chunks are wrong.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.parser.push(&self.chunks.push(bytes)?);
        Ok(())
    }

    /// The next event that is complete.
    pub fn next_event(&mut self) -> Option<Event> {
        self.parser.next_event()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, String)> {
        let mut parser = Parser::default();
        parser.push(text.as_bytes());
        std::iter::from_fn(|| parser.next_event()).map(|e| (e.id, e.kind, e.data)).collect()
    }

    fn event(id: &str, kind: &str, data: &str) -> (String, String, String) {
        (id.into(), kind.into(), data.into())
    }

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(
            read("data: YHOO\ndata: +2\ndata: 10\n\n"),
            [event("", "message", "YHOO\n+2\n10")]
        );
        let stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n\
                      data:  third event\n\n";
        let expected = [
            event("1", "message", "first event"),
            event("", "message", "second event"),
            event("", "message", " third event"),
        ];
        assert_eq!(read(stream), expected);
        let expected = [event("", "message", ""), event("", "message", "\n")];
        assert_eq!(read("data\n\ndata\ndata\n\ndata:"), expected);
        assert_eq!(read("data:test\n\ndata: test\n\n"), vec![event("", "message", "test"); 2]);
    }

    #[test]
    fn the_small_print() {
        assert_eq!(
            read("\u{feff}data: a\r\ndata: b\rdata: c\n\r\n"),
            [event("", "message", "a\nb\nc")]
        );
        assert_eq!(read("data: a\n\n\u{feff}data: b\n\n"), [event("", "message", "a")]);
        assert_eq!(read("id: 1\nid: 2\0\nevent: x\ndata\n\n"), [event("1", "x", "")]);
        assert_eq!(read("event: x\n\ndata: y\n\n"), [event("", "message", "y")]);
        let mut parser = Parser::default();
        parser.push(b"retry: 12\nretry: +7\nretry: 8x\nretry:\n");
        assert_eq!(parser.retry, Some(12));
    }
}
