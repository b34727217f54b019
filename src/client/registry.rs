//! The clients that are connected now: how many there may be, who they are, and their end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::client::backlog::Queued;
use crate::client::outbox::Outbox;
use crate::client::reason::Reason;
use crate::door::pending::counted_address;
use crate::http::Response;
use crate::http::forwarded::ClientAddress;
use crate::os::task;

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
    pub peer: ClientAddress,
    /// When it came.
    pub since: Instant,
    outbox: OnceLock<Arc<Outbox>>,
    /// The kernel's number of its thread; 0 where there is none.
    thread: AtomicU32,
}

impl Client {
    /// Where its messages go; `None` in the first moment.
    pub fn outbox(&self) -> Option<&Arc<Outbox>> {
        self.outbox.get()
    }

    /// The kernel's number of the thread that serves it (see [`crate::os::task`]); `None` in the first moment,
    /// and where there are no such numbers.
    pub fn thread(&self) -> Option<u32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }
}

/// All connected clients.
pub struct Clients {
    limit: usize,
    limit_per_address: Option<usize>,
    next: AtomicU64,
    present: Mutex<Present>,
    /// Signalled when the last client leaves.
    empty: Condvar,
}

#[derive(Default)]
struct Present {
    clients: HashMap<u64, Arc<Client>>,
    /// How many of them each address has (see [`counted_address`]); empty without a limit.
    per_address: HashMap<IpAddr, usize>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtCapacity {
    /// All places, of which there are so many, are taken.
    Server(usize),
    /// Its address has all the clients, so many, that an address may have.
    Address(usize),
}

impl From<AtCapacity> for Response {
    fn from(full: AtCapacity) -> Response {
        let (code, message) = match full {
            AtCapacity::Server(limit) => {
                ("full", format!("all {limit} places are taken; try again later"))
            }
            AtCapacity::Address(limit) => (
                "address_full",
                format!("your address has {limit} clients, all it may have; try again later"),
            ),
        };
        Response::error(503, code, message).with("Retry-After", "5")
    }
}

/// A client's place among the connected ones. Dropping it gives the place up, and logs why the client left.
pub struct ClientGuard {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Clients {
    /// Room for `limit` clients, of which an address may have `limit_per_address`.
    pub fn new(limit: usize, limit_per_address: Option<usize>) -> Arc<Clients> {
        Arc::new(Clients {
            limit,
            limit_per_address,
            next: AtomicU64::new(1),
            present: Mutex::default(),
            empty: Condvar::new(),
        })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Everyone who is here.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.present().clients.values().cloned().collect()
    }

    /// What waits for each.
    pub fn queues(&self) -> Vec<Arc<dyn Queued>> {
        let clients = self.present();
        let outboxes = clients.clients.values().filter_map(|client| client.outbox());
        outboxes.map(|outbox| Arc::clone(outbox) as Arc<dyn Queued>).collect()
    }

    /// The client of this number, if it is here.
    pub fn get(&self, number: u64) -> Option<Arc<Client>> {
        self.present().clients.get(&number).cloned()
    }

    /// How many SSE and WebSocket clients there are.
    pub fn counts(&self) -> (usize, usize) {
        let present = &self.present().clients;
        let sse = present.values().filter(|one| one.transport == Transport::Sse).count();
        (sse, present.len() - sse)
    }

    /// A new client.
    ///
    /// # Errors
    /// Where there is no room for it.
    pub fn register(
        self: &Arc<Self>,
        transport: Transport,
        peer: ClientAddress,
    ) -> Result<ClientGuard, AtCapacity> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let (outbox, thread) = (OnceLock::new(), AtomicU32::new(0));
        let client = Arc::new(Client { number, transport, peer, since, outbox, thread });
        self.add(&client)?;
        log::info!("{transport} {peer} connected");
        Ok(ClientGuard { clients: Arc::clone(self), client })
    }

