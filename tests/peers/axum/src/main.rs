//! threadcast's contract on axum and tokio, as much of it as the load generator uses.
//!
//! Two ways to run it, because a comparison can be unfair in two directions:
//!
//! - by default: what the documentation of axum shows. `axum::serve`, `Sse` over a stream,
//!   `WebSocketUpgrade`, all with their defaults.
//! - `--mode tuned`: what somebody would do who measures. `TCP_NODELAY`, a backlog of 4096, buffers of
//!   4 KiB for WebSockets and 8 KiB (hyper's least) for HTTP, each event encoded once for everybody.
//!
//! Both have one worker thread per core, which is tokio's default.

mod events;
mod handlers;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, post};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};

use crate::events::Hub;

/// The length of the queue of connections that wait to be accepted, with `--mode tuned`.
const BACKLOG: u32 = 4096;
/// The least that hyper allows.
const HTTP_BUFFER: usize = 8 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// The topics.
    pub hub: Arc<Hub>,
    /// Whether it is `--mode tuned`.
    pub tuned: bool,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut tuned = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--listen", Some(value)) => {
                address = value.parse().map_err(|_| std::io::Error::other("--listen ADDR:PORT"))?;
            }
            ("--mode", Some(value)) => tuned = value == "tuned",
            _ => {
                return Err(std::io::Error::other(
                    "usage: [--listen ADDR:PORT] [--mode tuned|default]",
                ));
            }
        }
    }
    let app = App { hub: Arc::default(), tuned };
    let router = Router::new()
        .route("/events", get(handlers::events))
        .route("/publish", post(handlers::publish))
        .route("/ws", any(handlers::ws))
        .route("/echo", any(handlers::echo))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(app);
    if tuned { serve_tuned(address, router).await } else { serve_default(address, router).await }
}

async fn serve_default(address: SocketAddr, router: Router) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await
}

async fn serve_tuned(address: SocketAddr, router: Router) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: give the others a chance to leave.
            tokio::task::yield_now().await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // A client that goes away in the middle is no news.
            let _ = hyper::server::conn::http1::Builder::new()
                .max_buf_size(HTTP_BUFFER)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}
