//! A client that sends bytes on one connection, reads every response, and holds each against what
//! [`crate::refusals`] makes of the same bytes: which request it is to, whether it may be served,
//! and whether the connection stays open behind it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::chunks::{self, Decoded};
use crate::live::{self, Live};
use crate::refusals::{self, Framing, Head};
use crate::responses::{self, Response};

/// What is sent on a connection that was kept, when everything on it has been answered.
const SECOND: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: second\r\nConnection: close\r\n\r\n";

/// The codes of errors with which a head is refused, and nothing else.
const HEAD_CODES: &[&str] = &[
    "bad_request_line",
    "bad_method",
    "bad_target",
    "bad_host",
    "bad_header",
    "bad_framing",
    "header_too_large",
    "target_too_long",
    "unknown_version",
    "unknown_method",
    "unknown_coding",
    "unknown_expectation",
];

/// What a client does when it has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It closes its side, and reads.
    HalfClose,
    /// It reads, and where the connection is kept sends another request.
    Wait,
    /// It resets the connection.
    Reset,
}

/// How bytes are sent.
pub struct Sending<'a> {
    /// Where they are cut into pieces; taken modulo their number.
    pub cuts: &'a [usize],
    /// How long to wait between two pieces. Where this is not zero, a 408 is right at any time.
    pub pause: Duration,
    /// And then.
    pub ending: Ending,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Seen {
    /// The statuses, in order.
    pub statuses: Vec<u16>,
    /// How many responses kept the connection.
    pub kept: u64,
}

/// How a response leaves the connection.
enum After {
    /// The next request begins so many bytes further on.
    Kept(usize),
    /// It closes.
    Closed,
    /// It belongs to a stream of events, or to a WebSocket.
    Streaming,
}

/// Sends `bytes` and judges all that comes back. `limit` is the longest body that is published.
///
/// # Errors
/// What is wrong, for example that the server does not close.
pub fn run(live: &Live, bytes: &[u8], sending: &Sending<'_>, limit: usize) -> Result<Seen, String> {
    let (mut stream, mut bytes, mut seen) = (live.connect()?, bytes.to_vec(), Seen::default());
    send(&mut stream, &bytes, sending);
    match sending.ending {
        Ending::HalfClose => drop(stream.shutdown(Shutdown::Write)),
        Ending::Wait => {}
        Ending::Reset => {
            let reset = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return reset.map(|()| seen).map_err(|error| format!("linger: {error}"));
        }
    }
    let mut reader = Reader { came: Vec::new(), deadline: Instant::now() + live::PATIENCE };
    let mut position = 0;
    loop {
        let reading = refusals::read(&bytes[position..], live::MAX_HEAD);
        if matches!(reading, refusals::Reading::Silent)
            && sending.ending == Ending::Wait
            && seen.kept > 0
            && !bytes.ends_with(SECOND)
        {
            let _ = stream.write_all(SECOND);
            bytes.extend_from_slice(SECOND);
            continue;
        }
        let head = match &reading {
            refusals::Reading::Head(head, _) => Some(&**head),
            _ => None,
        };
        let response = reader.next(&mut stream, head)?;
        seen.statuses.extend(response.as_ref().map(|(response, _)| response.status));
        let after = judge(&reading, &bytes[position..], response.as_ref(), sending, limit);
        match after.map_err(|why| format!("{why}; at byte {position}"))? {
            After::Streaming => return Ok(seen),
            After::Closed => return reader.end(&mut stream).map(|()| seen),
            After::Kept(length) => (position, seen.kept) = (position + length, seen.kept + 1),
        }
    }
}

/// Sends all, unless the server has hung up: what it said before counts.
fn send(stream: &mut TcpStream, bytes: &[u8], sending: &Sending<'_>) {
    let mut cuts: Vec<usize> = sending.cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    for to in cuts {
        if stream.write_all(&bytes[from..to]).is_err() {
            return;
        }
        if to < bytes.len() {
            std::thread::sleep(sending.pause);
        }
        from = to;
    }
}

/// Reads responses one after another.
struct Reader {
    came: Vec<u8>,
    /// One for the whole connection: a server that sends a byte now and then hangs too.
    deadline: Instant,
}

impl Reader {
    /// The next response, and whether it goes on for ever; `None` at the end of the connection.
    fn next(
        &mut self,
        stream: &mut TcpStream,
        head: Option<&Head>,
    ) -> Result<Option<(Response, bool)>, String> {
        loop {
            let is_to_head = head.is_some_and(|head| head.method == "HEAD");
            match responses::read(&self.came, is_to_head)? {
                responses::Reading::Whole(response, length) => {
                    self.came.drain(..length);
                    match response.status {
                        100 if head.is_some_and(|head| head.expects_continue) => {}
                        100 => return Err("100 to somebody who does not wait for it".into()),
                        _ => return Ok(Some((response, false))),
                    }
                }
                responses::Reading::Streaming(response) => return Ok(Some((response, true))),
                responses::Reading::Partial if self.read(stream)? => {}
                responses::Reading::Partial if self.came.is_empty() => return Ok(None),
                responses::Reading::Partial => {
                    let came = String::from_utf8_lossy(&self.came);
                    return Err(format!("half a response: {came:?}"));
                }
            }
        }
    }

