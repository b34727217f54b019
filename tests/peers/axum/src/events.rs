//! Topics, and an event in the forms in which it goes out.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::broadcast;

/// Events a subscriber may be behind before it loses some: what threadcast's `--queue` is.
const QUEUE: usize = 256;
/// The topic of those who name none.
pub const DEFAULT_TOPIC: &str = "default";

/// One event, shared by all who get it.
#[derive(Clone)]
pub struct Event {
    /// `<milliseconds>-<sequence>`.
    pub id: Bytes,
    /// Its name.
    pub name: Bytes,
    /// Its text.
    pub data: Bytes,
    /// The bytes of an event stream: used by `--mode tuned` only.
    pub sse: Bytes,
    /// The text of a WebSocket message.
    pub ws: Utf8Bytes,
}

/// All topics that anybody has ever asked for.
#[derive(Default)]
pub struct Hub {
    topics: Mutex<HashMap<String, broadcast::Sender<Event>>>,
    sequence: AtomicU64,
}

impl Hub {
    fn topic(&self, name: &str) -> broadcast::Sender<Event> {
        let mut topics = self.topics.lock().expect("nobody panics with this lock");
        match topics.get(name) {
            Some(sender) => sender.clone(),
            None => {
                let sender = broadcast::Sender::new(QUEUE);
                topics.insert(name.to_owned(), sender.clone());
                sender
            }
        }
    }

    /// A new subscriber.
    pub fn subscribe(&self, topic: &str) -> broadcast::Receiver<Event> {
        self.topic(topic).subscribe()
    }

    /// Hands an event to everybody; its id, and how many they are.
    pub fn publish(&self, topic: &str, name: &str, data: &str) -> (String, usize) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("{}-{sequence}", now.as_millis());
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        let lines = data.replace('\n', "\ndata: ");
        let event = Event {
            sse: Bytes::from(format!("id: {id}\nevent: {name}\ndata: {lines}\n\n")),
            ws: json!({"type": "event", "id": &id, "topic": topic, "event": name, "data": &data})
                .to_string()
                .into(),
            id: Bytes::from(id.clone()),
            name: Bytes::from(name.to_owned()),
            data: Bytes::from(data),
        };
        let subscribers = self.topic(topic).send(event).unwrap_or(0);
        (id, subscribers)
    }
}
