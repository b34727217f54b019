//! What the door and the listener count.

use std::sync::atomic::AtomicU64;

/// What happened since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests, upgrades included.
    pub requests: AtomicU64,
    /// Pipes that broke and were replaced.
    pub restarts: AtomicU64,
    /// Connections closed because no request came of them in time, or to make room for others.
    pub reaped: AtomicU64,
}
