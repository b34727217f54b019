//! What concerns one connected client.

pub mod hangup;
