//! WebSocket clients (RFC 6455): the [handshake], a client's [session], and the [commands] that it may
//! send.
//!
//! The thread of the connection does the handshake, and starts the client's own thread for the session.
//! [`session`] tells what that one waits for.

pub mod commands;
pub mod handshake;
mod output;
mod pulse;
pub mod session;
pub mod start;
mod stream;
