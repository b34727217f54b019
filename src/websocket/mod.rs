//! WebSockets (RFC 6455): the handshake, and a client's session.

pub mod handshake;
pub mod session;
