//! **threadcast**: Server-Sent Events and WebSockets on one port, with one blocking thread per
//! connection and no async runtime. It is a program, and a library for your own: a handler serves one
//! client, in a thread of its own, and may block.
//!
//! ```
//! use threadcast::{Response, Server};
//! use tungstenite::{Message, connect};
//!
//! let server = Server::builder()
//!     .listen("127.0.0.1:0")
//!     .route("GET", "/hello", |_| Response::text("hello"))
//!     .stream("/news", |stream| Ok(stream.follow(["news"])?))
//!     .websocket("/chat", |client| {
//!         client.subscribe(["chat"], None)?;
//!         while let Some(message) = client.receive()? {
//!             client.publish("chat", message.text()?)?;
//!         }
//!         Ok(())
//!     })
//!     .start()?;
//!
//! let (mut client, _) = connect(format!("ws://{}/chat", server.address()))?;
//! client.send(Message::text("hello"))?;
//! assert!(client.read()?.to_text()?.contains(r#""data":"hello""#));
//! server.publish("news", "somebody is here")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to read on
//!
//! | to | read |
//! |---|---|
//! | write your first stream | the [tutorial](docs::tutorial) |
//! | embed it | [`Server`], [`Builder`], [`EventStream`], [`WebSocket`], [`Config`] |
//! | run the program | [how to](docs::howto): systemd, a container, a Raspberry Pi; [behind a proxy](docs::proxies); [restarts and several servers](docs::restarts) |
//! | look something up | the [contract](docs::contract) with clients, their [commands](docs::commands), [who may do what](docs::access), [operation](docs::operation) |
//! | understand it | the [tour](docs::tour) of one event, [what it survives](docs::survives), [what was measured](docs::measured), [words](docs::glossary) |
//! | change it | [contributing](docs::contributing) |
//!
//! The items at the crate's root are what programs use: `tests/api.txt` lists them. The modules below are
//! public to be read; their items may change with any version.
//!
//! # The way of an event
//!
//! ```text
//! door: accept, readers ──► tiny_http ──► listener ──► one thread per client
//!                                                       SSE: asleep   WebSocket: blocked in read
//! POST /publish ─┐
//! tick           ├─► store: id + history ──► hub ──► broadcaster 1..cores (one channel each)
//!                                                        each owns its share of the subscribers
//!                                                        └─► client socket, or the client's channel
//! ```
//!
//! # Layers
//!
//! From the highest down: `flags`, [`builder`], [`server`], [`router`], [`routes`], [`handlers`],
//! [`session`], [`request`], [`sources`], [`app`], [`hub`], [`store`],
//! [`client`], [`auth`], [`listener`], [`door`], [`config`], `assets`, [`event`], [`ws`],
//! [`http`], [`os`]. Each uses only what stands below it, and no two modules use each other, which
//! `tests/layers.rs` checks.
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
pub mod store;
pub mod ws;

pub use auth::permission::PublishPermission;
pub use builder::Builder;
pub use client::reason::Reason;
pub use config::{Config, ConfigError, Fanout, JournalSync};
pub use event::{Draft, Event, EventError, EventId};
pub use http::Response;
pub use http::forwarded::ClientAddress;
pub use hub::Receipt;
pub use hub::reader::Events;
pub use request::Request;
pub use server::{Server, StartError};
pub use session::error::{ClientError, HandlerResult};
pub use session::event_stream::EventStream;
pub use session::message::Message;
pub use session::websocket::{Missed, WebSocket};
pub use store::error::{OpenError, PublishError};
pub use store::journal::error::JournalError;
