//! Connections that are not yet clients: how many there may be, and which one makes room.
//!
//! A connection is *pending* from `accept` until it is closed, or becomes an event stream or a
//! WebSocket. Each has a [`Socket`] and a [`Stage`]. There may be so many together; one more makes
//! the table close another, chosen by stage, so that neither many slow connections nor many fast
//! ones keep good clients out. Closing shuts the socket down, which wakes the thread that is
//! blocked on it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::Counters;
use crate::send::wait_readable;

/// What a pending connection is doing, in the order in which connections are closed to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
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
    /// The table has shut it down.
    Evicted,
}

impl Stage {
    fn from_u8(number: u8) -> Stage {
        use Stage::{Evicted, Exchange, Head, Idle, Lingering, Silent};
        [Lingering, Idle, Silent, Head, Exchange, Evicted][usize::from(number)]
    }
}

/// An accepted connection. Its one descriptor is closed when the last user lets go of it.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    peer: SocketAddr,
    stage: AtomicU8,
}

impl Socket {
    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The other end's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What it is doing, while it is pending.
    pub fn stage(&self) -> Stage {
        Stage::from_u8(self.stage.load(Ordering::SeqCst))
    }

    /// An accepted connection, and its peer's end of it.
    #[cfg(test)]
    pub(crate) fn pair() -> (Arc<Socket>, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        (Arc::new(Socket { stream, peer: address, stage: AtomicU8::new(0) }), peer)
    }
}

/// A connection's place in the table, and the bytes that have come and are not used yet. Dropping
/// it gives the place up.
#[derive(Debug)]
pub struct Pending {
    table: Arc<PendingTable>,
    number: u64,
    socket: Arc<Socket>,
    /// Bytes read from the socket and not used: a head's beginning, a body's, the next requests.
    pub bytes: Vec<u8>,
    /// When it was accepted, or its last response was written.
    pub since: Instant,
    /// Whether it has had a response, and was kept open.
    pub is_kept: bool,
}

/// What [`Pending::fill`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// More bytes are there.
    Some,
    /// Nothing came by the deadline.
    TimedOut,
    /// The peer has closed its side, or the connection is broken or evicted.
    Closed,
}

impl Pending {
    /// The connection.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Says what the connection is doing from now on. Returns whether it may: not where the table
    /// has evicted it, or where it would be idle and nothing may be idle any more.
    pub fn enter(&self, stage: Stage) -> bool {
        let change = |old| (old != Stage::Evicted as u8).then_some(stage as u8);
        let changed = self.socket.stage.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        // Asked after the stage is set: `close_idle` sets its flag before it looks at the stages.
        changed.is_ok() && !(stage == Stage::Idle && self.table.is_closing.load(Ordering::SeqCst))
    }

    /// Whether the connection may be kept open for another request: not while the server shuts down.
    pub fn may_be_kept(&self) -> bool {
        !self.table.is_closing.load(Ordering::SeqCst)
    }

    /// Reads at most `most` bytes more. Waits for them until `deadline`; what wakes it earlier is
    /// the peer's end, or the table's.
    pub fn fill(&mut self, most: usize, deadline: Instant) -> Filled {
        loop {
            match wait_readable(self.socket.stream(), deadline) {
                Ok(true) => {}
                Ok(false) => return Filled::TimedOut,
                Err(_) => return Filled::Closed,
            }
            if let Some(filled) = self.fill_now(most) {
                return filled;
            }
        }
    }

    /// The same without waiting; `None` where nothing is there.
    pub fn fill_now(&mut self, most: usize) -> Option<Filled> {
        let length = self.bytes.len();
        self.bytes.resize(length + most, 0);
        let result = recv(self.socket.stream(), &mut self.bytes[length..], RecvFlags::DONTWAIT);
        let read = result.map_or(0, |(read, _)| read);
        self.bytes.truncate(length + read);
        match result {
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(_) if read > 0 => Some(Filled::Some),
            Ok(_) | Err(_) => Some(Filled::Closed),
        }
    }

    /// Gives the place up and keeps the connection: it is a client now.
    pub fn into_client(mut self) -> (Arc<Socket>, Vec<u8>) {
        (Arc::clone(&self.socket), std::mem::take(&mut self.bytes))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.table.entries().remove(&self.number);
    }
}

