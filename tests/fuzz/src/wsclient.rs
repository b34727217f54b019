//! A WebSocket client that sends what it is given, right or wrong, and takes down what comes back.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use serde_json::{Value, json};

use crate::frames::{self, opcode};
use crate::live::Live;
use crate::reference::{End, Output, Prediction};

/// Which of the server's WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Every message comes back as it was.
    Echo,
    /// A welcome first; a text comes back in JSON.
    Client,
}

/// What came back.
#[derive(Debug)]
struct Transcript {
    outputs: Vec<Output>,
    /// The status in the close frame, if there was one.
    close: Option<Option<u16>>,
}

/// Sends `bytes`, the first `early` of them together with the handshake, the others in pieces that
/// end at `cuts`, and compares what comes back with the prediction.
///
/// # Errors
/// What came back instead.
pub fn check(
    live: &Live,
    endpoint: Endpoint,
    bytes: &[u8],
    early: usize,
    cuts: &[usize],
    prediction: &Prediction,
) -> Result<(), String> {
    let mut stream = live.connect()?;
    let target = match endpoint {
        Endpoint::Echo => "/echo",
        Endpoint::Client => "/ws",
    };
    let (first, rest) = bytes.split_at(early.min(bytes.len()));
    frames::handshake(&mut stream, target, "", first)?;
    send(&mut stream, rest, cuts);
    if *prediction.last_end() == End::Open {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let transcript = read(&mut stream, endpoint)?;
    let fits = prediction.ways.iter().any(|way| {
        prediction.outputs[..way.outputs] == transcript.outputs
            && match &way.end {
                End::Open => transcript.close.is_none(),
                End::Closed(status) => transcript.close == Some(*status),
                End::Failed(codes) => {
                    transcript.close.flatten().is_some_and(|code| codes.contains(&code))
                }
            }
    });
    match fits {
        true => Ok(()),
        false => Err(format!("{transcript:?}\nis none of what is right: {prediction:?}")),
    }
}

/// Sends all, unless the server has hung up.
fn send(stream: &mut TcpStream, bytes: &[u8], cuts: &[usize]) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    for to in cuts {
        if stream.write_all(&bytes[from..to]).is_err() {
            return;
        }
        from = to;
    }
}

/// Reads until the end of the stream.
fn read(stream: &mut TcpStream, endpoint: Endpoint) -> Result<Transcript, String> {
    let mut transcript = Transcript { outputs: Vec::new(), close: None };
    let mut welcomed = endpoint == Endpoint::Echo;
    while let Some(frame) = frames::read_frame(stream)? {
        if transcript.close.is_some() {
            return Err(format!("{frame:?} behind a close frame"));
        }
        let output = match frame.opcode {
            opcode::TEXT => {
                let text = String::from_utf8(frame.payload)
                    .map_err(|_| "the server sends text that is not UTF-8".to_owned())?;
                match endpoint {
                    Endpoint::Echo => Output::Text(text),
                    Endpoint::Client if !welcomed => {
                        welcomed = true;
                        check_welcome(&text)?;
                        continue;
                    }
                    Endpoint::Client => Output::Text(original(&text)?),
                }
            }
            opcode::BINARY => Output::Binary(frame.payload),
            opcode::PONG => Output::Pong(frame.payload),
            opcode::CLOSE => {
                transcript.close = Some(status(&frame.payload)?);
                // The server waits for it, unless it has come.
                let answer =
                    frames::client_frame(0x80 | opcode::CLOSE, &frame.payload, [1, 2, 3, 4]);
                let _ = stream.write_all(&answer);
                // Within a frame that was cut off it is no close frame: the end is said in this way.
                let _ = stream.shutdown(Shutdown::Write);
                continue;
            }
            other => return Err(format!("the server sends a frame with opcode {other}")),
        };
        if !welcomed {
            return Err(format!("{output:?} before the welcome"));
        }
        transcript.outputs.push(output);
    }
    Ok(transcript)
}

fn check_welcome(text: &str) -> Result<(), String> {
    let value = serde_json::from_str::<Value>(text);
    let id = value.as_ref().ok().and_then(|value| value["lastEventId"].as_str());
    let expected = json!({
        "type": "info", "message": "Welcome to WS Server", "lastEventId": id.unwrap_or("none"),
    });
    match value {
        Ok(value) if value == expected => Ok(()),
        _ => Err(format!("{text:?} is no welcome")),
    }
}

/// The text that a response says it answers.
fn original(text: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("{e} in {text:?}"))?;
    match (&value["type"], &value["original"], &value["processedAt"]) {
        (Value::String(kind), Value::String(original), Value::String(_)) if kind == "response" => {
            Ok(original.clone())
        }
        _ => Err(format!("{text:?} is no response")),
    }
}

fn status(payload: &[u8]) -> Result<Option<u16>, String> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] if std::str::from_utf8(reason).is_ok() && payload.len() < 126 => {
            Ok(Some(u16::from_be_bytes([*high, *low])))
        }
        _ => Err(format!("a close frame with {payload:?}")),
    }
}
