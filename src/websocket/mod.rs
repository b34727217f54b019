//! WebSockets (RFC 6455): the handshake, a client's session, and the commands it may give. Below
//! it: messages, and their compression (RFC 7692).

pub mod commands;
#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "no_deflate.rs"]
pub mod deflate;
pub mod handshake;
pub mod incoming;
pub mod negotiation;
pub mod session;
pub mod utf8;
