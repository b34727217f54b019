//! Connections that are not clients yet: how many there may be, and which one makes room for another.
//!
//! A connection is *pending* from `accept` until it is closed, or becomes an event stream or a
//! WebSocket. Each one has a place in the [`PendingTable`], with a [`Stage`]. The places are limited.
//! Where all are taken, the table evicts a connection for the next one, chosen by stage and by address,
//! so that neither many slow connections nor many fast ones keep good clients out.
//!
//! The accept thread adds to the table. The thread that has a connection tells the table its stage, and
//! may be blocked in [`Pending::fill`]. An eviction shuts the socket down, which wakes it. The table's
//! lock is held for single steps, never while a thread waits for a peer.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::counters::Counters;
use crate::os::send::wait_readable;

/// What a pending connection is doing. Connections are evicted in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has got its last response, and is read until the peer closes.
    Lingering,
    /// It stays open after a response, and nothing has come since.
    Idle,
    /// It is new, and nothing has come.
    Silent,
    /// A part of a head has come.
    Head,
    /// Its request is being served: a thread reads the body, or writes the response.
    Exchange,
}

/// An accepted connection, with its place in the table, which it gives up when it is dropped.
#[derive(Debug)]
pub struct Pending {
    table: Arc<PendingTable>,
    number: u64,
    /// Shared with the table, which shuts it down to evict, and later with a client's outbox.
    pub stream: Arc<TcpStream>,
    /// The address of the other end: a client's, or a proxy's.
    pub peer: SocketAddr,
    /// Bytes that are read from the socket and not used yet: the beginning of a head or a body, or further
    /// requests.
    pub bytes: Vec<u8>,
    /// When it was accepted, or when its latest response was written.
    pub since: Instant,
    /// Whether it stayed open after a response.
    pub is_kept: bool,
}

impl Pending {
    /// Tells the table the connection's next stage. Returns whether the connection may go on: not if the
    /// table has evicted it, and not to [`Stage::Idle`] while the server shuts down.
    pub fn enter(&self, stage: Stage) -> bool {
        let mut places = self.table.places();
        if stage == Stage::Idle && places.is_closing {
            return false;
        }
        let place = places.taken.get_mut(&self.number);
        place.map(|place| place.stage = stage).is_some()
    }

    /// Whether the connection may stay open for another request: not while the server shuts down.
    pub fn may_be_kept(&self) -> bool {
        !self.table.places().is_closing
    }

    /// Appends bytes from the socket to [`Pending::bytes`], at least one and at most about `size`. Waits
    /// for them until `deadline`, or until the peer closes, or the table evicts the connection.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at the deadline. Any other one means that the connection is over.
    pub fn fill(&mut self, size: usize, deadline: Instant) -> io::Result<()> {
        loop {
            if !wait_readable(&self.stream, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.fill_now(size) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where no bytes have come. Any other one means that the connection is
    /// over.
    pub fn fill_now(&mut self, size: usize) -> io::Result<()> {
        self.bytes.reserve(size);
        match recv(&self.stream, spare_capacity(&mut self.bytes), RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(Errno::AGAIN | Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.table.places().taken.remove(&self.number);
    }
}

/// The places of all pending connections.
#[derive(Debug)]
pub struct PendingTable {
    max_places: usize,
    counters: Arc<Counters>,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// By a number that grows, so the oldest connection has the lowest one.
    taken: HashMap<u64, Place>,
    next_number: u64,
    /// Set at shutdown: no connection may become idle any more.
    is_closing: bool,
}

#[derive(Debug)]
struct Place {
    stream: Arc<TcpStream>,
    /// The peer's [`counted_address`].
    address: IpAddr,
    stage: Stage,
}

impl PendingTable {
    /// A table with `max_places` places.
    pub fn new(max_places: usize, counters: Arc<Counters>) -> Arc<PendingTable> {
        Arc::new(PendingTable { max_places, counters, places: Mutex::default() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place to a connection that was accepted from `peer`. Where all places are taken, evicts
    /// another connection for it; where none may be evicted, gives the connection back as an error.
    pub fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Pending, TcpStream> {
        let (mut places, address) = (self.places(), counted_address(peer.ip()));
        if places.taken.len() >= self.max_places && !self.evict(&mut places, Some(address)) {
            return Err(stream);
        }
        let (number, stream) = (places.next_number, Arc::new(stream));
        let place = Place { stream: Arc::clone(&stream), address, stage: Stage::Silent };
        places.taken.insert(number, place);
        places.next_number += 1;
        let (table, since) = (Arc::clone(self), Instant::now());
        Ok(Pending { table, number, stream, peer, bytes: Vec::new(), since, is_kept: false })
    }

    /// Evicts a connection, if any may be evicted: descriptors or threads have run out.
    pub fn make_room(&self) {
        self.evict(&mut self.places(), None);
    }

    /// The server shuts down: closes all connections in these stages, and lets none become idle any more.
    pub fn close(&self, stages: impl Fn(Stage) -> bool) {
        let mut places = self.places();
        places.is_closing = true;
        for place in places.taken.values().filter(|place| stages(place.stage)) {
            let _ = place.stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether a request is being served.
    pub fn is_serving(&self) -> bool {
        self.places().taken.values().any(|place| place.stage == Stage::Exchange)
    }

    /// Evicts the most dispensable connection, if there is one: of those in the first stage that any is in,
    /// of the address with the most connections, the oldest. Returns whether there was one.
    ///
    /// Two rules protect a client with few connections from one that takes nearly all places. A newcomer
    /// from the address with the most connections replaces one of its own. And a connection whose request
    /// is being served is evicted only in favour of an address that has fewer.
    fn evict(&self, places: &mut Places, newcomer: Option<IpAddr>) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for place in places.taken.values() {
            *counts.entry(place.address).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        let own = newcomer.and_then(|address| counts.get(&address)).copied().unwrap_or(0);
        // If every address has one connection, none is greedy.
        let is_greedy = most > 1 && own == most;
        let may_go = |place: &Place| {
            let is_own = newcomer == Some(place.address);
            match place.stage {
                // Nobody comes instead: a request that is being served is worth more than a descriptor.
                Stage::Exchange if newcomer.is_none() => false,
                Stage::Exchange => counts[&place.address] > own.max(1) || (is_greedy && is_own),
                _ => !is_greedy || is_own,
            }
        };
        // By stage, then by how many connections the address has, then by age.
        let candidates = places.taken.iter().filter(|(_, place)| may_go(place));
        let order = |(number, place): &(&u64, &Place)| {
            (place.stage, Reverse(counts[&place.address]), **number)
        };
        let chosen = candidates.min_by_key(order).map(|(number, _)| *number);
        let Some(place) = chosen.and_then(|number| places.taken.remove(&number)) else {
            return false;
        };
        let _ = place.stream.shutdown(Shutdown::Both);
        log::debug!("evicted a connection of {} to make room", place.address);
        self.counters.reaped.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// The address under which a peer's connections are counted. An IPv4 address counts as itself where a
/// socket for both versions shows it mapped into IPv6. Of an IPv6 address the first 64 bits count: a host
/// chooses the rest (RFC 4291 section 2.5.4, RFC 8981), so one machine has 2^64 addresses, and a limit
/// for each would limit nothing.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        address => address,
    }
}
