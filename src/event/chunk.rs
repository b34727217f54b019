//! What is written to a client at once, and in which form.

use std::sync::Arc;

use super::batch::Batch;
use crate::http::coding::Coding;
use crate::ws::deflate::Window;

/// The form in which a subscriber gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An event stream. The broadcaster also sends its heartbeats and looks whether it is gone.
    Sse(Coding),
    /// WebSocket frames. The client's own thread does the rest.
    WebSocket,
    /// WebSocket frames, compressed.
    Deflate(Window),
}

impl Form {
    /// `batch` in this form.
    pub fn chunk(self, batch: Arc<Batch>) -> Chunk {
        match self {
            Form::Sse(coding) => Chunk::Sse(batch, coding),
            Form::WebSocket => Chunk::WebSocket(batch),
            Form::Deflate(window) => Chunk::Deflated(batch, window),
        }
    }
}

/// One message on its way to a client.
#[derive(Debug, Clone)]
pub enum Chunk {
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

impl Chunk {
    /// The bytes as the client gets them.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Sse(batch, coding) => batch.sse(*coding),
            Chunk::WebSocket(batch) => batch.websocket(),
            Chunk::Deflated(batch, window) => batch.deflated(*window),
            Chunk::Own(bytes) => bytes,
            Chunk::Fixed(bytes) => bytes,
        }
    }

    /// How many events it is.
    pub fn events(&self) -> usize {
        match self {
            Chunk::Sse(batch, _) | Chunk::WebSocket(batch) | Chunk::Deflated(batch, _) => {
                batch.events().len()
            }
            Chunk::Own(_) | Chunk::Fixed(_) => 0,
        }
    }

    /// For how many messages it counts in a queue.
    pub fn messages(&self) -> usize {
        self.events().max(1)
    }
}
