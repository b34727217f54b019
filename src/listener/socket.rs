//! Taking a connection's socket back from tiny_http.
//!
//! tiny_http hands out requests, never sockets, and keeps a worker thread on every connection. A
//! server that streams needs the socket itself: to set deadlines, to write without blocking, to
//! wake a blocked read. The request does tell its peer's address, and for one listener that
//! address names one connection, so the socket can be found among this process's descriptors.
//!
//! tiny_http 0.12 owns each connection through two descriptors: the one it accepted (its
//! *writer*, kept alive by the [`Request`]) and a duplicate (its *reader*, kept alive by the
//! request only where the request has a body or asks for an upgrade, else by the worker that
//! waits for the next request). Three operations build on that:
//!
//! * [`Sockets::claim`] duplicates a descriptor first and checks *the duplicate's* peer, so a
//!   number that is closed and reused under our hands makes the claim miss, never hit a stranger.
//! * [`Claim::detach`] replaces both of tiny_http's descriptors by `/dev/null`, after proving that
//!   the request really holds them. What remains is one descriptor that is ours alone.
//! * [`discard`] drops a request without waiting for, or allocating, a body nobody reads.
//!
//! This is the only file of the crate with `unsafe` in it. What it does to numbers it does not
//! own is limited to system calls that look (`getpeername`, `getsockname`, `fstat`) or duplicate;
//! these are harmless on any number, open or not. The one that changes a number is in `detach`.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiny_http::Request;

use super::numbers::Numbers;
use crate::status;

/// What a client may send behind its upgrade request before the handshake is answered. RFC 6455
/// section 4.1 tells it to wait, so anything much larger than a read buffer is an attack.
const MAX_EARLY_BYTES: usize = 64 * 1024;

/// Why a request's socket could not be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimError {
    /// The connection is no longer open: the peer reset it, or it was answered and shut down.
    Gone,
    /// The connection is already claimed by an earlier request: this one was pipelined behind it.
    /// The connection has been shut down.
    Pipelined,
    /// Two connections of this peer differ only in our own address; which one the request came
    /// from cannot be told. Both have been shut down.
    Ambiguous,
    /// No descriptor is left to duplicate one.
    NoDescriptor,
}

/// The descriptors of this process that belong to claimed connections of one listener.
///
pub struct Sockets {
    port: u16,
    /// No descriptor of this process has a number at or above this one.
    limit: RawFd,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// A number is owned while it certainly belongs to a claim.
    numbers: Numbers,
    /// By inode.
    claimed: HashMap<u64, Entry>,
    /// The inode that was claimed last for each peer.
    peers: HashMap<SocketAddr, u64>,
    settling: Vec<Settling>,
}

struct Entry {
    fd: RawFd,
    /// tiny_http's writer, once it can be told from its reader.
    writer: Option<RawFd>,
}

/// An SSE client's two tiny_http descriptors, until the worker has gone home and closed its own:
/// the one that is left is the writer.
struct Settling {
    inode: u64,
    candidates: [RawFd; 2],
}

/// One accepted connection that no request has claimed yet, as [`Sockets::survey`] sees it.
#[derive(Debug, Clone, Copy)]
pub struct Unclaimed {
    /// A descriptor number that belonged to the connection when it was looked at.
    fd: RawFd,
    /// The kernel's name for the socket: equal for all its descriptors, unique while it lives.
    pub inode: u64,
    /// Bytes received so far; 0 where the system does not tell (only Linux does).
    pub received: u64,
    /// Of them, bytes that nobody has read yet.
    pub unread: usize,
}

impl Unclaimed {
    /// Bytes that tiny_http has taken for its header. (What it has not read may be a body.)
    pub fn head(&self) -> u64 {
        self.received.saturating_sub(self.unread as u64)
    }
}

/// What [`Sockets::survey`] finds.
#[derive(Debug, Default)]
pub struct Survey {
    /// Open connections that no request has claimed, each once.
    pub unclaimed: Vec<Unclaimed>,
    /// Inodes of connections that are closed or closing, and whose descriptors are still open.
    pub dead: Vec<u64>,
}

impl Survey {
    /// All of them.
    pub fn inodes(&self) -> impl Iterator<Item = u64> + '_ {
        self.unclaimed.iter().map(|one| one.inode).chain(self.dead.iter().copied())
    }
}

