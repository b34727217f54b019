//! The door: the listening socket, and every connection until its request is read and checked.
//!
//! The way of a connection:
//!
//! 1. The accept thread, blocked in `accept`, takes it ([`Door::accept`]). It gets a place in the
//!    [`PendingTable`], which may evict another one for it, or 503.
//! 2. Its head is read and checked ([`head`]). Where `TCP_DEFER_ACCEPT` has brought all of it already,
//!    the accept thread takes it without waiting; otherwise another thread reads it
//!    ([`Door::read_head`]), blocked in `poll`. A peer that closes, the deadline, the table that needs
//!    the place, and the shutdown all wake it. What is wrong is answered there and then ([`refuse`]).
//! 3. Head and socket wait under a ticket, and the head goes through tiny_http
//!    ([`crate::listener`]), whose request takes them out again.
//! 4. A thread serves it, and may read a body ([`body`]). A client gives its place in the table up
//!    and keeps socket and thread; a connection that is kept open begins again at 2.
//!
//! A last response lingers: our end is closed, and what the peer still sends is read, because a
//! socket closed with unread bytes in it resets the connection, and the peer may never see the
//! response (RFC 9112 section 9.6).

pub mod body;
pub mod counters;
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
use head::Scanner;
use pending::{Pending, PendingTable, Stage};

/// Connections that the kernel keeps ready for `accept` (its own limit, `somaxconn`, applies too).
const LISTEN_QUEUE: i32 = 4096;

/// The receive buffer of a connection (the kernel doubles it, for its own needs). By default it
/// grows to 6 MiB, for everybody who sends ahead of their reader.
const RECEIVE_BUFFER_BYTES: usize = 128 * 1024;

/// Bytes of a head read at once. Most heads are shorter.
const READ_BYTES: usize = 2 * 1024;

/// How long a connection that is kept open waits for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long `accept` waits where descriptors or memory have run out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(2);

/// How long a peer may take to accept a response.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long, and for how many bytes, a peer is read after its last response.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 16 << 20);

/// The listening socket and its pending connections.
pub struct Door {
    listener: TcpListener,
    /// The bound address.
    pub address: SocketAddr,
    /// All pending connections.
    pub table: Arc<PendingTable>,
    /// Where the door and the listener count.
    pub counters: Arc<Counters>,
    /// How long a head may take, from `accept` on; and then a body.
    pub header_timeout: Duration,
    max_head: usize,
    is_stopped: AtomicBool,
}

impl Door {
    /// Listens as `config` says, for at most `max_pending` connections that are not clients. Port 0
    /// lets the system choose. An IPv6 address accepts IPv6 only, but for `[::]`, which accepts IPv4
    /// as well (dual stack), whatever the system's default is.
    ///
    /// # Errors
    /// What the system says, for example that the port is in use.
    pub fn bind(config: &Config, max_pending: usize) -> io::Result<Door> {
        let domain = Domain::for_address(config.listen);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if let SocketAddr::V6(address) = config.listen {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // What is set here, accepted connections inherit.
        // A restarted server must not wait for its predecessor's connections to time out.
        socket.set_reuse_address(true)?;
        // An event is written whole, at once; waiting to fill a segment would only delay it.
        socket.set_tcp_nodelay(true)?;
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

    /// Accepts until [`Door::stop`]. `admitted` gets each connection, and its head if that is here
    /// and right; it must not block. The body of the accept thread, which nothing but `stop` ends.
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
                        // Not lingering: this thread must not wait for a peer.
                        let _ = send_now(&stream, &response.to_bytes(false, Persistence::Close));
                    }
                },
                Err(_) if self.is_stopped() => return,
                Err(error) => match error.kind() {
                    // The connection went before it was accepted, or a signal came.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // No descriptor or no memory: nothing tells when there is one again.
                    _ => {
                        log::debug!("accept: {error}");
                        self.table.make_room();
                        std::thread::sleep(EXHAUSTED_PAUSE);
                    }
                },
            }
        }
    }

    /// Refuses new connections, and closes all pending ones. Ends the accept thread.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // Wakes the accept thread; closing the descriptor would not.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        self.table.close(|_| true);
    }

    /// Whether [`Door::stop`] has been called.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// The head, if one read that does not wait brings all of it and it is right. What is wrong is
    /// left for [`Door::read_head`] to find, in a thread that may wait.
    fn head_that_is_here(&self, pending: &mut Pending) -> Option<Head> {
        pending.fill_now(READ_BYTES).ok()?;
        let taken = Scanner::default().take(&mut pending.bytes, self.max_head);
        taken.ok().flatten().filter(|_| pending.enter(Stage::Exchange))
    }

    /// Reads the next head on a connection, waiting for it. `None` where there is none: the
    /// connection is over, or what came is refused.
    pub fn read_head(&self, pending: &mut Pending) -> Option<Head> {
        let mut scanner = Scanner::default();
        let (nothing_yet, timeout) = match pending.is_kept {
            true => (Stage::Idle, IDLE_TIMEOUT),
            false => (Stage::Silent, self.header_timeout),
        };
        let mut deadline = pending.since + timeout;
        let mut stage = None;
        let refusal = loop {
            if head::is_tls(&pending.bytes) {
                let peer = pending.peer;
                log::info!("{peer} began a TLS handshake; this port speaks plain HTTP: closed");
                return None;
            }
            match scanner.take(&mut pending.bytes, self.max_head) {
                Ok(Some(head)) => return pending.enter(Stage::Exchange).then_some(head),
                Ok(None) => {}
                Err(response) => break response,
            }
            let now = if scanner.has_begun(&pending.bytes) { Stage::Head } else { nothing_yet };
            if stage != Some(now) {
                if !pending.enter(now) {
                    return None;
                }
                // The time for a head on a kept connection begins with its first byte.
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
                    // Who has said nothing is told nothing.
                    if now == Stage::Silent {
                        return None;
                    }
                    let message = "the request did not arrive in time (--header-timeout)";
                    break Response::error(408, "timeout", message);
                }
                Err(_) => return None,
            }
        };
        refuse(pending, &refusal);
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

/// Closes our end, and reads what the peer still sends, so that it can see its last response.
pub fn linger_and_close(pending: &Pending) {
    if pending.enter(Stage::Lingering) {
        linger(&pending.stream, LINGER.0, LINGER.1);
    }
}
