//! The listener: tiny_http, and a thread for each client.
//!
//! ```text
//! TCP ──► door ──── head ────► tiny_http ── Request ──► listener ──► one thread per client
//!          └──────────────────── socket ──────────────────┘
//! ```
//!
//! The [`door`] tells the way of a connection. Here are its steps 3 and 4: a head goes into the pipe
//! (`submit`), comes out of it as a request (`receive`), and gets a thread
//! ([`threads`]) in which it is served (`handle`). An SSE client keeps that thread, fed
//! through a crossbeam channel; an upgrade request's raw stream goes to tungstenite in a thread of
//! its own; a plain request is answered, and its thread reads the next head.
//!
//! The listener thread is blocked in `tiny_http::Server::recv`. What wakes it: a request, or the
//! check of the oldest ticket once a second. A ticket older than [`pipe::PIPE_TIMEOUT`] means that
//! the pipe is broken: those that wait are told 500, and a new pipe is made.

pub mod connection;
#[doc(hidden)] // public for its tests and the fuzzer only
pub mod pipe;
pub mod threads;
mod tickets;

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::door::pending::{Pending, Stage};
use crate::door::{self, Door};
use crate::http::forwarded::Proxies;
use crate::http::{Persistence, Response};
use crate::os::memory::Trimmer;
use crate::os::send::send_now;
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

/// The listening socket, the pipe, and the threads. See [`Listener::stop`].
pub struct Listener {
    door: Door,
    /// Who is believed about clients' addresses.
    proxies: Proxies,
    handler: Box<Handler>,
    tickets: Tickets,
    /// `None` while it is being replaced. Locked by whoever writes, for the length of one head.
    pipe: Mutex<Option<Arc<Pipe>>>,
    /// Signalled when there is a new pipe, or there will be none any more.
    pipe_changed: Condvar,
    /// Those of the connections.
    threads: Arc<Threads>,
    /// The accept thread and the listener thread.
    own_threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Listener {
    /// Serves requests that come through `door`: `handler` is called with each, in a thread of its
    /// own. `proxies` are believed about clients' addresses.
    ///
    /// # Errors
    /// Where the pipe or the first threads cannot be had.
    pub fn start(door: Door, proxies: Proxies, handler: Box<Handler>) -> io::Result<Arc<Listener>> {
        let listener = Arc::new(Listener {
            door,
            proxies,
            handler,
            tickets: Tickets::new(),
            pipe: Mutex::new(Some(Arc::new(Pipe::open()?))),
            pipe_changed: Condvar::new(),
            threads: Arc::default(),
            own_threads: Mutex::default(),
        });
        let bodies =
            [("listener", Listener::listen as fn(&Arc<Listener>)), ("accept", Listener::accept)];
        for (name, body) in bodies {
            let thread = std::thread::Builder::new().name(name.into());
            let shared = Arc::clone(&listener);
            let handle = thread.spawn(move || body(&shared)).inspect_err(|_| listener.stop())?;
            listener.own_threads().push(handle);
        }
        Ok(listener)
    }

    fn own_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.own_threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pipe, if there is one at the moment.
    #[doc(hidden)] // public for tests of what happens when it is disturbed
    pub fn pipe(&self) -> MutexGuard<'_, Option<Arc<Pipe>>> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server shuts down: closes idle connections, and keeps none open after its response. New
    /// ones are still accepted.
    pub fn close_idle(&self) {
        self.door.table.close(|stage| stage == Stage::Idle);
    }

    /// Waits until no request is being served, so that no download is cut short; returns whether that
    /// is so at the deadline.
    pub fn wait_served(&self, deadline: Instant) -> bool {
        while self.door.table.is_serving() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(SERVED_CHECK_INTERVAL);
        }
        true
    }

