//! One connected client: its queue and the way to its socket, its place among all, and its end.

pub mod backlog;
pub mod hangup;
pub mod outbox;
pub mod reason;
pub mod registry;
