//! The door: the listening socket, and every connection until its request is read and checked.
//!
//! The way of a connection:
//!
//! 1. The accept thread, blocked in `accept`, accepts it ([`Door::accept`]), and gives it a place in the
//!    [`PendingTable`]. Where the table is full, it evicts another connection, or this one gets 503.
//! 2. Its head is read and checked ([`head`]). Usually `TCP_DEFER_ACCEPT` has brought all of it already,
//!    and the accept thread reads it without waiting. Otherwise another thread reads it
//!    ([`Door::read_head`]), blocked in `poll`. These wake it: bytes, a peer that closes, the deadline,
//!    an eviction, and the shutdown. A head that is wrong is refused at once ([`refuse`]).
//! 3. Head and socket are kept under a ticket, while the head alone goes through tiny_http
//!    ([`crate::listener`]). The request that comes out redeems the ticket.
//! 4. A thread serves the request, and may read a body ([`body`]). If the connection becomes an event
//!    stream or a WebSocket, it gives up its place in the table, and keeps socket and thread. If it stays
//!    open for another request, it begins again at 2.
//!
//! A last response lingers: we close our half of the connection, and read what the peer still sends. If
//! a socket is closed with unread bytes in it, the kernel resets the connection, and the peer may never
//! see the response (RFC 9112 section 9.6).

pub mod body;
pub mod counters;
pub mod error;
pub mod head;
pub mod pending;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::Config;
use crate::http::head::Head;
use crate::http::{Persistence, Response};
use crate::os::send::{linger, send_all, send_now};
use crate::os::sys;
use counters::Counters;
use error::DoorError;
use head::Scanner;
use pending::{Pending, PendingTable, Stage};

/// The length of the listen queue: connections that wait for `accept`. The kernel's own limit,
/// `somaxconn`, applies too.
const LISTEN_QUEUE: i32 = 4096;

/// The receive buffer of a connection, which the kernel doubles for its own needs. By default it grows
/// to 6 MiB for each client that sends faster than it is read.
const RECEIVE_BUFFER_BYTES: usize = 128 * 1024;

/// Bytes of a head that are read at once. Most heads are shorter.
const READ_BYTES: usize = 2 * 1024;

/// How long a connection that is kept open waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the accept thread sleeps where descriptors or memory have run out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(2);

/// How long a peer may take to accept a response.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long, and for how many bytes, a connection lingers.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 16 << 20);

/// The listening socket and its pending connections.
pub struct Door {
    listener: TcpListener,
    /// The bound address.
    pub address: SocketAddr,
    /// The connections that are not clients yet.
    pub table: Arc<PendingTable>,
    /// Shared with the listener.
    pub counters: Arc<Counters>,
    /// How long a head may take, from `accept` on; and then a body.
    pub header_timeout: Duration,
    max_head: usize,
    is_stopped: AtomicBool,
}

