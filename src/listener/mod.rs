//! The listener: tiny_http, supervised, and every request with its own socket and thread.
//!
//! tiny_http's accept loop ends on any error of `accept`, and panics where a descriptor or a
//! thread cannot be had; the process goes on, deaf. The loop owns one descriptor of the listening
//! socket, so whether it lives can be read off that descriptor ([`socket::is_descriptor_of`]). A
//! supervisor looks five times a second and starts a new `Server` on the same socket. Requests
//! that the old one has already accepted are still served.

pub mod connection;
mod numbers;
pub mod reaper;
pub mod socket;
mod threads;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tiny_http::{Request, Server};

use crate::forwarded::Proxies;
use crate::memory::{Cache, Memory};
use connection::Connection;
use reaper::Reaper;
use socket::{ClaimError, Sockets};
use threads::Threads;

/// Connections that the kernel may keep ready for `accept` (its own limit, `somaxconn`, applies).
const BACKLOG: i32 = 4096;

/// What a connection's receive buffer holds (the kernel doubles it, for its own needs). Enough for
/// the longest message of the defaults in a few round trips.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// How often the supervisor looks after the accept loop.
const LOOK: Duration = Duration::from_millis(200);

/// Stack of a client's thread. Only touched pages count as memory; this is address space.
pub const STACK: usize = 256 * 1024;

/// What is done with a request, in its own thread.
pub type Handler = dyn Fn(Connection) + Send + Sync;

/// How the listening socket is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// How long a request's header may take, and its body again.
    pub header_timeout: Duration,
    /// After how long without any acknowledgement of sent data a connection is given up
    /// (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// Where the listener counts.
    pub counters: Arc<Counters>,
    /// Who is believed about clients' addresses.
    pub proxies: Proxies,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests, upgrades included.
    pub requests: AtomicU64,
    /// Accept loops that died and were replaced.
    pub restarts: AtomicU64,
    /// Connections shut down because no request came of them.
    pub reaped: AtomicU64,
    /// Connections to ourselves that brought tiny_http's pool back to what it had queued.
    pub kicks: AtomicU64,
    /// Not a count, but how many there are: closed connections whose tiny_http workers wait for
    /// themselves for ever, each a thread and two descriptors.
    pub stuck: AtomicU64,
}

/// A listening socket with its threads. See [`Listener::stop`].
pub struct Listener {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    listener: TcpListener,
    proxies: Proxies,
    sockets: Arc<Sockets>,
    reaper: Arc<Reaper>,
    requests: Arc<Threads>,
    stop: AtomicBool,
    counters: Arc<Counters>,
}

/// One tiny_http server; there is more than one only after an accept loop has died.
struct Generation {
    server: Server,
    retired: Mutex<Option<Instant>>,
}

