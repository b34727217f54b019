//! Clients' sessions: what a handler of the server, or of a program that embeds it, works with.
//!
//! A handler runs in its client's own thread, and blocks there: in [`WebSocket::receive`] for the client's
//! messages, in [`EventStream::follow`] for events, in a write while the client is slow, or in whatever the
//! program does. Pings, timeouts, the closing handshake, limits and the shutdown are seen to meanwhile: by
//! these calls, by the client's broadcaster, and by whoever closes the client's outbox.
//!
//! [`WebSocket::receive`]: websocket::WebSocket::receive
//! [`EventStream::follow`]: event_stream::EventStream::follow

pub mod closing;
pub mod error;
pub mod event_stream;
pub mod handshake;
pub mod message;
mod pulse;
mod socket;
pub mod start;
mod state;
pub mod websocket;

/// The names of the parameter for clients that cannot send the header field `Last-Event-ID`. Each polyfill
/// of `EventSource` has its own.
pub const LAST_EVENT_ID_NAMES: [&str; 3] = ["last_event_id", "lastEventId", "last-event-id"];

/// The name of the parameter for clients that want the newest event of each topic at once, unless they come
/// back; and its values, which all mean the same.
pub const LATEST: &str = "latest";
/// See [`LATEST`].
pub const LATEST_VALUES: [&str; 3] = ["", "1", "true"];
