//! The handlers: a file for each endpoint. Each runs in the thread of its connection, which the
//! listener has started for it, and which waits only for its own client, or for a broadcaster.

pub mod error;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod publish;
pub mod query;
pub mod sse;
pub mod stats;
pub mod ticket;
pub mod websocket;
