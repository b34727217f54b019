//! The listener: tiny_http, and a thread for each client.
//!
//! ```text
//! TCP ──► door ──── head ────► tiny_http ── Request ──► listener ──► one thread per client
//!          └──────────────────── socket ──────────────────┘
//! ```
//!
//! The way of a connection: the accept thread, or where the head is not here yet a thread that
//! reads it, keeps socket and head under a ticket (`tickets`) and writes the head into the pipe
//! ([`pipe`]). The listener thread is blocked in `tiny_http::Server::recv`. It gets the request,
//! takes the ticket's connection, sees whether it asks for an upgrade, and starts its thread
//! ([`threads`]): an SSE client keeps that thread, fed through a crossbeam channel; an upgrade
//! request's raw stream goes to tungstenite in a thread of its own; a plain request is answered, and
//! its thread reads the next head on the same connection.
//!
//! What wakes the listener thread: a request, or the check of the oldest ticket once a second. A
//! ticket older than [`pipe::PIPE_TIMEOUT`] means that the pipe is broken: those that wait are told
//! 500, and a new pipe is made.

pub mod connection;
#[doc(hidden)] // public for its tests and the fuzzer only
pub mod pipe;
pub mod threads;
mod tickets;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tiny_http::{Request, Server};

use crate::door::pending::Pending;
use crate::door::{self, Counters, Door, NoHead};
use crate::forwarded::Proxies;
use crate::http::{Persistence, Response};
use crate::os::memory::Trimmer;
use crate::send::send_now;
use connection::{Connection, Next};
use pipe::{PIPE_TIMEOUT, Pipe};
use threads::{Threads, name_this_thread};
use tickets::{Ticket, Tickets};

/// How often the listener thread checks the age of the oldest ticket.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before another pipe is tried, where one could not be made.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How often the shutdown checks whether the last request has been served.
const SERVED_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// What is done with a request, in its own thread.
pub type Handler = dyn Fn(Connection) -> Next + Send + Sync;

/// How requests are served.
pub struct Options {
    /// How the listening socket is set up.
    pub door: door::Options,
    /// Who is believed about clients' addresses.
    pub proxies: Proxies,
}

/// A listening socket with its threads. See [`Listener::stop`].
pub struct Listener {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a thread does.
enum Job {
    /// Reads the next head on a connection.
    Read(Pending),
    /// Sends a head through the pipe.
    Submit(Box<Ticket>),
    /// Serves a request.
    Serve(Connection),
    /// Writes a last response.
    Refuse(Pending, Response),
}

impl Job {
    fn into_pending(self) -> Pending {
        match self {
            Job::Read(pending) | Job::Refuse(pending, _) => pending,
            Job::Submit(ticket) => ticket.pending,
            Job::Serve(connection) => connection.into_pending(),
        }
    }
}

struct Shared {
    door: Door,
    proxies: Proxies,
    body_timeout: Duration,
    tickets: Tickets,
    /// `None` while it is being replaced.
    pipe: Mutex<Option<Pipe>>,
    /// Signalled when there is a new pipe, or there will be none any more.
    pipe_changed: Condvar,
    threads: Arc<Threads<Job>>,
    is_stopped: AtomicBool,
    counters: Arc<Counters>,
}

impl Listener {
    /// Serves requests that come through `door`: `handler` is called with each, in a thread of its
    /// own.
    ///
    /// # Errors
    /// Where the pipe or the first threads cannot be had.
    pub fn start(door: Door, options: Options, handler: Box<Handler>) -> io::Result<Listener> {
        let body_timeout = options.door.header_timeout;
        let shared = Arc::new_cyclic(|shared: &std::sync::Weak<Shared>| {
            let shared = std::sync::Weak::clone(shared);
            Shared {
                door,
                proxies: options.proxies,
                body_timeout,
                tickets: Tickets::new(),
                pipe: Mutex::new(None),
                pipe_changed: Condvar::new(),
                threads: Threads::new(Box::new(move |job| {
                    if let Some(shared) = shared.upgrade() {
                        shared.work(job, &handler);
                    }
                })),
                is_stopped: AtomicBool::new(false),
                counters: options.door.counters,
            }
        });
        shared.open_pipe()?;
        let listener = Listener { shared: Arc::clone(&shared), threads: Mutex::default() };
        let spawn = |name: &str, body: fn(&Arc<Shared>)| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(name.into()).spawn(move || body(&shared))
        };
        listener.threads().push(spawn("listener", Shared::listen)?);
        listener.threads().push(spawn("accept", Shared::accept)?);
        Ok(listener)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server shuts down: closes idle connections, and keeps none open after its response. New
    /// ones are still accepted.
    pub fn close_idle(&self) {
        self.shared.door.table.close_idle();
    }

