//! tokio-tungstenite as a client: told on standard input what to do, one JSON object a line, it
//! tells on standard output what came (see `../driver.py`). A task serves each connection.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut connections: HashMap<u64, UnboundedSender<Message>> = HashMap::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let command: Value = serde_json::from_str(&line).expect("a command is JSON");
        let n = command["n"].as_u64().expect("a command has a number");
        if command["do"] == "open" {
            let (sender, receiver) = unbounded_channel();
            connections.insert(n, sender);
            tokio::spawn(async move {
                if let Err(error) = live(n, &command, receiver).await {
                    tell(json!({"n": n, "is": "error", "detail": error.to_string()}));
                }
            });
        } else if let Some(connection) = connections.get(&n) {
            let _ = connection.send(message(&command)); // it may have ended
        }
    }
    std::process::exit(0); // connections that are still open are nobody's business any more
}

/// The message that a command is.
fn message(command: &Value) -> Message {
    let text = |field: &str| command[field].as_str().unwrap_or_default().to_owned();
    match command["do"].as_str() {
        Some("text") => Message::text(text("data")),
        Some("binary") => {
            Message::binary(BASE64_STANDARD.decode(text("data")).expect("binary data is base64"))
        }
        Some("ping") => Message::Ping(text("data").into_bytes().into()),
        Some("close") => {
            let code = command["code"].as_u64().unwrap_or(1000) as u16;
            Message::Close(Some(CloseFrame { code: code.into(), reason: text("reason").into() }))
        }
        other => panic!("no such command: {other:?}"),
    }
}

/// One connection, from its handshake to its end.
async fn live(
    n: u64,
    command: &Value,
    mut outgoing: UnboundedReceiver<Message>,
) -> Result<(), Error> {
    let mut request = command["url"].as_str().unwrap_or_default().into_client_request()?;
    let names = command["protocols"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let protocols = names.collect::<Vec<_>>().join(", ");
    if !protocols.is_empty() {
        let value = protocols.parse().expect("subprotocols are tokens");
        request.headers_mut().insert("Sec-WebSocket-Protocol", value);
    }
    let (mut socket, answer) = connect_async(request).await?;
    let field = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    tell(json!({
        "n": n, "is": "open",
        "extensions": field("Sec-WebSocket-Extensions").unwrap_or_default(),
        "protocol": field("Sec-WebSocket-Protocol").unwrap_or_default(),
    }));
    let mut end = None;
    loop {
        let incoming = tokio::select! {
            Some(message) = outgoing.recv() => {
                socket.send(message).await?;
                continue;
            }
            incoming = socket.next() => incoming,
        };
        match incoming {
            Some(Ok(Message::Text(text))) => {
                tell(json!({"n": n, "is": "text", "data": text.as_str()}));
            }
            Some(Ok(Message::Binary(data))) => {
                tell(json!({"n": n, "is": "binary", "data": BASE64_STANDARD.encode(data)}));
            }
            Some(Ok(Message::Pong(data))) => {
                tell(json!({"n": n, "is": "pong", "data": String::from_utf8_lossy(&data)}));
            }
            Some(Ok(Message::Close(frame))) => end = frame,
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Err(error),
            None => break,
        }
    }
    let (code, reason) =
        end.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
    tell(json!({"n": n, "is": "closed", "code": code, "reason": reason}));
    Ok(())
}

fn tell(what: Value) {
    println!("{what}");
}