impl Door {
    /// Listens as `config` says, with room for `max_pending` connections that are not clients yet. On port
    /// 0 the system chooses one. An IPv6 address accepts only IPv6, except for `[::]`, which accepts
    /// IPv4 as well (dual stack), whatever the system's default is.
    ///
    /// # Errors
    /// The system's, for example that the port is in use.
    pub fn bind(config: &Config, max_pending: usize) -> io::Result<Door> {
        let domain = Domain::for_address(config.listen);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if let SocketAddr::V6(address) = config.listen {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // Accepted connections inherit all of these options.
        // A restarted server must not wait until the connections of the one before have timed out.
        socket.set_reuse_address(true)?;
        // An event is written whole. Waiting for more bytes to fill a segment would only delay it.
        socket.set_tcp_nodelay(true)?;
        // A client that vanished without a word is found after two minutes.
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15))
            .with_retries(4);
        socket.set_tcp_keepalive(&keepalive)?;
        sys::defer_accept(&socket, config.header_timeout)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.bind(&config.listen.into())?;
        socket.listen(LISTEN_QUEUE)?;
        let (listener, counters) = (TcpListener::from(socket), Arc::<Counters>::default());
        Ok(Door {
            address: listener.local_addr()?,
            listener,
            table: PendingTable::new(max_pending, Arc::clone(&counters)),
            counters,
            header_timeout: config.header_timeout,
            max_head: config.max_head,
            is_stopped: AtomicBool::new(false),
        })
    }

    /// The accept thread's loop, which only [`Door::stop`] ends. `admitted` gets each connection, with its
    /// head if all of it has come and it is right. It must not block.
    pub fn accept(&self, admitted: impl Fn(Pending, Option<Head>)) {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => match self.table.admit(stream, peer) {
                    Ok(mut pending) => {
                        let head = self.head_that_is_here(&mut pending);
                        admitted(pending, head);
                    }
                    Err(stream) => {
                        log::debug!("no place for {peer}");
                        let response = Response::overloaded("all connections are busy");
                        // Without lingering: this thread must not wait for a peer.
                        let _ = send_now(&stream, &response.to_bytes(false, Persistence::Close));
                    }
                },
                Err(_) if self.is_stopped() => return,
                Err(error) => match error.kind() {
                    // The client left before this thread came, or a signal interrupted the call.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // No descriptor or no memory. Nothing tells when there is one again, so the thread
                    // frees one and sleeps.
                    _ => {
                        log::debug!("accept: {error}");
                        self.table.make_room();
                        std::thread::sleep(EXHAUSTED_PAUSE);
                    }
                },
            }
        }
    }

    /// Ends the accept thread, refuses new connections, and closes all in the table.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // This wakes the thread that is blocked in `accept`; closing the descriptor would not.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        self.table.close(|_| true);
    }

    /// Whether [`Door::stop`] has been called.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// The head, if one read that does not wait brings all of it, and it is right. A wrong one is left for
    /// [`Door::read_head`], in a thread that may wait while it refuses it.
    fn head_that_is_here(&self, pending: &mut Pending) -> Option<Head> {
        pending.fill_now(READ_BYTES).ok()?;
        let taken = Scanner::default().take(&mut pending.bytes, self.max_head);
        taken.ok().flatten().filter(|_| pending.enter(Stage::Exchange))
    }

    /// Reads the next head on a connection, and waits for it. Refuses what is wrong. `None` means that no
    /// request comes: the connection is to be dropped.
    pub fn read_head(&self, pending: &mut Pending) -> Option<Head> {
        let mut scanner = Scanner::default();
        let (nothing_yet, timeout) = match pending.is_kept {
            true => (Stage::Idle, IDLE_TIMEOUT),
            false => (Stage::Silent, self.header_timeout),
        };
        let mut deadline = pending.since + timeout;
        // The stage that the table knows, so that it is told only of changes.
        let mut stage = None;
        let error = loop {
            if head::is_tls(&pending.bytes) {
                let peer = pending.peer;
                log::info!("{peer} began a TLS handshake; this port speaks plain HTTP: closed");
                return None;
            }
            match scanner.take(&mut pending.bytes, self.max_head) {
                Ok(Some(head)) => return pending.enter(Stage::Exchange).then_some(head),
                Ok(None) => {}
                Err(error) => break error,
            }
            // Not complete yet. The table must know what has come: it evicts by stage.
            let now = if scanner.has_begun(&pending.bytes) { Stage::Head } else { nothing_yet };
            if stage != Some(now) {
                if !pending.enter(now) {
                    return None;
                }
                // On a connection that stayed open, the time for the next head begins with its first byte.
                if pending.is_kept && now == Stage::Head {
                    deadline = Instant::now() + self.header_timeout;
                }
                stage = Some(now);
            }
            match pending.fill(READ_BYTES, deadline) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut && now != Stage::Idle => {
                    log::debug!("{}: no request in time", pending.peer);
                    self.counters.reaped.fetch_add(1, Ordering::Relaxed);
                    // A client that has sent nothing expects no response: browsers connect in advance.
                    if now == Stage::Silent {
                        return None;
                    }
                    break DoorError::HeadTimeout;
                }
                Err(_) => return None,
            }
        };
        refuse(pending, &error.into());
        None
    }
}

/// Writes a last response and closes the connection.
pub fn refuse(pending: &Pending, response: &Response) {
    log::debug!("{}: refused with {}", pending.peer, response.status);
    let bytes = response.to_bytes(false, Persistence::Close);
    if send_all(&pending.stream, &bytes, Instant::now() + RESPONSE_TIMEOUT).is_ok() {
        linger_and_close(pending);
    }
}

/// Closes our half of the connection, and reads what the peer still sends, so that it sees its last
/// response.
pub fn linger_and_close(pending: &Pending) {
    if pending.enter(Stage::Lingering) {
        linger(&pending.stream, LINGER.0, LINGER.1);
    }
}
