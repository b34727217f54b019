//! The WebSocket protocol below a session: frames, messages, and their compression (RFC 6455, RFC
//! 7692). Nothing here knows clients or events.
//!
//! Reading ([`incoming`] and what it uses) is done by each client's own thread, which blocks in
//! `read`. Frames to clients are made by whichever thread has something to send, without waiting;
//! only the pools of [`deflate`] are shared, and their locks are held for a push or a pop.

mod close_finder;
#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "no_deflate.rs"]
pub mod deflate;
pub mod failure;
pub mod frame;
pub mod incoming;
mod message;
pub mod negotiation;
pub mod utf8;
