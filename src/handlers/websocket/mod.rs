//! WebSocket clients (RFC 6455): the handshake, a client's session, and the commands it may give.

pub mod commands;
pub mod handshake;
mod output;
mod pulse;
pub mod session;
pub mod start;
mod stream;
