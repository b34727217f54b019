//! WebSockets (RFC 6455): the handshake, a client's session, the commands it may give, and what is
//! below them: messages, and their compression (RFC 7692).

mod close_finder;
pub mod commands;
#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "no_deflate.rs"]
pub mod deflate;
pub mod handshake;
pub mod incoming;
pub mod negotiation;
mod pulse;
pub mod session;
mod stream;
pub mod utf8;
