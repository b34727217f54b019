//! The encodings of events.

use crate::http::coding::Coding;
use crate::ws::deflate::{WINDOWS, Window};

/// How a subscriber's events are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// An event stream (WHATWG HTML, section 9.2.6).
    Sse(Coding),
    /// WebSocket text frames (RFC 6455 section 5.2).
    WebSocket,
    /// The same, compressed where that makes them shorter (RFC 7692).
    Deflate(Window),
}

impl Encoding {
    /// How many encodings there are.
    pub(super) const COUNT: usize = 3 + WINDOWS;

    /// The place among all of them.
    pub(super) fn index(self) -> usize {
        match self {
            Encoding::Sse(Coding::Identity) => 0,
            Encoding::Sse(Coding::Chunked) => 1,
            Encoding::WebSocket => 2,
            Encoding::Deflate(window) => 3 + window.index(),
        }
    }
}