/// A connection that belongs to one request's handler, as an ordinary [`TcpStream`].
///
/// Dropping it releases the descriptor. It does not shut the connection down: tiny_http's own
/// descriptors may still be open (see [`Claim::shutdown`]).
pub struct Claim {
    // Declared before `sockets`: the number is given back (in `drop`) before it is closed.
    stream: TcpStream,
    peer: SocketAddr,
    inode: u64,
    /// The descriptor that the claim was duplicated from: tiny_http's reader or its writer.
    found: RawFd,
    sockets: Arc<Sockets>,
}

impl Sockets {
    /// A table for the connections of the listener on `port`.
    pub fn new(port: u16) -> Arc<Sockets> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let limit = limit.current.map_or(RawFd::MAX, |n| n.min(1 << 20) as RawFd);
        Arc::new(Sockets { port, limit, table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the connection whose peer is `peer` and duplicates one of its descriptors.
    ///
    /// # Errors
    /// See [`ClaimError`]. In every case the request that asked must be [`discard`]ed.
    pub fn claim(self: &Arc<Self>, peer: SocketAddr) -> Result<Claim, ClaimError> {
        let mut table = self.table();
        table.settle();
        if let Some(entry) = table.peers.get(&peer).and_then(|inode| table.claimed.get(inode)) {
            // A reset connection has no peer any more; then the address may have come back.
            if look(entry.fd) == Some(Look::Peer(peer)) {
                shutdown_raw(entry.fd);
                drop_received(entry.fd);
                return Err(ClaimError::Pipelined);
            }
        }
        let (found, stream, inode) = match self.find(&table, peer, 0) {
            // Numbers rise above the highest while a crowd comes; when most of it has gone, there
            // is no telling from below how far up somebody is left.
            Err(ClaimError::Gone) => {
                let start = table.numbers.highest + 1;
                table.numbers.highest = highest_open_among(0..self.room()).unwrap_or(0);
                self.find(&table, peer, start)?
            }
            result => result?,
        };
        let fd = stream.as_raw_fd();
        table.numbers.highest = table.numbers.highest.max(found).max(fd);
        table.numbers.set_owned(fd, true);
        table.claimed.insert(inode, Entry { fd, writer: None });
        table.peers.insert(peer, inode);
        Ok(Claim { stream, peer, inode, found, sockets: Arc::clone(self) })
    }

    /// How many numbers the kernel's table for this process has room for. (It grows with the highest
    /// number ever used: nothing that was asked before the search says how far that has to go.)
    /// Only Linux tells; elsewhere it is as many as there may be.
    fn room(&self) -> RawFd {
        let size = status::number(&status::read(), "FDSize:");
        size.map_or(self.limit, |size| self.limit.min(size as RawFd))
    }

    /// A duplicate of the connection with this peer, its inode, and the number it was found under.
    /// Looks from the number `start` on.
    fn find(
        &self,
        table: &Table,
        peer: SocketAddr,
        start: RawFd,
    ) -> Result<(RawFd, TcpStream, u64), ClaimError> {
        let wanted = |look: &Look| *look == Look::Peer(peer);
        for (fd, _) in table.numbers.open(start, look).filter(|(_, look)| wanted(look)) {
            let stream = match duplicate(fd) {
                Ok(stream) => stream,
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => continue,
                Err(_) => return Err(ClaimError::NoDescriptor),
            };
            let raw = stream.as_raw_fd();
            let (Some(local), Some(inode)) = (local_of(raw), inode_of(raw)) else {
                continue;
            };
            if look(raw) != Some(Look::Peer(peer)) || local.port() != self.port {
                continue;
            }
            // The second descriptor of the same connection, or another one that must not be mixed up
            // with it: the same peer can reach a wildcard listener through two of our addresses.
            // (Not looked for near the first: the two may stand at both ends of the table.)
            let twin = table
                .numbers
                .open(fd + 1, look)
                .filter(|(other, look)| *other != raw && wanted(look))
                .find(|(other, _)| local_of(*other).is_some_and(|l| l.port() == self.port));
            if let Some((other, _)) = twin.filter(|(other, _)| local_of(*other) != Some(local)) {
                shutdown_raw(raw);
                shutdown_raw(other);
                return Err(ClaimError::Ambiguous);
            }
            return match state(&stream) {
                TcpState::Established | TcpState::CloseWait => Ok((fd, stream, inode)),
                TcpState::Closed | TcpState::Other => Err(ClaimError::Gone),
            };
        }
        Err(ClaimError::Gone)
    }

    /// Looks at every accepted connection that no request has claimed.
    pub fn survey(&self) -> Survey {
        // Without the lock: looking may take milliseconds, and requests must not wait for it.
        let numbers = self.table().numbers.clone();
        let open = open_among(numbers.unowned(0, self.room()));
        let highest = numbers.highest_owned().max(open.last().copied()).unwrap_or(0);
        let mut seen = HashSet::new();
        let mut survey = Survey::default();
        for (fd, look) in open.into_iter().filter_map(|fd| Some((fd, look(fd)?))) {
            // Sockets of other local ports are not the listener's.
            if local_of(fd).is_none_or(|local| local.port() != self.port) {
                continue;
            }
            let Some(inode) = inode_of(fd).filter(|inode| seen.insert(*inode)) else { continue };
            let info = tcp_info(fd);
            match look {
                Look::Peer(_)
                    if matches!(info.state, TcpState::Established | TcpState::CloseWait) =>
                {
                    let (received, unread) = (info.received, unread_of(fd));
                    survey.unclaimed.push(Unclaimed { fd, inode, received, unread });
                }
                Look::Peer(_) => survey.dead.push(inode),
                Look::Other if info.state == TcpState::Closed => survey.dead.push(inode),
                // The listening socket.
                Look::Other => {}
            }
        }
        let mut table = self.table();
        table.numbers.highest = highest;
        survey.unclaimed.retain(|one| !table.claimed.contains_key(&one.inode));
        survey.dead.retain(|inode| !table.claimed.contains_key(inode));
        survey
    }

    /// Shuts an unclaimed connection down, after a few last words, unless a request has claimed it
    /// meanwhile. tiny_http's worker then reads the end of the stream and goes home. With `abort`
    /// the peer is reset when that has happened: one that floods us would otherwise sit in front
    /// of a closed window for minutes, and its bytes in our buffers.
    ///
    /// Returns whether it was shut down.
    pub fn reap(&self, target: &Unclaimed, last_words: &[u8], abort: bool) -> bool {
        // Under the lock nothing can be claimed; a duplicate keeps the number from changing.
        let table = self.table();
        let same = |fd| inode_of(fd) == Some(target.inode);
        if !same(target.fd) || table.claimed.contains_key(&target.inode) {
            return false;
        }
        match duplicate(target.fd) {
            Ok(stream) if same(stream.as_raw_fd()) => {
                let _ = crate::send::send_now(&stream, last_words);
                if abort {
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
                stream.shutdown(Shutdown::Both).is_ok()
            }
            Ok(_) => false,
            // No descriptor to spare: then the number itself must do. Its owner may close it
            // between the look and the call, and the next connection get it; at worst that one is
            // cut off, at a moment when nothing new can be served anyway.
            Err(_) => {
                shutdown_raw(target.fd);
                true
            }
        }
    }
}

impl Table {
    /// Takes note of writers whose reader has been closed since the last look.
    fn settle(&mut self) {
        let mut settling = std::mem::take(&mut self.settling);
        settling.retain(|pair| {
            let open = pair.candidates.map(|fd| inode_of(fd) == Some(pair.inode));
            let writer = match open {
                [true, true] => return true,
                [true, false] => pair.candidates[0],
                [false, true] => pair.candidates[1],
                [false, false] => return false,
            };
            if let Some(entry) = self.claimed.get_mut(&pair.inode) {
                entry.writer = Some(writer);
                self.numbers.set_owned(writer, true);
            }
            false
        });
        self.settling = settling;
    }
}

impl Claim {
    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The connection. Reads and writes on it are on the same socket that tiny_http uses.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ends the connection in both directions, which wakes whoever is blocked on it.
    pub fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends tiny_http's worker home while the connection goes on in the writing direction: its
    /// read of the next request returns the end of the stream. For an SSE client, which has
    /// nothing more to say.
    pub fn stop_reading(&self) {
        {
            let mut table = self.sockets.table();
            let twin = table
                .numbers
                .open(0, look)
                .map(|(fd, _)| fd)
                .find(|&fd| fd != self.found && inode_of(fd) == Some(self.inode));
            if let Some(twin) = twin {
                let candidates = [self.found, twin];
                table.settling.push(Settling { inode: self.inode, candidates });
            }
        }
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Makes the socket ours alone: tiny_http's worker goes home, its two descriptors are closed
    /// without touching the connection, and the bytes that it had already read are returned.
    ///
    /// Only for a request that asks for an upgrade: then, and only then, the request holds both
    /// descriptors.
    ///
    /// # Errors
    /// Where the request turns out not to hold them (no upgrade as tiny_http understands it, the
    /// peer has closed, too much data behind the request), or the system refuses. The connection
    /// cannot be used any more then: shut it down.
    pub fn detach(&self, mut request: Request) -> io::Result<Vec<u8>> {
        // The proof that the request's reader is this socket: the non-blocking mode belongs to the
        // open file description, which we set through our own descriptor. A read on the request's
        // side that ends in `WouldBlock` therefore went to the same description. (A connection
        // that was reset and replaced by one from the same address and port reads as ended.) It
        // also takes what tiny_http had buffered.
        self.stream.set_nonblocking(true)?;
        let early = drain(request.as_reader());
        self.stream.set_nonblocking(false)?;
        let early = match early {
            Ok(early) => early,
            Err(error) => {
                discard(request, 0);
                return Err(error);
            }
        };

        let null = File::open("/dev/null")?;
        let own = self.stream.as_raw_fd();
        let table = self.sockets.table();
        let mut twins = table
            .numbers
            .unowned(0, self.sockets.limit)
            .filter(|&fd| fd != own && inode_of(fd) == Some(self.inode));
        let (Some(first), Some(second)) = (twins.next(), twins.next()) else {
            drop(twins);
            drop(table);
            discard(request, 0);
            return Err(io::Error::other("tiny_http's descriptors were not found"));
        };
        drop(twins);
        drop(table);
        for fd in [first, second] {
            // SAFETY: `fd` is one of the two descriptors that `request` owns: both refer to this
            // socket (their inode says so, and our own descriptor is excluded), the request was
            // just proven to hold the reader and always holds the writer, no one else duplicates
            // an unowned number but `claim` and `reap`, which never leave a duplicate
            // of a claimed socket behind, and `request` is alive until below, so the number cannot
            // have been closed or reused. Wrapping it in an `OwnedFd` transfers nothing:
            // `into_raw_fd` gives the number back whatever happens, and tiny_http goes on owning
            // it, now as `/dev/null`.
            let mut target = unsafe { OwnedFd::from_raw_fd(fd) };
            let replaced = rustix::io::dup3(&null, &mut target, rustix::io::DupFlags::CLOEXEC);
            let _ = target.into_raw_fd();
            replaced?;
        }
        // Not `drop(request)`: that would write an answer first (harmlessly, but why).
        drop(request.into_writer());
        Ok(early)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.sockets.table();
        table.settling.retain(|pair| pair.inode != self.inode);
        if let Some(entry) = table.claimed.remove(&self.inode) {
            table.numbers.set_owned(entry.fd, false);
            if let Some(writer) = entry.writer {
                table.numbers.set_owned(writer, false);
            }
        }
        if table.peers.get(&self.peer) == Some(&self.inode) {
            table.peers.remove(&self.peer);
        }
    }
}

/// Reads until the reader would block. The end of the stream, any other error and more than
/// [`MAX_EARLY_BYTES`] are errors.
fn drain(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut early = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) if early.len() + n > MAX_EARLY_BYTES => {
                return Err(io::Error::other("data before the handshake was answered"));
            }
            Ok(n) => early.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(early),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Drops a request that has been answered by other means, or will never be.
///
/// A plain drop answers 500 and, for a body with a `Content-Length`, allocates a buffer of all
/// that was not read and waits for it: `Content-Length: 99999999999999` would abort the process.
/// `unread` is that length, less what was read of the body; 0 where there is no such body. The
/// connection must have been shut down before, or what is unread is waited for.
pub fn discard(mut request: Request, unread: usize) {
    /// Up to here the buffer is affordable: it is reserved, but only touched where bytes arrive.
    const AFFORDABLE: usize = 16 << 20;
    if unread > AFFORDABLE && !forget_unread(request.as_reader(), unread) {
        // Keeping the request for ever costs its worker. It is the lesser evil, and loud.
        log::error!("cannot discard a request body of {unread} bytes: keeping its worker");
        std::mem::forget(request);
        return;
    }
    // Taking the writer out keeps `Request` from answering; a writer that has written nothing
    // closes without waiting for its turn.
    drop(request.into_writer());
}

/// Sets the count of unread bytes in tiny_http's body reader to zero, and proves it by reading.
///
/// The reader is `FusedReader<EqualReader<…>>`, private types, without any way to say that the
/// rest is not wanted. Its state is a handful of words, one of which is the count.
fn forget_unread(reader: &mut dyn Read, unread: usize) -> bool {
    // `as_reader` coerces `&mut Box<dyn Read + Send>`, so the value behind it is that box.
    if size_of_val(reader) != size_of::<Box<dyn Read + Send>>() {
        return false;
    }
    // SAFETY: `Request::as_reader` of the pinned tiny_http 0.12.0 returns a reference to the
    // `Box<dyn Read + Send>` in its field `data_reader` (the size was checked); the cast only gives
    // the reference its own type back, and the lifetime is that of the exclusive borrow.
    let body: &mut Box<dyn Read + Send> =
        unsafe { &mut *(reader as *mut dyn Read as *mut Box<dyn Read + Send>) };
    let words = size_of_val(&**body) / size_of::<usize>();
    let base = (&raw mut **body).cast::<usize>();
    let mut count = None;
    for word in 0..words {
        // SAFETY: within the object, aligned (the type holds pointers, and so does its size), read
        // as bytes of unknown initialisation only through `MaybeUninit`-free integers: every word
        // of this type is a pointer, an integer or an enum tag with padding; the volatile read
        // keeps the compiler from drawing conclusions from the padding.
        let value = unsafe { base.add(word).read_volatile() };
        if value == unread && count.replace(word).is_some() {
            return false; // two words look alike: do not guess
        }
    }
    let Some(word) = count else { return false };
    // SAFETY: the only word of the object that equals a length of over 16 MiB is the count of
    // unread bytes (a plain `usize`; any value is valid), and the object is borrowed exclusively.
    unsafe { base.add(word).write_volatile(0) };
    matches!(body.read(&mut [0]), Ok(0))
}

/// States of a TCP connection that matter here (RFC 9293 section 3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    /// Open in both directions, or the system does not tell.
    Established,
    /// The peer has closed its side and may still read.
    CloseWait,
    /// Closed in both directions, or reset.
    Closed,
    /// Any other: listening, or closing.
    Other,
}

/// The state of a connection, without reading or writing. On systems without `TCP_INFO` always
/// [`TcpState::Established`]: there a vanished peer shows at the next write.
pub fn state(stream: &TcpStream) -> TcpState {
    tcp_info(stream.as_raw_fd()).state
}

/// Bytes received on a connection so far; 0 where the system does not tell (only Linux does).
pub fn received(stream: &TcpStream) -> u64 {
    tcp_info(stream.as_raw_fd()).received
}

/// How many connections wait for `accept`; 0 where the system does not tell (only Linux does).
pub fn waiting_to_be_accepted(listener: &TcpListener) -> u32 {
    tcp_info(listener.as_raw_fd()).unacked
}

struct TcpInfo {
    state: TcpState,
    received: u64,
    /// Of a listening socket: its queue.
    unacked: u32,
}

#[cfg(target_os = "linux")]
fn tcp_info(fd: RawFd) -> TcpInfo {
    // SAFETY: `tcp_info` is a C struct of integers, for which all-zero is a value; the kernel
    // writes at most `length` bytes of it; a number that is no TCP socket makes the call fail.
    let (info, result) = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let target = (&raw mut info).cast();
        let result =
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, target, &raw mut length);
        (info, result)
    };
    // The kernel's numbering, include/net/tcp_states.h.
    let state = match info.tcpi_state {
        1 if result == 0 => TcpState::Established,
        7 if result == 0 => TcpState::Closed,
        8 if result == 0 => TcpState::CloseWait,
        _ => TcpState::Other,
    };
    TcpInfo { state, received: info.tcpi_bytes_received, unacked: info.tcpi_unacked }
}

#[cfg(not(target_os = "linux"))]
fn tcp_info(_fd: RawFd) -> TcpInfo {
    TcpInfo { state: TcpState::Established, received: 0, unacked: 0 }
}

/// Whether `fd` still is a descriptor of the listening socket `listener`: it stops being one when
/// tiny_http's accept loop ends, for whatever reason, because the loop owns it.
pub fn is_descriptor_of(fd: RawFd, listener: &TcpListener) -> bool {
    let inode = inode_of(listener.as_raw_fd());
    inode.is_some() && inode == inode_of(fd)
}

/// Keeps connections that have not sent anything out of `accept` for up to `timeout`.
///
/// # Errors
/// What the system says; nothing is done, and no error given, where there is no such option.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
pub fn defer_accept(listener: &socket2::Socket, timeout: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let seconds = timeout.as_secs().clamp(1, 60) as libc::c_int;
        // SAFETY: the option's value is one `c_int`, and the length says so.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends a blocked `accept` on every descriptor of this listener; new connections are refused.
pub fn stop_listening(listener: &TcpListener) {
    shutdown_raw(listener.as_raw_fd());
}

fn shutdown_raw(fd: RawFd) {
    // SAFETY: a system call on an integer. Callers pass numbers that they own or, under the
    // table's lock, have just recognised; no memory is involved.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Throws away what has been received on a connection that is shut down. Otherwise tiny_http's worker
/// would still make a request of all that looks like one, ten thousand in one receive buffer, and
/// its queue of requests would keep for ever the room that it once had for them.
fn drop_received(fd: RawFd) {
    let mut buffer = [0_u8; 16 * 1024];
    // The kernel doubles what it was asked for.
    for _ in 0..2 * super::RECEIVE_BUFFER / buffer.len() {
        // SAFETY: the call writes at most `buffer.len()` bytes to `buffer`; the number is that of a
        // claim, which cannot end while the table is locked.
        let read =
            unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        if read <= 0 {
            return;
        }
    }
}

fn duplicate(fd: RawFd) -> io::Result<TcpStream> {
    // SAFETY: a system call on an integer, which may be closed or anything: then it fails, or the
    // duplicate is recognised as a stranger by the caller and closed.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a non-negative result is a new descriptor that nobody else knows of.
    Ok(unsafe { TcpStream::from_raw_fd(new) })
}

fn unread_of(fd: RawFd) -> usize {
    let mut unread: libc::c_int = 0;
    // SAFETY: the request writes one `c_int`; on anything but a socket, pipe or terminal it fails.
    let result = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut unread) };
    if result == 0 { unread as usize } else { 0 }
}

/// Gives memory that the allocator holds, but does not use, back to the system. (Not about
/// sockets: it stands here because this file is where `unsafe` lives.) Does nothing where the C
/// library is not glibc.
pub fn return_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes the allocator's own locks and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes the allocator give back what is freed. It takes every large block from the system and returns
/// it: by default glibc learns from the first such block not to, and after one flood of bytes their
/// memory stays. And it uses no more arenas than processors: by default glibc makes eight times as
/// many, each with holes of its own, and with an end that only the first one ever gives back.
/// For a program that is a server only; does nothing where the C library is not glibc.
pub fn set_up_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: `mallopt` sets numbers; 128 KiB is the documented initial value of the first.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
            libc::mallopt(libc::M_ARENA_MAX, processors as libc::c_int);
        }
    }
}