/// Makes the listening socket. What is set here, every accepted connection inherits (Linux).
///
/// # Errors
/// What the system says, for example that the port is in use.
pub fn bind(options: &Options) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
    let socket =
        Socket::new(Domain::for_address(options.address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must not wait for its predecessor's connections to time out.
    socket.set_reuse_address(true)?;
    // An event is written whole, at once; waiting to fill a segment would only delay it.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    socket::defer_accept(&socket, options.header_timeout)?;
    // What a peer may send ahead of its reader: by default up to 6 MiB each, for as many as come.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&options.address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// Starts to serve requests from `listener`: `handler` is called with each, in a thread of its
    /// own.
    ///
    /// # Errors
    /// Where the first threads cannot be started.
    pub fn start(
        listener: TcpListener,
        options: &Options,
        handler: Box<Handler>,
    ) -> io::Result<Listener> {
        let sockets = Sockets::new(listener.local_addr()?.port());
        let reaper = Reaper::new(
            Arc::clone(&sockets),
            listener.local_addr()?,
            options.header_timeout,
            Arc::clone(&options.counters),
        );
        let shared = Arc::new(Shared {
            listener,
            proxies: options.proxies.clone(),
            sockets,
            reaper,
            requests: Threads::new(handler),
            stop: AtomicBool::new(false),
            counters: Arc::clone(&options.counters),
        });
        let (first, accept) = shared.start_generation()?;
        let supervisor = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("supervisor".into())
                .spawn(move || shared.supervise(first, accept))?
        };
        let reaper = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("reaper".into())
                .spawn(move || shared.reaper.run(&shared.stop))?
        };
        Ok(Listener { shared, threads: Mutex::new(vec![supervisor, reaper]) })
    }

    /// Refuses new connections and ends the listener's threads. Connections already handed to the
    /// handler go on.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        socket::stop_listening(&self.shared.listener);
        self.shared.requests.end();
        let threads = {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *threads)
        };
        for thread in threads {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Starts a tiny_http server and its dispatcher. Returns the server with the number of the
    /// descriptor that its accept loop owns.
    fn start_generation(self: &Arc<Self>) -> io::Result<(Arc<Generation>, i32)> {
        // The dispatcher first: an accept loop without one could only be ended by connecting to it.
        let (give, take) = crossbeam_channel::bounded::<Arc<Generation>>(1);
        let shared = Arc::clone(self);
        thread::Builder::new().name("dispatcher".into()).spawn(move || {
            if let Ok(generation) = take.recv() {
                shared.dispatch(&generation);
            }
        })?;
        let listener = self.listener.try_clone()?;
        let accept = listener.as_raw_fd();
        // `from_listener` panics where its thread cannot be started.
        let server = std::panic::catch_unwind(|| Server::from_listener(listener, None))
            .map_err(|_| io::Error::other("cannot start a thread for the accept loop"))?
            .map_err(io::Error::other)?;
        let generation = Arc::new(Generation { server, retired: Mutex::new(None) });
        let _ = give.send(Arc::clone(&generation));
        Ok((generation, accept))
    }

    /// Replaces an accept loop that has died, or that has outlived a crowd. The body of the
    /// supervisor's thread.
    fn supervise(self: &Arc<Self>, first: Arc<Generation>, accept: i32) {
        let (mut memory, mut cache) = (Memory::new(), Cache::new());
        let mut current = Some((first, accept));
        let mut dead: Vec<Arc<Generation>> = Vec::new();
        let mut renewal_due = false;
        while !self.stop.load(Ordering::SeqCst) {
            thread::park_timeout(LOOK);
            renewal_due |= memory.look();
            cache.tend();
            let renew = renewal_due && self.can_be_renewed();
            if let Some((generation, accept)) = &current {
                if renew {
                    renewal_due = false;
                    self.end_accept_loop(*accept);
                    self.requests.renew();
                    memory.renewed();
                }
                if socket::is_descriptor_of(*accept, &self.listener) {
                    self.bury(&mut dead);
                    continue;
                }
                if self.stop.load(Ordering::SeqCst) {
                    break;
                }
                if renew {
                    log::debug!("a crowd has left: tiny_http starts afresh");
                } else {
                    log::warn!("the accept loop ended; starting it again");
                    self.counters.restarts.fetch_add(1, Ordering::Relaxed);
                }
                generation.retire();
                dead.extend(current.take().map(|(generation, _)| generation));
            }
            // Without descriptors and threads to spare a new loop would die at once.
            if can_serve() {
                current = self.start_generation().ok();
            }
        }
        // Here at the latest nothing is listening any more, and no `connect` of theirs can block.
        if let Some((generation, _)) = current {
            generation.retire();
        }
    }

    /// Whether a new accept loop could be had, and nothing is in the old one's pool that the reaper
    /// would have to help: its kicks reach the new pool only.
    fn can_be_renewed(&self) -> bool {
        self.reaper.is_calm(Duration::from_secs(1)) && can_serve()
    }

    /// Ends the accept loop that owns the descriptor `accept`, and with it the threads of its pool:
    /// what they keep for the next request, and tiny_http's queue, which has room for as many as
    /// ever waited, is memory that nothing else gives back. Connections that come meanwhile wait in
    /// the kernel's queue, those that the loop had accepted are served. Where it does not end
    /// within milliseconds, it goes on as before.
    ///
    /// For that moment the listening socket does not block: a loop that finds nobody waiting has
    /// met an error. (Accepted sockets do not inherit that on Linux; elsewhere [`Memory`] knows of
    /// no crowd.)
    fn end_accept_loop(&self, accept: i32) {
        if self.listener.set_nonblocking(true).is_err() {
            return;
        }
        self.reaper.knock();
        for _ in 0..50 {
            if !socket::is_descriptor_of(accept, &self.listener) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        if let Err(error) = self.listener.set_nonblocking(false) {
            log::warn!("the listening socket cannot be made to block again: {error}");
        }
    }

    /// Drops servers whose dispatchers have ended. A dropped tiny_http server connects to itself,
    /// to wake an accept loop that these no longer have; that blocks for minutes where the kernel's
    /// queue of connections is full, so it is done only while somebody accepts.
    fn bury(&self, dead: &mut Vec<Arc<Generation>>) {
        if !dead.is_empty() && socket::waiting_to_be_accepted(&self.listener) < BACKLOG as u32 / 4 {
            dead.retain(|generation| Arc::strong_count(generation) > 1);
        }
    }

    /// Takes requests from one tiny_http server until it is retired and what it had accepted has
    /// come, or been reaped. The body of a dispatcher's thread.
    fn dispatch(self: &Arc<Self>, generation: &Generation) {
        let mut last_seen = None;
        loop {
            match generation.server.recv_timeout(Duration::from_millis(500)) {
                Ok(Some(request)) => self.serve(request),
                Ok(None) => {}
                Err(error) => log::debug!("accept: {error}"),
            }
            let Some(retired) = generation.retired() else { continue };
            // A worker of this server may bring a request as long as one of its connections is
            // here, and would wait for its end for ever if nobody took it. The reaper sees to it
            // that they go: those that it has seen when it has looked once after the end.
            last_seen = last_seen.or(self.reaper.latest_look().filter(|look| *look > retired));
            let done = last_seen.is_some_and(|time| !self.reaper.has_older(time));
            if done || self.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Claims the request's socket and gives it a thread. Never blocks: whatever comes, the next
    /// request must not wait.
    fn serve(self: &Arc<Self>, request: Request) {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let unread = connection::counted_body(&request);
        let claimed = match request.remote_addr() {
            Some(peer) => self.sockets.claim(*peer),
            None => Err(ClaimError::Gone),
        };
        let claim = match claimed {
            Ok(claim) => claim,
            Err(error) => {
                log::debug!(
                    "request of {:?} without a connection: {error:?}",
                    request.remote_addr()
                );
                return socket::discard(request, unread);
            }
        };
        let client = self.proxies.client(claim.peer(), request.headers());
        let connection = Connection::new(request, claim, client, Arc::clone(&self.reaper));
        self.requests.serve(connection);
        self.requests.prepare();
    }
}

impl Generation {
    fn retire(&self) {
        *self.retired.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.server.unblock();
    }

    fn retired(&self) -> Option<Instant> {
        *self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps panics of tiny_http's own threads off standard error: they are known, have no effect but
/// the ones that the supervisor and the reaper mend, and any client can cause them (by resetting
/// its connection). They are logged at `debug`. All other panics go to the hook that was there. Only
/// for a program that names its threads.
pub fn log_known_panics() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // tiny_http's threads have no name, ours all do. It may also fail to start one in ours.
        let no_thread = panic.payload().downcast_ref::<String>();
        let no_thread = no_thread.is_some_and(|text| text.contains("failed to spawn thread"));
        if thread::current().name().is_none() || no_thread {
            log::debug!("{panic}");
        } else {
            previous(panic);
        }
    }));
}

/// Whether the few descriptors and threads that an accept loop and its first connections need can
/// be had right now.
fn can_serve() -> bool {
    const FEW: usize = 8;
    let descriptors: io::Result<Vec<File>> = (0..FEW).map(|_| File::open("/dev/null")).collect();
    let (hold, wait) = crossbeam_channel::bounded::<()>(0);
    let threads: io::Result<Vec<JoinHandle<()>>> = (0..FEW)
        .map(|_| {
            let wait = wait.clone();
            thread::Builder::new().stack_size(STACK).spawn(move || {
                // Until all of them are here.
                let _ = wait.recv();
            })
        })
        .collect();
    drop(hold);
    descriptors.is_ok() && threads.is_ok()
}
