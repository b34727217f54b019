//! Clients that have nothing to do with what goes wrong elsewhere, and must not notice it: two event
//! streams, a WebSocket, and somebody who publishes for them on one kept connection.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::eventstream::Chunked;
use crate::frames::{self, opcode};
use crate::live::Live;
use crate::responses::{self, Reading};

/// The topic that nobody else uses.
const TOPIC: &str = "bystanders";

/// All of them.
pub struct Bystanders {
    streams: [(TcpStream, Chunked); 2],
    websocket: TcpStream,
    publisher: TcpStream,
    /// How many events each has got.
    pub events: u64,
}

impl Bystanders {
    /// Connects all, and reads their greetings.
    ///
    /// # Errors
    /// Where one is not greeted.
    pub fn connect(live: &Live) -> Result<Bystanders, String> {
        let mut websocket = live.connect()?;
        frames::handshake(&mut websocket, &format!("/ws?topic={TOPIC}"), "", &[])?;
        match frames::read_frame(&mut websocket)? {
            Some(frame) if frame.opcode == opcode::TEXT => {}
            other => return Err(format!("{other:?} instead of a welcome")),
        }
        let streams = [event_stream(live)?, event_stream(live)?];
        Ok(Bystanders { streams, websocket, publisher: live.connect()?, events: 0 })
    }

    /// Publishes an event, which must be the next thing that each receives.
    ///
    /// # Errors
    /// What comes instead.
    pub fn check(&mut self) -> Result<(), String> {
        let data = format!("event {}", self.events);
        publish(&mut self.publisher, &data)?;
        for (stream, parser) in &mut self.streams {
            match next_event(stream, parser)? {
                came if came == data => {}
                came => return Err(format!("{came:?} instead of {data:?}")),
            }
        }
        let frame = frames::read_frame(&mut self.websocket)?;
        match frame.as_ref().map(|frame| websocket_data(&frame.payload)) {
            Some(came) if came.as_ref() == Some(&data) => {}
            _ => return Err(format!("{frame:?} instead of {data:?}")),
        }
        self.events += 1;
        Ok(())
    }
}

/// The data of an event as a WebSocket gets it.
pub fn websocket_data(payload: &[u8]) -> Option<String> {
    let event: serde_json::Value = serde_json::from_slice(payload).ok()?;
    Some(event["data"].as_str()?.to_owned())
}

fn event_stream(live: &Live) -> Result<(TcpStream, Chunked), String> {
    let (mut stream, mut parser) = (live.connect()?, Chunked::default());
    let request = format!("GET /events?topic={TOPIC} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("SSE: {error}"))?;
    let head = frames::read_head(&mut stream)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("instead of an event stream: {head:?}"));
    }
    next_event(&mut stream, &mut parser)?;
    Ok((stream, parser))
}

fn next_event(stream: &mut TcpStream, parser: &mut Chunked) -> Result<String, String> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(event) = parser.next_event() {
            return Ok(event.data);
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => parser.push(&buffer[..read])?,
            other => return Err(format!("no event: {other:?}")),
        }
    }
}

fn publish(stream: &mut TcpStream, data: &str) -> Result<(), String> {
    let head = format!("POST /publish?topic={TOPIC} HTTP/1.1\r\nHost: x\r\nContent-Length: ");
    let request = format!("{head}{}\r\n\r\n{data}", data.len());
    stream.write_all(request.as_bytes()).map_err(|error| format!("publish: {error}"))?;
    let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match responses::read(&came, false)? {
            Reading::Whole(response, length) if length == came.len() && response.status == 200 => {
                return match response.has_option("close") {
                    true => Err("the publisher's connection is not kept".to_owned()),
                    false => Ok(()),
                };
            }
            Reading::Partial => {}
            other => return Err(format!("publish: {other:?}")),
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => came.extend_from_slice(&buffer[..read]),
            other => return Err(format!("no response to a publisher: {other:?}")),
        }
    }
}