/// All pending connections.
#[derive(Debug)]
pub struct PendingTable {
    most: usize,
    next: AtomicU64,
    entries: Mutex<HashMap<u64, Arc<Socket>>>,
    is_closing: AtomicBool,
    counters: Arc<Counters>,
}

impl PendingTable {
    /// There may be `most` pending connections.
    pub fn new(most: usize, counters: Arc<Counters>) -> Arc<PendingTable> {
        Arc::new(PendingTable {
            most,
            next: AtomicU64::new(0),
            entries: Mutex::default(),
            is_closing: AtomicBool::new(false),
            counters,
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Arc<Socket>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place to a connection that was accepted from `peer`. Where all are taken, another
    /// one is closed for it.
    ///
    /// # Errors
    /// The connection, where everybody else is being served and holds no more places than `peer`.
    pub fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Pending, TcpStream> {
        let mut entries = self.entries();
        if entries.len() >= self.most && !self.evict(&mut entries, Some(peer.ip())) {
            return Err(stream);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stage = AtomicU8::new(Stage::Silent as u8);
        let socket = Arc::new(Socket { stream, peer, stage });
        entries.insert(number, Arc::clone(&socket));
        let (table, since) = (Arc::clone(self), Instant::now());
        Ok(Pending { table, number, socket, bytes: Vec::new(), since, is_kept: false })
    }

    /// Closes one connection because descriptors or threads have run out. Returns whether it could.
    pub fn make_room(&self) -> bool {
        self.evict(&mut self.entries(), None)
    }

    /// Closes all idle connections, and lets none become idle: the server shuts down.
    pub fn close_idle(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        for socket in self.entries().values().filter(|socket| socket.stage() == Stage::Idle) {
            let _ = socket.stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether any request is being served.
    pub fn is_serving(&self) -> bool {
        self.entries().values().any(|socket| socket.stage() == Stage::Exchange)
    }

    /// Closes all of them.
    pub fn close_all(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        for socket in self.entries().values() {
            let _ = socket.stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes the connection that can be missed most: of the first stage in which there is any, of
    /// the address that has the most connections, the oldest. A newcomer from that address replaces
    /// one of its own; otherwise somebody who keeps nearly all places busy with slow bodies could have
    /// every new head of others closed.
    fn evict(&self, entries: &mut HashMap<u64, Arc<Socket>>, newcomer: Option<IpAddr>) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for socket in entries.values() {
            *counts.entry(counted_address(socket.peer.ip())).or_default() += 1;
        }
        let newcomer = newcomer.map(counted_address);
        let most = counts.values().max().copied().unwrap_or(0);
        let own = newcomer.and_then(|address| counts.get(&address)).copied().unwrap_or(0);
        // With one connection each, everybody has the most.
        let is_greedy = most > 1 && own == most;
        let candidates = entries.iter().filter_map(|(number, socket)| {
            let address = counted_address(socket.peer.ip());
            let count = counts[&address];
            let may_go = match socket.stage() {
                // Who is being served goes only in favour of somebody who has less.
                Stage::Exchange => match newcomer {
                    Some(newcomer) => count > own.max(1) || (is_greedy && address == newcomer),
                    None => false,
                },
                _ => !is_greedy || Some(address) == newcomer,
            };
            may_go.then_some((socket.stage(), usize::MAX - count, *number))
        });
        let Some((_, _, number)) = candidates.min() else { return false };
        if let Some(socket) = entries.remove(&number) {
            socket.stage.store(Stage::Evicted as u8, Ordering::SeqCst);
            let _ = socket.stream.shutdown(Shutdown::Both);
            log::debug!("closed {} to make room", socket.peer);
            self.counters.evicted.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

/// What counts as one address. An IPv4 address is the same one where a socket for both versions
/// shows it mapped into IPv6. Of an IPv6 address only the first 64 bits count: the rest is the
/// host's own to choose (RFC 4291 section 2.5.4, RFC 8981), so one machine has 2^64 of them, and a
/// limit for each would be none.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture(Arc<PendingTable>, std::net::TcpListener, Vec<TcpStream>);

    impl Fixture {
        fn new(most: usize) -> Fixture {
            Fixture(
                PendingTable::new(most, Arc::default()),
                std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
                Vec::new(),
            )
        }

        /// A connection that seems to come from this address.
        fn admit(&mut self, address: &str, stage: Stage) -> Result<Pending, TcpStream> {
            self.2.push(TcpStream::connect(self.1.local_addr().unwrap()).unwrap());
            let (stream, _) = self.1.accept().unwrap();
            let pending = self.0.admit(stream, SocketAddr::new(address.parse().unwrap(), 1))?;
            assert!(pending.enter(stage));
            Ok(pending)
        }
    }

    fn is_evicted(pending: &Pending) -> bool {
        pending.socket().stage() == Stage::Evicted
    }

    #[test]
    fn the_first_stage_goes_first_and_in_it_the_greediest_address() {
        let mut table = Fixture::new(6);
        let [head, exchange] =
            [Stage::Head, Stage::Exchange].map(|stage| table.admit("192.0.2.1", stage).unwrap());
        let one = table.admit("192.0.2.2", Stage::Silent).unwrap();
        let two = table.admit("2001:db8::1", Stage::Silent).unwrap();
        let three = table.admit("2001:db8::2", Stage::Silent).unwrap();
        let idle = table.admit("192.0.2.3", Stage::Idle).unwrap();
        let _four = table.admit("192.0.2.4", Stage::Head).unwrap();
        assert!(is_evicted(&idle) && !idle.enter(Stage::Idle));
        let _five = table.admit("192.0.2.5", Stage::Head).unwrap();
        assert!(is_evicted(&two), "one network of 64 bits has two, and this is its older one");
        let _six = table.admit("192.0.2.6", Stage::Head).unwrap();
        assert!(is_evicted(&one), "nobody silent has more than one: the oldest");
        let _seven = table.admit("192.0.2.7", Stage::Head).unwrap();
        assert!(is_evicted(&three));
        let _eight = table.admit("192.0.2.8", Stage::Head).unwrap();
        assert!(is_evicted(&head) && !is_evicted(&exchange));
        assert_eq!(table.0.counters.reaped(), 5);
    }

    #[test]
    fn the_greediest_makes_room_for_itself() {
        let mut table = Fixture::new(3);
        let good = table.admit("192.0.2.1", Stage::Silent).unwrap();
        let bad: Vec<_> = (0..9).map(|_| table.admit("192.0.2.2", Stage::Head).unwrap()).collect();
        assert!(!is_evicted(&good), "though others have sent more");
        assert_eq!(bad.iter().filter(|one| !is_evicted(one)).count(), 2);
        assert!(bad.iter().filter(|one| !is_evicted(one)).all(|one| one.enter(Stage::Exchange)));
        let _own = table.admit("192.0.2.2", Stage::Exchange).unwrap();
        assert!(!is_evicted(&good) && bad.iter().filter(|one| !is_evicted(one)).count() == 1);
        let _other = table.admit("192.0.2.3", Stage::Head).unwrap();
        assert!(is_evicted(&good), "silent ones go before those that are served");
    }

    #[test]
    fn whoever_is_served_stays_where_nobody_has_more() {
        let mut table = Fixture::new(2);
        let one = table.admit("192.0.2.1", Stage::Exchange).unwrap();
        let _two = table.admit("192.0.2.2", Stage::Exchange).unwrap();
        assert!(table.admit("192.0.2.3", Stage::Silent).is_err());
        drop(one);
        assert!(table.admit("192.0.2.3", Stage::Silent).is_ok());
    }

    #[test]
    fn nobody_is_idle_while_the_server_shuts_down() {
        let mut table = Fixture::new(3);
        let idle = table.admit("192.0.2.1", Stage::Idle).unwrap();
        let busy = table.admit("192.0.2.1", Stage::Exchange).unwrap();
        table.0.close_idle();
        assert!(matches!(idle.socket().stream().peek(&mut [0]), Ok(0)), "shut down");
        assert!(!busy.enter(Stage::Idle));
        assert!(busy.enter(Stage::Lingering));
    }
}
