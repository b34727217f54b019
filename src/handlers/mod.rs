//! The handlers: a file for each endpoint (`/healthz` is in the router).
//! Each runs in the thread of its connection, which waits only for its own client, or for a broadcaster.
//!
//! Those of clients that stay, [`events`] and [`websockets`], use what every program can use that embeds the
//! server: [`crate::session`].

pub mod commands;
pub mod error;
pub mod events;
pub mod history;
#[cfg(feature = "page")]
pub mod lab;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod publish;
pub mod query;
pub mod stats;
#[cfg(feature = "page")]
pub mod threads;
pub mod ticket;
pub mod websockets;
