//! What the door and the listener count, for `/stats` and `/metrics`. Any thread adds to these.

use std::sync::atomic::AtomicU64;

/// Counts since the server's start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests, upgrades included.
    pub requests: AtomicU64,
    /// Pipes that broke and were replaced.
    pub restarts: AtomicU64,
    /// Connections closed because no request came in time, or to make room for others.
    pub reaped: AtomicU64,
}