    /// Refuses new connections, closes those that are no clients, and ends the listener's threads,
    /// which live until then.
    pub fn stop(&self) {
        self.door.stop();
        if let Some(pipe) = self.pipe().take() {
            pipe.close();
        }
        self.pipe_changed.notify_all();
        self.threads.end();
        let own_threads = std::mem::take(&mut *self.own_threads());
        for thread in own_threads {
            let _ = thread.join();
        }
    }

    /// The body of the accept thread.
    fn accept(self: &Arc<Self>) {
        self.door.accept(|pending, head| match head {
            Some(head) => {
                self.submit_now(Box::new(Ticket { pending, head }));
                // It is faster than the threads that it starts: they must not pile up.
                self.tickets.pause();
            }
            None => self.spawn(Some(pending.stream.clone()), move |shared| shared.read(pending)),
        });
    }

    /// Does `job` for a connection in another thread. Where there is none the connection is closed,
    /// with a 503 on `stream`. Never blocks.
    fn spawn(
        self: &Arc<Self>,
        stream: Option<Arc<TcpStream>>,
        job: impl FnOnce(&Listener) + Send + 'static,
    ) {
        let shared = Arc::clone(self);
        let Err(error) = self.threads.start(Box::new(move || job(&shared))) else { return };
        log::debug!("no thread for a connection: {error}");
        if let Some(stream) = stream {
            let response = Response::overloaded("no thread can be started");
            let _ = send_now(&stream, &response.to_bytes(false, Persistence::Close));
        }
    }

    /// Tells a client that its request was lost, in another thread.
    fn refuse(self: &Arc<Self>, Ticket { pending, head }: Ticket) {
        let refusal = Response::error(500, "internal", "the listener failed; try again");
        let response = head.or_come_back(refusal);
        self.spawn(Some(pending.stream.clone()), move |_| door::refuse(&pending, &response));
    }

    /// Reads the next head on a connection.
    // Not inlined: the table of a head's fields, 3 KiB, would be in the frame below every client's,
    // and a page more of each idle one's stack resident.
    #[inline(never)]
    fn read(&self, mut pending: Pending) {
        if let Some(head) = self.door.read_head(&mut pending) {
            self.submit(Box::new(Ticket { pending, head }));
        }
    }

    /// Sends a head through the pipe, without waiting for it: the accept thread must not. Where the
    /// pipe is not free at once, another thread waits.
    fn submit_now(self: &Arc<Self>, ticket: Box<Ticket>) {
        let left = match self.tickets.keep(ticket) {
            Ok((number, line)) => {
                let is_written = self.pipe.try_lock().is_ok_and(|pipe| {
                    pipe.as_ref().is_some_and(|pipe| pipe.write_now(line.as_bytes()).is_ok())
                });
                // Where the ticket is not there any more, the head went through all the same.
                if is_written { None } else { self.tickets.take(number) }
            }
            Err(ticket) => Some(ticket),
        };
        if let Some(ticket) = left {
            self.spawn(Some(ticket.pending.stream.clone()), move |shared| shared.submit(ticket));
        }
    }