/// Gives sleeping threads room in the kernel's table of them. Since Linux 6.16 each process has one
/// of its own, sized by processors: four thousand threads asleep in sixteen chains, and every one
/// that is woken is looked for among hundreds. Has no effect, and needs none, before that.
pub fn enlarge_futex_hash() {
    #[cfg(target_os = "linux")]
    {
        // include/uapi/linux/prctl.h; libc does not have them yet.
        const PR_FUTEX_HASH: libc::c_int = 78;
        const PR_FUTEX_HASH_SET_SLOTS: libc::c_ulong = 1;
        const SLOTS: libc::c_ulong = 1024;
        const NONE: libc::c_ulong = 0;
        // SAFETY: four integers; a kernel that does not know the option refuses it.
        unsafe { libc::prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, SLOTS, NONE, NONE) };
    }
}

/// For how long the calling thread has been computing: unlike the clock, this stands still while
/// other threads are.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`, which is ours; where it fails it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Which of these descriptor numbers are open: in one system call for many, and without a look at
/// each where most are not.
fn open_among(numbers: impl Iterator<Item = RawFd>) -> Vec<RawFd> {
    let mut looks: Vec<libc::pollfd> =
        numbers.map(|fd| libc::pollfd { fd, events: 0, revents: 0 }).collect();
    // The kernel takes as many at once as there may be descriptors.
    for part in looks.chunks_mut(1024) {
        // SAFETY: the array is ours and its length is told; with a timeout of zero `poll` only looks,
        // and a number that is not open is something that it reports. Where it fails, all seem open.
        unsafe { libc::poll(part.as_mut_ptr(), part.len() as libc::nfds_t, 0) };
    }
    let open = looks.iter().filter(|look| look.revents & libc::POLLNVAL == 0);
    open.map(|look| look.fd).collect()
}

