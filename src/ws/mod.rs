//! The WebSocket protocol below a session: frames, messages, and their compression (RFC 6455, RFC
//! 7692). Nothing here knows clients or events.

mod close_finder;
#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "no_deflate.rs"]
pub mod deflate;
pub mod failure;
pub mod frame;
pub mod incoming;
pub mod negotiation;
pub mod utf8;
