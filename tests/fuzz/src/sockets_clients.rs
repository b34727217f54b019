//! The clients of the `sockets` target. Every connection carries bytes that no other one does, so
//! a mix-up shows in what is read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use threadcast::hub::event::Draft;

use crate::bystanders::{self, Bystander};
use crate::frames::{self, opcode};
use crate::live;
use crate::rng::Rng;
use crate::sockets::Stage;

/// Connections that a worker keeps open across its other actions.
const HELD: usize = 8;

/// One client thread.
pub struct Worker<'a> {
    number: u64,
    stage: &'a Stage,
    rng: Rng,
    held: Vec<Held>,
    topics: u64,
}

/// A connection that goes on.
enum Held {
    WebSocket(TcpStream),
    Sse(BufReader<TcpStream>, String),
}

impl<'a> Worker<'a> {
    /// The worker of this number.
    pub fn new(number: u64, stage: &'a Stage, rng: Rng) -> Worker<'a> {
        Worker { number, stage, rng, held: Vec::new(), topics: 0 }
    }

    /// Does one random thing.
    ///
    /// # Errors
    /// Where a connection does not do what it must.
    pub fn act(&mut self) -> Result<(), String> {
        let action = self.rng.below(10);
        if action >= 8 {
            return self.use_held();
        }
        let (stream, double) = self.connect()?;
        match action {
            0 => plain(stream)?,
            1 => self.publish(stream)?,
            2 | 3 => self.open_sse(stream)?,
            4 | 5 => self.open_websocket(stream)?,
            6 => self.pipelined(stream)?,
            _ => self.abandoned(stream)?,
        }
        double.map_or(Ok(()), |mut double| double.check())
    }

    /// A connection to the server; at times together with one to elsewhere that comes from the
    /// same address and port, so that this process has two sockets with the same peer.
    fn connect(&mut self) -> Result<(TcpStream, Option<Bystander>), String> {
        let address = self.stage.live.address;
        let net = 1 + self.number as u8;
        let failed = |error: std::io::Error| format!("connect: {error}");
        if self.rng.below(4) == 0 {
            let (near, far) = self.stage.listener.connection(&mut self.rng, net).map_err(failed)?;
            let from = near.local_addr().map_err(failed)?;
            let double = Bystander::tcp(near, far, 0).map_err(failed)?;
            match bystanders::connect_from(from, address, true) {
                Ok(stream) => return Ok((stream, Some(double))),
                Err(error) if bystanders::is_taken(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let stream = bystanders::connect(&mut self.rng, net, address, false).map_err(failed)?;
        Ok((stream, None))
    }

    fn publish(&mut self, mut stream: TcpStream) -> Result<(), String> {
        // Above a kilobyte tiny_http hands the body out as a stream.
        let length = self.rng.below(4096);
        let head = format!(
            "POST /publish?topic=elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        );
        let request = [head.into_bytes(), vec![b'x'; length]].concat();
        expect(&send_and_read(&mut stream, &request)?, "HTTP/1.1 200 ")
    }

    fn open_sse(&mut self, mut stream: TcpStream) -> Result<(), String> {
        self.topics += 1;
        let topic = format!("w{}-{}", self.number, self.topics);
        let request = format!("GET /events?topic={topic} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| format!("SSE request: {error}"))?;
        let mut reader = BufReader::new(stream);
        let mut text = String::new();
        while !text.ends_with("established\"}\n\n") {
            let read = reader.read_line(&mut text).map_err(|error| format!("SSE: {error}"))?;
            if read == 0 {
                return Err(format!("SSE ends with {text:?}"));
            }
        }
        expect(text.as_bytes(), "HTTP/1.1 200 ")?;
        self.hold_or_end(Held::Sse(reader, topic))
    }

    fn open_websocket(&mut self, mut stream: TcpStream) -> Result<(), String> {
        let early = self.rng.below(3) == 0;
        let stamp = self.rng.bytes(24);
        let key = [1, 2, 3, self.number as u8];
        let frame = frames::client_frame(0x80 | opcode::BINARY, &stamp, key);
        frames::handshake(&mut stream, "/echo", "", if early { &frame } else { &[] })?;
        if early {
            expect_echo(&mut stream, &stamp)?;
        }
        self.hold_or_end(Held::WebSocket(stream))
    }

    /// The second request must not be answered, and must not disturb anyone else.
    fn pipelined(&mut self, mut stream: TcpStream) -> Result<(), String> {
        let one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let count = 2 + self.rng.below(6);
        if stream.write_all(&one.repeat(count)).is_err() {
            return Ok(()); // already shut down: also an answer
        }
        let answer = live::read_all(&mut stream)?;
        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 200").count();
        if answers > 1 { Err(format!("{answers} answers on one connection")) } else { Ok(()) }
    }

    /// Says something, or half of it, and goes.
    fn abandoned(&mut self, mut stream: TcpStream) -> Result<(), String> {
        let upgrade = format!("{}\r\n", frames::upgrade_request("/echo", "x"));
        let requests = [
            upgrade.as_str(),
            upgrade.as_str(),
            "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nsome of it",
        ];
        let request = requests[self.rng.below(requests.len())];
        let sent = match self.rng.below(3) {
            0 => self.rng.below(request.len()),
            _ => request.len(),
        };
        let _ = stream.write_all(&request.as_bytes()[..sent]);
        if self.rng.below(2) == 0 {
            // Somewhere between the claim and the answer.
            std::thread::sleep(Duration::from_micros(self.rng.next() % 400));
        }
        self.end(stream)
    }

    fn use_held(&mut self) -> Result<(), String> {
        if self.held.is_empty() {
            return Ok(());
        }
        let place = self.rng.below(self.held.len());
        let held = self.held.swap_remove(place);
        self.hold_or_end(held)
    }

    /// Uses the connection, and keeps it or ends it.
    fn hold_or_end(&mut self, mut held: Held) -> Result<(), String> {
        let stamp: Vec<u8> = self.rng.bytes(12);
        match &mut held {
            Held::WebSocket(stream) => {
                let frame = frames::client_frame(0x80 | opcode::BINARY, &stamp, [9, 8, 7, 6]);
                stream.write_all(&frame).map_err(|error| format!("WebSocket: {error}"))?;
                expect_echo(stream, &stamp)?;
            }
            Held::Sse(reader, topic) => {
                let data = format!("{topic} {stamp:?}");
                let draft = Draft::new(topic, None, &data).map_err(|why| why.0)?;
                let hub = &self.stage.live.server.app().hub;
                hub.publish(draft).map_err(|_| "the hub has stopped".to_owned())?;
                let (mut id, mut line, mut blank) = (String::new(), String::new(), String::new());
                for line in [&mut id, &mut line, &mut blank] {
                    reader.read_line(line).map_err(|error| format!("SSE: {error}"))?;
                }
                if !id.starts_with("id: ") || line != format!("data: {data}\n") || blank != "\n" {
                    return Err(format!("SSE {id:?} {line:?} {blank:?} instead of {data:?}"));
                }
            }
        }
        if self.held.len() < HELD && self.rng.below(3) > 0 {
            self.held.push(held);
            return Ok(());
        }
        match held {
            Held::WebSocket(mut stream) if self.rng.below(2) == 0 => {
                let close = frames::client_frame(0x80 | opcode::CLOSE, &[3, 232], [0; 4]);
                stream.write_all(&close).map_err(|error| format!("WebSocket: {error}"))?;
                match frames::read_frame(&mut stream)? {
                    Some(frame) if frame.opcode == opcode::CLOSE => Ok(()),
                    other => Err(format!("{other:?} instead of a close frame")),
                }
            }
            Held::WebSocket(stream) => self.end(stream),
            Held::Sse(reader, _) => self.end(reader.into_inner()),
        }
    }

    /// Closes, half closes first, or resets.
    fn end(&mut self, mut stream: TcpStream) -> Result<(), String> {
        match self.rng.below(4) {
            0 => {
                let _ = stream.shutdown(Shutdown::Write);
                // A moment only: what is due to be closed at some deadline is not waited for.
                let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
                let _ = stream.read(&mut [0; 512]);
            }
            1 => {}
            _ => {
                let reset = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                reset.map_err(|error| format!("linger: {error}"))?;
            }
        }
        Ok(())
    }
}

fn plain(mut stream: TcpStream) -> Result<(), String> {
    let answer = send_and_read(&mut stream, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
    expect(&answer, "HTTP/1.1 200 ")
}

fn send_and_read(stream: &mut TcpStream, request: &[u8]) -> Result<Vec<u8>, String> {
    stream.write_all(request).map_err(|error| format!("request: {error}"))?;
    live::read_all(stream)
}

fn expect(answer: &[u8], beginning: &str) -> Result<(), String> {
    match answer.starts_with(beginning.as_bytes()) {
        true => Ok(()),
        false => {
            Err(format!("{:?} does not begin with {beginning:?}", String::from_utf8_lossy(answer)))
        }
    }
}

fn expect_echo(stream: &mut TcpStream, sent: &[u8]) -> Result<(), String> {
    match frames::read_frame(stream)? {
        Some(frame) if frame.opcode == opcode::BINARY && frame.payload == sent => Ok(()),
        other => Err(format!("{other:?} instead of {sent:?}")),
    }
}