    /// Sends a head through the pipe, and waits for room in it, or while it is replaced. Nobody holds
    /// the pipe's lock for longer than [`PIPE_TIMEOUT`].
    fn submit(&self, ticket: Box<Ticket>) {
        let deadline = Instant::now() + PIPE_TIMEOUT;
        let (number, line) = match self.tickets.keep(ticket) {
            Ok(kept) => kept,
            Err(ticket) => {
                let refusal = Response::overloaded("too many requests wait");
                return door::refuse(&ticket.pending, &ticket.head.or_come_back(refusal));
            }
        };
        let mut pipe = self.pipe();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_awaited = |pipe: &mut Option<_>| pipe.is_none() && !self.door.is_stopped();
            let waited = self.pipe_changed.wait_timeout_while(pipe, left, is_awaited);
            pipe = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Some(current) = pipe.clone() else { break };
            match current.write(line.as_bytes()) {
                Ok(()) => return,
                // The listener thread wakes up, finds no pipe, and makes one.
                Err(error) => {
                    log::warn!("the pipe to tiny_http is broken: {error}");
                    current.close();
                    *pipe = None;
                }
            }
        }
        drop(pipe);
        if let Some(ticket) = self.tickets.take(number) {
            let refusal = Response::overloaded("the listener is not ready");
            door::refuse(&ticket.pending, &ticket.head.or_come_back(refusal));
        }
    }

    /// The body of the listener thread.
    fn listen(self: &Arc<Self>) {
        let mut has_failed = false;
        while !self.door.is_stopped() {
            let current = self.pipe().clone();
            if let Some(pipe) = current {
                has_failed = false;
                self.receive(&pipe);
                if self.door.is_stopped() {
                    return;
                }
                self.door.counters.restarts.fetch_add(1, Ordering::Relaxed);
                *self.pipe() = None;
                pipe.close();
                // Their heads are in the pipe that broke, or nobody knows where.
                for ticket in self.tickets.take_all() {
                    self.refuse(*ticket);
                }
            }
            // Not under the lock: it may take seconds.
            match Pipe::open() {
                Ok(pipe) => {
                    *self.pipe() = Some(Arc::new(pipe));
                    self.pipe_changed.notify_all();
                }
                Err(error) => {
                    if !has_failed {
                        log::warn!("no pipe to tiny_http can be made: {error}; trying again");
                    }
                    has_failed = true;
                    self.door.table.make_room();
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }

    /// Takes requests out of one pipe until it breaks.
    fn receive(self: &Arc<Self>, pipe: &Pipe) {
        let mut memory = Trimmer::new();
        loop {
            memory.tick();
            match pipe.server.recv_timeout(CHECK_INTERVAL) {
                Ok(Some(request)) => {
                    if let Err(why) = self.serve(request, pipe) {
                        return log::warn!("the pipe to tiny_http is broken: {why}");
                    }
                }
                // tiny_http's accept thread has ended, as it should.
                Err(error) => log::debug!("tiny_http: {error}"),
                Ok(None) => {
                    // Whoever found it broken has taken it out; only this thread puts one in.
                    let is_broken = self.pipe().is_none();
                    let is_stuck = self.tickets.oldest().is_some_and(|age| age > PIPE_TIMEOUT);
                    if is_broken || is_stuck || self.door.is_stopped() {
                        return;
                    }
                }
            }
        }
    }

    /// Starts the thread for a request. Never blocks: the next request must not wait. Fails where
    /// tiny_http has not read what was written.
    fn serve(self: &Arc<Self>, request: Request, pipe: &Pipe) -> Result<(), &'static str> {
        let ticket = pipe.ticket(&request).and_then(|number| self.tickets.take(number));
        let Some(ticket) = ticket else {
            // From a stranger who connected while the pipe was made, or it was refused meanwhile.
            log::debug!("a request without a ticket: {} {}", request.method(), request.url());
            pipe::discard(request);
            return Ok(());
        };
        let is_same = pipe::is_same(&request, &ticket.head);
        pipe::discard(request);
        if !is_same {
            self.refuse(*ticket);
            return Err("a request came out that is not the one that went in");
        }
        self.door.counters.requests.fetch_add(1, Ordering::Relaxed);
        // A 503 would end an `EventSource` for good; a close without a response it takes for a network
        // error, and comes back.
        let is_told = !ticket.head.wants_event_stream();
        let stream = is_told.then(|| ticket.pending.stream.clone());
        self.spawn(stream, move |shared| shared.handle(ticket));
        Ok(())
    }

    /// Serves a request, and then reads the next one.
    fn handle(&self, ticket: Box<Ticket>) {
        let client = self.proxies.client(ticket.pending.peer, &ticket.head);
        let body_timeout = self.door.header_timeout;
        let connection =
            Connection { ticket: Some(ticket), client, body_timeout, fields: Vec::new() };
        name_this_thread(&connection.thread_name());
        if let Next::KeepAlive(pending) = (self.handler)(connection) {
            name_this_thread("kept");
            self.read(pending);
        }
    }
}
