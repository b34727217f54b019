//! One function per line of the contract.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

use crate::App;
use crate::events::{DEFAULT_TOPIC, Event};

/// WebSocket buffers with `--mode tuned`; tungstenite's default is 128 KiB for reading alone.
const WS_BUFFER: usize = 4 * 1024;
const GREETING: &str = r#"{"message":"Connection established"}"#;
const WELCOME: &str = r#"{"type":"info","message":"Welcome to WS Server"}"#;

/// What may stand behind the question mark.
#[derive(Deserialize)]
pub struct Parameters {
    topic: Option<String>,
    event: Option<String>,
}

/// A line of a batch.
#[derive(Deserialize)]
struct Line {
    topic: Option<String>,
    event: Option<String>,
    data: Value,
}

/// `GET /events`.
pub async fn events(State(app): State<App>, Query(query): Query<Parameters>) -> Response {
    let receiver = app.hub.subscribe(query.topic.as_deref().unwrap_or(DEFAULT_TOPIC));
    if app.tuned { events_tuned(receiver) } else { events_default(receiver) }
}

/// As axum's documentation has it: events are made of parts for each subscriber.
fn events_default(receiver: Receiver<Event>) -> Response {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let live = BroadcastStream::new(receiver).filter_map(Result::ok).map(move |event: Event| {
        SseEvent::default().id(text(&event.id)).event(text(&event.name)).data(text(&event.data))
    });
    let first = tokio_stream::once(SseEvent::default().data(GREETING));
    Sse::new(first.chain(live).map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// The same bytes for everybody.
fn events_tuned(receiver: Receiver<Event>) -> Response {
    let first = Bytes::from(format!("retry: 2000\ndata: {GREETING}\n\n"));
    let live = BroadcastStream::new(receiver).filter_map(Result::ok).map(|event| event.sse);
    let body = Body::from_stream(tokio_stream::once(first).chain(live).map(Ok::<_, Infallible>));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, body).into_response()
}

/// `POST /publish`: one event, or one a line.
pub async fn publish(
    State(app): State<App>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let topic = query.topic.as_deref().unwrap_or(DEFAULT_TOPIC);
    let event = query.event.as_deref().unwrap_or("message");
    let is_lines = headers.get(header::CONTENT_TYPE).is_some_and(|t| t == "application/x-ndjson");
    if !is_lines {
        let (id, subscribers) = app.hub.publish(topic, event, &body);
        return Json(json!({"id": id, "subscribers": subscribers})).into_response();
    }
    let lines: Result<Vec<Line>, _> =
        body.lines().filter(|l| !l.is_empty()).map(serde_json::from_str).collect();
    let Ok(lines) = lines else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (mut id, mut subscribers) = (String::new(), 0);
    for line in &lines {
        let data = match &line.data {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let topic = line.topic.as_deref().unwrap_or(topic);
        (id, subscribers) = app.hub.publish(topic, line.event.as_deref().unwrap_or(event), &data);
    }
    Json(json!({"id": id, "subscribers": subscribers, "events": lines.len()})).into_response()
}

fn sized(upgrade: WebSocketUpgrade, tuned: bool) -> WebSocketUpgrade {
    match tuned {
        true => upgrade.read_buffer_size(WS_BUFFER).write_buffer_size(WS_BUFFER),
        false => upgrade,
    }
}

/// An upgrade on `/echo`.
pub async fn echo(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    sized(upgrade, app.tuned).on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let is_data = matches!(message, Message::Text(_) | Message::Binary(_));
            if is_data && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// An upgrade on `/ws`.
pub async fn ws(
    State(app): State<App>,
    Query(query): Query<Parameters>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let topic = query.topic.unwrap_or_else(|| DEFAULT_TOPIC.to_owned());
    sized(upgrade, app.tuned).on_upgrade(move |socket| async move {
        let receiver = app.hub.subscribe(&topic);
        // The error is a client that has gone.
        let _ = session(socket, receiver).await;
    })
}

async fn session(mut socket: WebSocket, mut receiver: Receiver<Event>) -> Result<(), axum::Error> {
    socket.send(Message::text(WELCOME)).await?;
    loop {
        tokio::select! {
            event = receiver.recv() => match event {
                Ok(event) => socket.send(Message::Text(event.ws)).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let answer = json!({"type": "response", "original": text.as_str()});
                    socket.send(Message::text(answer.to_string())).await?;
                }
                Some(Ok(Message::Binary(data))) => socket.send(Message::Binary(data)).await?,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
        }
    }
}