    fn add(&self, client: &Arc<Client>) -> Result<(), AtCapacity> {
        let mut present = self.present();
        if present.clients.len() >= self.limit {
            return Err(AtCapacity::Server(self.limit));
        }
        if let Some(limit) = self.limit_per_address {
            let address = counted_address(client.peer.ip);
            let count = present.per_address.get(&address).copied().unwrap_or(0);
            if count >= limit {
                return Err(AtCapacity::Address(limit));
            }
            present.per_address.insert(address, count + 1);
        }
        present.clients.insert(client.number, Arc::clone(client));
        Ok(())
    }

    /// Waits until nobody is left, at most until `deadline`; returns whether that is so.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut present = self.present();
        while !present.clients.is_empty() {
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

impl ClientGuard {
    /// The client's number.
    pub fn number(&self) -> u64 {
        self.client.number
    }

    /// Shows where the client's messages go, to statistics and to the shutdown.
    pub fn set_outbox(&self, outbox: &Arc<Outbox>) {
        let _ = self.client.outbox.set(Arc::clone(outbox));
    }

    /// Makes the calling thread the one that serves the client, for those who watch threads.
    pub fn set_thread(&self) {
        self.client.thread.store(task::this_thread(), Ordering::Relaxed);
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        let Client { transport, peer, since, .. } = *self.client;
        // Whole milliseconds: more digits would be noise.
        let stayed = Duration::from_millis(since.elapsed().as_millis() as u64);
        let outbox = self.client.outbox();
        let sent = outbox.map_or(0, |outbox| outbox.sent());
        // Nobody has given a reason where the client's thread has panicked.
        let reason = outbox.and_then(|outbox| outbox.close_reason()).unwrap_or(Reason::Internal);
        log::info!(
            "{transport} {peer} left after {}, {sent} events sent: {reason}",
            humantime::format_duration(stayed),
        );
        let mut present = self.clients.present();
        present.clients.remove(&self.client.number);
        if let Entry::Occupied(mut count) = present.per_address.entry(counted_address(peer.ip)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if present.clients.is_empty() {
            self.clients.empty.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(clients: &Arc<Clients>, address: &str) -> Result<ClientGuard, AtCapacity> {
        clients
            .register(Transport::Sse, ClientAddress { ip: address.parse().unwrap(), port: Some(1) })
    }

    #[test]
    fn an_address_has_so_many_places_and_no_more() {
        let clients = Clients::new(100, Some(2));
        let first = enter(&clients, "192.0.2.1").unwrap();
        let _mapped = enter(&clients, "::ffff:192.0.2.1").unwrap();
        assert_eq!(enter(&clients, "192.0.2.1").err(), Some(AtCapacity::Address(2)));
        let _neighbour = enter(&clients, "192.0.2.2").unwrap();
        drop(first);
        let _next = enter(&clients, "192.0.2.1").unwrap();
        assert_eq!(enter(&clients, "::ffff:192.0.2.1").err(), Some(AtCapacity::Address(2)));
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let clients = Clients::new(100, Some(1));
        let _one = enter(&clients, "2001:db8:0:1::1").unwrap();
        let same = enter(&clients, "2001:db8:0:1:ffff:ffff:ffff:ffff");
        assert_eq!(same.err(), Some(AtCapacity::Address(1)));
        let _other = enter(&clients, "2001:db8:0:2::1").unwrap();
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_have_left() {
        let clients = Clients::new(3, Some(2));
        let all: Vec<_> = ["192.0.2.1", "192.0.2.1", "2001:db8::1"]
            .iter()
            .map(|address| enter(&clients, address).unwrap())
            .collect();
        assert_eq!(clients.present().per_address.len(), 2);
        assert_eq!(enter(&clients, "192.0.2.9").err(), Some(AtCapacity::Server(3)));
        drop(all);
        assert!(clients.present().per_address.is_empty());
        assert!(clients.present().clients.is_empty());
        let unlimited = Clients::new(3, None);
        let _guard = enter(&unlimited, "192.0.2.1").unwrap();
        assert!(unlimited.present().per_address.is_empty());
    }
}