/// The highest open descriptor number among these.
fn highest_open_among(numbers: Range<RawFd>) -> Option<RawFd> {
    // A closed number costs a few nanoseconds, an open one a look at its socket.
    const PART: RawFd = 256;
    let mut end = numbers.end;
    while end > numbers.start {
        let start = (end - PART).max(numbers.start);
        if let Some(highest) = open_among(start..end).last() {
            return Some(*highest);
        }
        end = start;
    }
    None
}

fn inode_of(fd: RawFd) -> Option<u64> {
    // SAFETY: `stat` is a C struct of integers, for which all-zero is a value; the call writes
    // only to it, and fails on a number that is not open.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat) == 0).then_some(stat.st_ino as u64)
    }
}

/// What a descriptor number is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// A connected socket.
    Peer(SocketAddr),
    /// Open, but nothing with a peer.
    Other,
}

/// `None` where it is not open.
fn look(fd: RawFd) -> Option<Look> {
    let peer = address(|storage, length| {
        // SAFETY: `address` passes a buffer and its length; a closed number makes the call fail.
        unsafe { libc::getpeername(fd, storage, length) }
    });
    match peer {
        Ok(Some(peer)) => Some(Look::Peer(peer)),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => None,
        Ok(None) | Err(_) => Some(Look::Other),
    }
}

