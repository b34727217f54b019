//! Connections that are not yet clients: how many there may be, and which one makes room.
//!
//! A connection is *pending* from `accept` until it is closed, or becomes an event stream or a
//! WebSocket. Each has a place in the table, with a [`Stage`]. There may be so many together; one
//! more makes the table evict another, chosen by stage, so that neither many slow connections nor
//! many fast ones keep good clients out. Evicting shuts the socket down, which wakes the thread
//! that is blocked on it.

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

/// What a pending connection is doing, in the order in which connections are evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has its last response, and is read until the peer closes.
    Lingering,
    /// It is kept open after a response; nothing has come since.
    Idle,
    /// Nothing has ever come.
    Silent,
    /// A part of a head has come.
    Head,
    /// Its request is being served: the body is read, or the response is written.
    Exchange,
}

/// An accepted connection, its place in the table, and the bytes that have come and are not used
/// yet. Dropping it gives the place up.
#[derive(Debug)]
pub struct Pending {
    table: Arc<PendingTable>,
    number: u64,
    /// The connection. Its one descriptor is closed when the last user lets go of it.
    pub stream: Arc<TcpStream>,
    /// The other end's address.
    pub peer: SocketAddr,
    /// Bytes read from the socket and not used: a head's beginning, a body's, the next requests.
    pub bytes: Vec<u8>,
    /// When it was accepted, or its last response was written.
    pub since: Instant,
    /// Whether it has had a response, and was kept open.
    pub is_kept: bool,
}

impl Pending {
    /// Says what the connection is doing from now on. Returns whether it may: not where the table
    /// has evicted it, or where it would be idle and nothing may be idle any more.
    pub fn enter(&self, stage: Stage) -> bool {
        let mut places = self.table.places();
        if stage == Stage::Idle && places.is_closing {
            return false;
        }
        let place = places.taken.get_mut(&self.number);
        place.map(|place| place.stage = stage).is_some()
    }

    /// Whether the connection may be kept open for another request: not while the server shuts down.
    pub fn may_be_kept(&self) -> bool {
        !self.table.places().is_closing
    }

    /// Reads more bytes into a buffer of at least `size`. Waits for them until `deadline`; what wakes
    /// it earlier is the peer's end, or the table's. Fails with [`io::ErrorKind::TimedOut`] at the
    /// deadline; any other error means that the connection is over.
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

    /// The same without waiting. Fails with [`io::ErrorKind::WouldBlock`] where nothing is there.
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

/// All pending connections.
#[derive(Debug)]
pub struct PendingTable {
    most: usize,
    counters: Arc<Counters>,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// By a number that grows: the oldest has the lowest one.
    taken: HashMap<u64, Place>,
    next_number: u64,
    is_closing: bool,
}

#[derive(Debug)]
struct Place {
    stream: Arc<TcpStream>,
    /// The peer's; see [`counted_address`].
    address: IpAddr,
    stage: Stage,
}

impl PendingTable {
    /// There may be `most` pending connections.
    pub fn new(most: usize, counters: Arc<Counters>) -> Arc<PendingTable> {
        Arc::new(PendingTable { most, counters, places: Mutex::default() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place to a connection that was accepted from `peer`. Where all are taken, another
    /// one is evicted for it; where none may be, the connection is given back.
    pub fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Pending, TcpStream> {
        let (mut places, address) = (self.places(), counted_address(peer.ip()));
        if places.taken.len() >= self.most && !self.evict(&mut places, Some(address)) {
            return Err(stream);
        }
        let (number, stream) = (places.next_number, Arc::new(stream));
        let place = Place { stream: Arc::clone(&stream), address, stage: Stage::Silent };
        places.taken.insert(number, place);
        places.next_number += 1;
        let (table, since) = (Arc::clone(self), Instant::now());
        Ok(Pending { table, number, stream, peer, bytes: Vec::new(), since, is_kept: false })
    }

    /// Evicts one connection because descriptors or threads have run out, if any may go.
    pub fn make_room(&self) {
        self.evict(&mut self.places(), None);
    }

    /// Closes all connections in these stages, and lets none become idle: the server shuts down.
    pub fn close(&self, stages: impl Fn(Stage) -> bool) {
        let mut places = self.places();
        places.is_closing = true;
        for place in places.taken.values().filter(|place| stages(place.stage)) {
            let _ = place.stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether any request is being served.
    pub fn is_serving(&self) -> bool {
        self.places().taken.values().any(|place| place.stage == Stage::Exchange)
    }

    /// Evicts the connection that can be missed most: of the first stage in which there is any, of
    /// the address that has the most connections, the oldest. A newcomer from that address replaces
    /// one of its own; otherwise somebody who keeps nearly all places busy with slow bodies could have
    /// every new head of others closed. Returns whether there was one.
    fn evict(&self, places: &mut Places, newcomer: Option<IpAddr>) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for place in places.taken.values() {
            *counts.entry(place.address).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        let own = newcomer.and_then(|address| counts.get(&address)).copied().unwrap_or(0);
        // With one connection each, everybody has the most.
        let is_greedy = most > 1 && own == most;
        let may_go = |place: &Place| {
            let is_own = newcomer == Some(place.address);
            match place.stage {
                // Who is being served goes only in favour of somebody who has less.
                Stage::Exchange if newcomer.is_none() => false,
                Stage::Exchange => counts[&place.address] > own.max(1) || (is_greedy && is_own),
                _ => !is_greedy || is_own,
            }
        };
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

/// What counts as one address. An IPv4 address is the same one where a socket for both versions
/// shows it mapped into IPv6. Of an IPv6 address only the first 64 bits count: the rest is the
/// host's own to choose (RFC 4291 section 2.5.4, RFC 8981), so one machine has 2^64 of them, and a
/// limit for each would be none.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        address => address,
    }
}
