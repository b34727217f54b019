//! What is written to a client at once, and in which encoding.

use std::sync::Arc;

use super::batch::Batch;
use crate::http::coding::Coding;
use crate::ws::deflate::Window;

/// How a subscriber's events are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// An event stream. The broadcaster also sends its heartbeats and looks whether it is gone.
    Sse(Coding),
    /// WebSocket frames. The client's own thread does the rest.
    WebSocket,
    /// WebSocket frames, compressed.
    Deflate(Window),
}

impl Encoding {
    /// `batch` in this encoding.
    pub fn payload(self, batch: Arc<Batch>) -> Payload {
        match self {
            Encoding::Sse(coding) => Payload::Sse(batch, coding),
            Encoding::WebSocket => Payload::WebSocket(batch),
            Encoding::Deflate(window) => Payload::Deflated(batch, window),
        }
    }
}

/// One message on its way to a client.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Events, in the form of an event stream.
    Sse(Arc<Batch>, Coding),
    /// Events, as WebSocket frames.
    WebSocket(Arc<Batch>),
    /// The same, compressed.
    Deflated(Arc<Batch>, Window),
    /// Whole lines or frames that are for this client only.
    Own(Box<[u8]>),
    /// Whole lines that are always the same.
    Fixed(&'static [u8]),
}

impl Payload {
    /// The bytes as the client gets them.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Sse(batch, coding) => batch.sse(*coding),
            Payload::WebSocket(batch) => batch.websocket(),
            Payload::Deflated(batch, window) => batch.deflated(*window),
            Payload::Own(bytes) => bytes,
            Payload::Fixed(bytes) => bytes,
        }
    }

    /// How many events it is.
    pub fn events(&self) -> usize {
        match self {
            Payload::Sse(batch, _) | Payload::WebSocket(batch) | Payload::Deflated(batch, _) => {
                batch.events().len()
            }
            Payload::Own(_) | Payload::Fixed(_) => 0,
        }
    }

    /// For how many messages it counts in a queue.
    pub fn messages(&self) -> usize {
        self.events().max(1)
    }
}
