//! What is done with requests: a file for each endpoint. Each runs in the thread of its connection.

pub mod publish;
pub mod query;
pub mod sse;
pub mod stats;
pub mod ticket;
pub mod websocket;