    /// Fails unless the connection ends, and nothing comes before that.
    fn end(mut self, stream: &mut TcpStream) -> Result<(), String> {
        while self.came.is_empty() {
            if !self.read(stream)? {
                return Ok(());
            }
        }
        let came = String::from_utf8_lossy(&self.came);
        Err(format!("more behind the last response: {came:?}"))
    }

    /// Reads something; `false` at the end. A reset is an end.
    fn read(&mut self, stream: &mut TcpStream) -> Result<bool, String> {
        let mut buffer = [0; 16 * 1024];
        if Instant::now() > self.deadline {
            return Err("the server does not close".to_owned());
        }
        match stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(read) => {
                self.came.extend_from_slice(&buffer[..read]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => {
                let came = String::from_utf8_lossy(&self.came);
                Err(format!("{error}: the server does not close, after {came:?}"))
            }
        }
    }
}

/// Whether this is a right response to what is at the beginning of `bytes`.
fn judge(
    reading: &refusals::Reading,
    bytes: &[u8],
    response: Option<&(Response, bool)>,
    sending: &Sending<'_>,
    limit: usize,
) -> Result<After, String> {
    let status = response.map(|(response, _)| response.status);
    let is_last = response.is_none_or(|(response, _)| response.has_option("close"));
    if !sending.pause.is_zero() && status == Some(408) && is_last {
        return Ok(After::Closed);
    }
    let waits = sending.ending == Ending::Wait;
    match reading {
        refusals::Reading::Tls | refusals::Reading::Silent if status.is_none() => Ok(After::Closed),
        refusals::Reading::Incomplete if status.is_none() && !waits => Ok(After::Closed),
        refusals::Reading::Incomplete if status == Some(408) && is_last && waits => {
            Ok(After::Closed)
        }
        refusals::Reading::Refused(faults)
            if is_last && faults.iter().any(|fault| Some(fault.0) == status) =>
        {
            Ok(After::Closed)
        }
        refusals::Reading::Head(head, length) => {
            served(head, &bytes[*length..], response, waits, limit)
                .map(|after| match after {
                    After::Kept(body) => After::Kept(length + body),
                    after => after,
                })
                .map_err(|why| format!("{why}: {head:?}"))
        }
        _ => Err(format!("answered with {response:?}, but {reading:?}")),
    }
}

/// The same for a request that is accepted; `rest` is what comes behind its head.
fn served(
    head: &Head,
    rest: &[u8],
    response: Option<&(Response, bool)>,
    waits: bool,
    limit: usize,
) -> Result<After, String> {
    let is_events = head.target.split('?').next() == Some("/events");
    let may_stream = head.method == "GET" && (is_events || head.is_upgrade);
    let Some((response, is_stream)) = response else {
        // Whoever closes their side before a stream begins does not get one.
        return match may_stream && !waits {
            true => Ok(After::Closed),
            false => Err("no response".to_owned()),
        };
    };
    if *is_stream {
        let is_right = if response.status == 101 { head.is_upgrade } else { is_events };
        return match may_stream && is_right {
            true => Ok(After::Streaming),
            false => Err(format!("a stream with {}", response.status)),
        };
    }
    if let Some(code) = response.code().filter(|code| HEAD_CODES.contains(&code.as_str())) {
        return Err(format!("refused with {code}"));
    }
    if is_plain(head) && response.status != 200 {
        return Err(format!("a plain request is answered with {}", response.status));
    }
    let body = match head.framing {
        Framing::Length(length) if length <= rest.len() as u64 => Some(length as usize),
        Framing::Length(_) => None,
        Framing::Chunked => match chunks::decode(rest, limit) {
            Decoded::Whole(_, length) => Some(length),
            _ => None,
        },
    };
    match (response.has_option("close"), body) {
        (true, _) if head.keep_alive && head.framing == Framing::Length(0) && !is_events => {
            Err("the connection is not kept".to_owned())
        }
        (true, _) => Ok(After::Closed),
        (false, _) if !head.keep_alive => Err("the connection is kept".to_owned()),
        (false, _) if !head.is_http_1_1 && !response.has_option("keep-alive") => {
            Err("the connection is kept, and HTTP/1.0 is not told".to_owned())
        }
        (false, None) => Err("the connection is kept in the middle of a body".to_owned()),
        (false, Some(length)) => Ok(After::Kept(length)),
    }
}

/// What any server must serve: a GET for something that is there, with nothing special about it.
fn is_plain(head: &Head) -> bool {
    let known = ["/healthz", "/stats", "/metrics", "/app.js"];
    let plain = ["host", "accept", "x-custom", "connection"];
    head.method == "GET"
        && known.contains(&head.target.as_str())
        && !head.is_upgrade
        && head.fields.iter().all(|(name, _)| plain.contains(&&*name.to_ascii_lowercase()))
}
