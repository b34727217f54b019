//! The clients that are connected now: how many there may be, who they are, and their end.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::hub::outbox::{Outbox, Reason};

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// An event stream.
    Sse,
    /// A WebSocket.
    WebSocket,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Sse => "sse",
            Transport::WebSocket => "websocket",
        })
    }
}

/// One connected client.
pub struct Client {
    /// Its number; not used again.
    pub number: u64,
    /// How it is connected.
    pub transport: Transport,
    /// Its address.
    pub peer: SocketAddr,
    /// When it came.
    pub since: Instant,
    outbox: OnceLock<Arc<Outbox>>,
}

impl Client {
    /// Where its messages go; `None` in the first moment.
    pub fn outbox(&self) -> Option<&Arc<Outbox>> {
        self.outbox.get()
    }
}

/// All connected clients.
pub struct Clients {
    limit: usize,
    next: AtomicU64,
    present: Mutex<HashMap<u64, Arc<Client>>>,
    /// Signalled when the last client leaves.
    empty: Condvar,
}

/// A client's stay. Dropping it ends the stay, and logs it.
pub struct Stay {
    clients: Arc<Clients>,
    client: Arc<Client>,
    reason: Reason,
}

impl Clients {
    /// Room for `limit` clients.
    pub fn new(limit: usize) -> Arc<Clients> {
        Arc::new(Clients {
            limit,
            next: AtomicU64::new(1),
            present: Mutex::default(),
            empty: Condvar::new(),
        })
    }

    fn present(&self) -> MutexGuard<'_, HashMap<u64, Arc<Client>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Everyone who is here.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.present().values().cloned().collect()
    }

    /// How many SSE and WebSocket clients there are.
    pub fn counts(&self) -> (usize, usize) {
        let present = self.present();
        let sse = present.values().filter(|one| one.transport == Transport::Sse).count();
        (sse, present.len() - sse)
    }

    /// A new client, if there is room.
    pub fn enter(self: &Arc<Self>, transport: Transport, peer: SocketAddr) -> Option<Stay> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let client = Arc::new(Client { number, transport, peer, since, outbox: OnceLock::new() });
        {
            let mut present = self.present();
            if present.len() >= self.limit {
                return None;
            }
            present.insert(number, Arc::clone(&client));
        }
        log::info!("{transport} {peer} connected");
        Some(Stay { clients: Arc::clone(self), client, reason: Reason::Internal })
    }

    /// Waits until nobody is left, at most until `deadline`; returns whether that is so.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut present = self.present();
        while !present.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.empty.wait_timeout(present, left);
            present = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Stay {
    /// The client's number.
    pub fn number(&self) -> u64 {
        self.client.number
    }

    /// Shows where the client's messages go, to statistics and to the shutdown.
    pub fn show(&self, outbox: &Arc<Outbox>) {
        let _ = self.client.outbox.set(Arc::clone(outbox));
    }

    /// Sets why the client leaves.
    pub fn leave(mut self, reason: Reason) {
        self.reason = reason;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let Client { transport, peer, since, .. } = *self.client;
        // Whole milliseconds: more digits would be noise.
        let stayed = Duration::from_millis(since.elapsed().as_millis() as u64);
        let sent = self.client.outbox().map_or(0, |outbox| outbox.sent());
        log::info!(
            "{transport} {peer} left after {}, {sent} events sent: {}",
            humantime::format_duration(stayed),
            self.reason
        );
        let mut present = self.clients.present();
        present.remove(&self.client.number);
        if present.is_empty() {
            self.clients.empty.notify_all();
        }
    }
}
