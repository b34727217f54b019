//! **threadcast**: Server-Sent Events and WebSockets on one port, with one blocking thread per
//! connection and no async runtime.
//!
//! # The way of an event
//!
//! ```text
//! door: accept, readers ──► tiny_http ──► listener ──► one thread per client
//!                                                       SSE: asleep   WebSocket: blocked in read
//! POST /publish ─┐
//! tick           ├─► hub: id + history ──► broadcaster 1..cores (one channel each)
//!                                              each owns its share of the subscribers
//!                                              └─► client socket, or the client's channel
//! ```
//!
//! The book is in [`docs`]; its [tour](docs::tour) follows one event through the source.
//!
//! # Layers
//!
//! From the highest down: `flags`, [`builder`], [`server`], [`router`], [`routes`], [`handlers`],
//! [`session`], [`request`], [`sources`], [`app`], [`hub`],
//! [`client`], [`auth`], [`listener`], [`door`], [`config`], `assets`, [`event`], [`ws`],
//! [`http`], [`os`]. Each uses only what stands below it, and no two modules use each other, which
//! `tests/layers.rs` checks.
//!
//! # Embedding
//!
//! ```
//! use threadcast::{Config, Server};
//!
//! let mut config = Config::default();
//! config.set_listen("127.0.0.1:0")?;
//! let server = Server::start(config)?;
//! println!("listening on http://{}", server.address());
//! assert!(server.shutdown());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

#[cfg(not(unix))]
compile_error!("threadcast needs a Unix: it writes sockets without waiting, and waits in poll");

pub mod app;
#[cfg(feature = "page")]
pub mod assets;
pub mod auth;
pub mod builder;
pub mod client;
pub mod config;
pub mod docs;
pub mod door;
pub mod event;
#[cfg(feature = "cli")]
pub mod flags;
pub mod handlers;
pub mod http;
pub mod hub;
pub mod listener;
pub mod os;
pub mod request;
pub mod router;
pub mod routes;
pub mod server;
pub mod session;
pub mod sources;
pub mod ws;

pub use auth::permission::PublishPermission;
pub use builder::Builder;
pub use client::reason::Reason;
pub use config::{Config, ConfigError, Fanout};
pub use event::{Draft, Event, EventError, EventId};
pub use http::Response;
pub use http::forwarded::ClientAddress;
pub use hub::Receipt;
pub use hub::error::PublishError;
pub use hub::reader::Events;
pub use request::Request;
pub use server::{Server, StartError};
pub use session::error::{ClientError, HandlerResult};
pub use session::event_stream::EventStream;
pub use session::message::Message;
pub use session::websocket::{Missed, WebSocket};
