//! WebSockets (RFC 6455): the handshake, a client's session, and the commands it may give.

pub mod commands;
pub mod handshake;
pub mod session;
