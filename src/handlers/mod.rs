//! The handlers: a file for each endpoint (`/healthz` is in the router; `/stats` and `/metrics` share one). Each runs in the thread of its connection, which the
//! listener has started for it, and which waits only for its own client, or for a broadcaster.

pub mod error;
pub mod publish;
pub mod query;
pub mod sse;
pub mod stats;
pub mod ticket;
pub mod websocket;