fn local_of(fd: RawFd) -> Option<SocketAddr> {
    let local = address(|storage, length| {
        // SAFETY: as in `look`.
        unsafe { libc::getsockname(fd, storage, length) }
    });
    local.ok().flatten()
}

/// The address that `call` gives; `None` where it is no IP address.
fn address(
    call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<Option<SocketAddr>> {
    // SAFETY: the closure is handed a buffer of `*length` bytes and reports success only if the
    // system has filled it and set the length, as both calls above are specified to do.
    let result = unsafe {
        socket2::SockAddr::try_init(|storage, length| match call(storage.cast(), length) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    };
    result.map(|((), address)| address.as_socket())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_connection_far_above_all_others_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = Sockets::new(address.port());
        // Whoever remembers how large the kernel's table is now will look no further.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(sockets.claim(nobody).err(), Some(ClaimError::Gone));
        let _peer = TcpStream::connect(address).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        let far = rustix::io::fcntl_dupfd_cloexec(&accepted, 900).unwrap();
        drop(accepted);
        let claim = sockets.claim(from).expect("a connection to claim");
        assert_eq!((claim.peer(), claim.found), (from, far.as_raw_fd()));
    }

    #[test]
    fn what_was_pipelined_behind_a_second_request_is_thrown_away() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = TcpStream::connect(address).unwrap();
        let (mut accepted, from) = listener.accept().unwrap();
        let sockets = Sockets::new(address.port());
        let claim = sockets.claim(from).expect("a connection to claim");
        peer.write_all(&[b'x'; 50_000]).unwrap();
        assert_eq!(unread_of(accepted.as_raw_fd()), 50_000);
        assert_eq!(sockets.claim(from).err(), Some(ClaimError::Pipelined));
        assert_eq!(accepted.read(&mut [0; 100]).unwrap(), 0, "nothing, and the end");
        drop(claim);
    }
}