    /// Waits until no request is being served, so that no download is cut short; returns whether that
    /// is so at the deadline.
    pub fn wait_served(&self, deadline: Instant) -> bool {
        while self.shared.door.table.is_serving() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(SERVED_CHECK_INTERVAL);
        }
        true
    }

    /// Refuses new connections, closes those that are no clients, and ends the listener's threads.
    pub fn stop(&self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        self.shared.door.stop();
        if let Some(pipe) = self.shared.pipe().take() {
            pipe.close();
        }
        self.shared.pipe_changed.notify_all();
        self.shared.threads.end();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// Writes into the pipe, or closes it where nothing is given: for tests of what then happens.
    #[doc(hidden)]
    pub fn disturb_pipe(&self, bytes: Option<&[u8]>) {
        match (self.shared.pipe().as_ref(), bytes) {
            (Some(pipe), Some(bytes)) => drop(pipe.write(bytes)),
            (Some(pipe), None) => pipe.close(),
            (None, _) => {}
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn pipe(&self) -> MutexGuard<'_, Option<Pipe>> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// The body of the accept thread.
    fn accept(self: &Arc<Self>) {
        self.door.accept(|pending, head| match head {
            Some(head) => {
                self.submit_now(Box::new(Ticket { pending, head }));
                self.tickets.pause();
            }
            None => self.start(Job::Read(pending)),
        });
    }

    /// Does a job in another thread, or says 503 where there is none.
    fn start(&self, job: Job) {
        let Err(job) = self.threads.start(job) else { return };
        let response = Response::overloaded("no thread can be started");
        let bytes = response.to_bytes(false, Persistence::Close);
        let _ = send_now(job.into_pending().socket().stream(), &bytes);
    }

    /// What the threads do.
    fn work(&self, job: Job, handler: &Handler) {
        match job {
            Job::Read(pending) => self.read(pending),
            Job::Submit(ticket) => self.submit(ticket),
            Job::Refuse(pending, response) => door::refuse(&pending, &response),
            Job::Serve(connection) => {
                name_this_thread(&connection.thread_name());
                if let Next::KeepAlive(pending) = handler(connection) {
                    name_this_thread("kept");
                    self.read(pending);
                }
            }
        }
    }

    /// Reads the next head on a connection.
    // Not inlined: the table of a head's fields, 3 KiB, would be in the frame below every client's,
    // and a page more of each idle one's stack resident.
    #[inline(never)]
    fn read(&self, mut pending: Pending) {
        match self.door.read_head(&mut pending) {
            Ok(head) => self.submit(Box::new(Ticket { pending, head })),
            Err(NoHead::Gone) => {}
            Err(NoHead::Refused(response)) => door::refuse(&pending, &response),
        }
    }

    /// Sends a head through the pipe, without waiting for it: the accept thread must not. Where the pipe is
    /// not free at once, another thread waits.
    fn submit_now(&self, ticket: Box<Ticket>) {
        let number = self.tickets.number();
        let line = pipe::encode(&ticket.head, number);
        if let Err(ticket) = self.tickets.keep(number, ticket) {
            return self.start(Job::Refuse(
                ticket.pending,
                Response::overloaded("too many requests wait"),
            ));
        }
        let written = match self.pipe.try_lock() {
            Ok(pipe) => pipe.as_ref().is_some_and(|pipe| pipe.write_now(line.as_bytes()).is_ok()),
            Err(_) => false,
        };
        // Where the ticket is not there any more, the head went through all the same.
        if !written && let Some(ticket) = self.tickets.take(number) {
            self.start(Job::Submit(ticket));
        }
    }

    /// Sends a head through the pipe, and waits for room in it, or while it is replaced. Nobody holds
    /// the pipe's lock for longer than [`PIPE_TIMEOUT`].
    fn submit(&self, ticket: Box<Ticket>) {
        let deadline = Instant::now() + PIPE_TIMEOUT;
        let number = self.tickets.number();
        let line = pipe::encode(&ticket.head, number);
        if let Err(ticket) = self.tickets.keep(number, ticket) {
            return door::refuse(&ticket.pending, &Response::overloaded("too many requests wait"));
        }
        let mut pipe = self.pipe();
        loop {
            match pipe.take() {
                Some(current) => match current.write(line.as_bytes()) {
                    Ok(()) => return *pipe = Some(current),
                    // The listener thread wakes up, finds no pipe, and makes one.
                    Err(error) => {
                        log::warn!("the pipe to tiny_http is broken: {error}");
                        current.close();
                    }
                },
                None if Instant::now() >= deadline || self.is_stopped() => break,
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let waited = self.pipe_changed.wait_timeout(pipe, left);
                    pipe = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        drop(pipe);
        if let Some(ticket) = self.tickets.take(number) {
            door::refuse(&ticket.pending, &Response::overloaded("the listener is not ready"));
        }
    }

    /// Makes a pipe for [`Shared::submit`] to find.
    fn open_pipe(&self) -> io::Result<()> {
        let pipe = Pipe::open(self.tickets.number())?;
        *self.pipe() = Some(pipe);
        self.pipe_changed.notify_all();
        Ok(())
    }

    /// The body of the listener thread.
    fn listen(self: &Arc<Self>) {
        let mut has_failed = false;
        while !self.is_stopped() {
            let current = self.pipe().as_ref().map(|pipe| (pipe.server(), pipe.own_address()));
            if let Some((server, own_address)) = current {
                has_failed = false;
                self.receive(&server, own_address);
                if self.is_stopped() {
                    break;
                }
                self.counters.restarts.fetch_add(1, Ordering::Relaxed);
                if let Some(pipe) = self.pipe().take() {
                    pipe.close();
                }
                for ticket in self.tickets.take_all() {
                    let response =
                        Response::error(500, "internal", "the listener failed; try again");
                    self.start(Job::Refuse(ticket.pending, response));
                }
            }
            if let Err(error) = self.open_pipe() {
                if !has_failed {
                    log::warn!("no pipe to tiny_http can be made: {error}; trying until one can");
                }
                has_failed = true;
                self.door.table.make_room();
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }

    /// Takes requests out of one pipe until it breaks.
    fn receive(self: &Arc<Self>, server: &Arc<Server>, own_address: Option<SocketAddr>) {
        let mut memory = Trimmer::new();
        loop {
            memory.tend();
            match server.recv_timeout(CHECK_INTERVAL) {
                Ok(Some(request)) => {
                    if let Err(why) = self.serve(request, own_address) {
                        return log::warn!("the pipe to tiny_http is broken: {why}");
                    }
                }
                // tiny_http's accept thread has ended, as it should.
                Err(error) => log::debug!("tiny_http: {error}"),
                Ok(None) => {
                    let is_replaced = match self.pipe().as_ref() {
                        Some(pipe) => !Arc::ptr_eq(&pipe.server(), server),
                        None => true,
                    };
                    let is_stuck = self.tickets.oldest().is_some_and(|age| age > PIPE_TIMEOUT);
                    if is_replaced || is_stuck || self.is_stopped() {
                        return;
                    }
                }
            }
        }
    }

    /// Starts the thread for a request. Never blocks: the next request must not wait.
    ///
    /// # Errors
    /// What shows that tiny_http does not read what was written.
    fn serve(
        self: &Arc<Self>,
        request: Request,
        own_address: Option<SocketAddr>,
    ) -> Result<(), &'static str> {
        let is_own = request.remote_addr().copied() == own_address;
        let ticket = pipe::ticket(&request).filter(|_| is_own).and_then(|n| self.tickets.take(n));
        let Some(ticket) = ticket else {
            // From a stranger who connected while the pipe was made, or it was refused meanwhile.
            log::debug!("a request without a ticket: {} {}", request.method(), request.url());
            pipe::discard(request);
            return Ok(());
        };
        let asks_for_upgrade = request.headers().iter().any(|field| field.field.equiv("Upgrade"));
        let is_same = request.method().as_str() == ticket.head.method
            && request.url() == ticket.head.target
            && asks_for_upgrade == ticket.head.is_upgrade;
        pipe::discard(request);
        if !is_same {
            self.start(Job::Refuse(
                ticket.pending,
                Response::error(500, "internal", "the listener failed"),
            ));
            return Err("a request came out that is not the one that went in");
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let client = self.proxies.client(ticket.pending.socket().peer(), &ticket.head);
        self.start(Job::Serve(Connection::new(ticket, client, self.body_timeout)));
        Ok(())
    }
}
