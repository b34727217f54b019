//! The listener: tiny_http, and a thread for each client.
//!
//! ```text
//! TCP ──► door ──── head ────► tiny_http ── Request ──► listener ──► one thread per client
//!          └──────────────────── socket ──────────────────┘
//! ```
//!
//! The [`door`] tells the way of a connection. Its steps 3 and 4 are here: a head goes into the pipe
//! (`submit`), comes out of it as a request (`receive`), and gets a thread ([`threads`]) that serves it
//! (`handle`). An SSE client keeps this thread, fed through a crossbeam channel; an upgrade request's
//! raw stream goes to tungstenite in a thread of its own; a plain request gets a response, and its
//! thread reads the next head.
//!
//! | thread | waits | what wakes it |
//! |---|---|---|
//! | `accept` | in `accept`; for at most 100 ms while many tickets wait | a connection; tickets that are redeemed; the shutdown |
//! | `listener` | in `tiny_http::Server::recv_timeout` | a request; once a second the check of the oldest ticket; [`pipe::Pipe::close`] |
//! | one for each connection | for the pipe, while it is full or being replaced | room, or a new pipe; the deadline |
//!
//! A ticket older than [`pipe::PIPE_TIMEOUT`] means that the pipe is broken: all that wait get 500, and a
//! new pipe is made.

pub mod connection;
#[doc(hidden)] // public for its tests and the fuzzer only
pub mod pipe;
pub mod threads;
mod tickets;

use std::io;
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

/// How long the listener thread sleeps after a pipe could not be made.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How often the shutdown checks whether the last request has been served.
const SERVED_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Serves a request, in the thread of its connection.
pub type Handler = dyn Fn(Connection) -> Next + Send + Sync;

/// The door, the pipe, and the threads of the connections. [`Listener::stop`] ends all of them.
pub struct Listener {
    door: Door,
    /// The proxies whose word about clients' addresses counts.
    proxies: Proxies,
    handler: Box<Handler>,
    tickets: Tickets,
    /// `None` while it is being replaced. A thread that writes a head holds the lock while it does.
    pipe: Mutex<Option<Arc<Pipe>>>,
    /// Signalled when there is a new pipe, and at shutdown.
    pipe_changed: Condvar,
    threads: Arc<Threads<(Arc<Listener>, Job)>>,
    /// The accept thread and the listener thread.
    own_threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a thread does for a connection.
enum Job {
    /// Reads a head, and submits it.
    Read(Box<Pending>),
    /// Sends a head through the pipe, and waits for room in it.
    Submit(Box<Ticket>),
    /// Serves the request whose head has come out of the pipe.
    Handle(Box<Ticket>),
    /// Writes the connection's last response.
    Refuse(Box<(Pending, Response)>),
}

impl Listener {
    /// Has `handler` serve each request that comes through `door`, in the thread of its connection.
    ///
    /// # Errors
    /// Where the pipe or the first two threads cannot be made.
    pub fn start(door: Door, proxies: Proxies, handler: Box<Handler>) -> io::Result<Arc<Listener>> {
        let listener = Arc::new(Listener {
            door,
            proxies,
            handler,
            tickets: Tickets::new(),
            pipe: Mutex::new(Some(Arc::new(Pipe::open()?))),
            pipe_changed: Condvar::new(),
            threads: Threads::new(Listener::run),
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

    /// The server shuts down: closes idle connections, and from here on each one after its response. The
    /// door still accepts new ones.
    pub fn close_idle(&self) {
        self.door.table.close(|stage| stage == Stage::Idle);
    }

    /// Waits until no request is being served, so that no download is cut short. Returns whether that is
    /// so at the deadline.
    pub fn wait_served(&self, deadline: Instant) -> bool {
        while self.door.table.is_serving() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(SERVED_CHECK_INTERVAL);
        }
        true
    }

    /// Refuses new connections, closes those that are no clients, and waits until the accept thread and
    /// the listener thread have ended.
    pub fn stop(&self) {
        self.door.stop();
        if let Some(pipe) = self.pipe().take() {
            pipe.close();
        }
        // Threads that wait for a new pipe: there will be none.
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
                // This thread is faster than those that it starts. Requests must not pile up in front of
                // them: the kernel's listen queue is the place to wait.
                self.tickets.pause();
            }
            None => self.spawn(Job::Read(Box::new(pending))),
        });
    }

    /// Has another thread do a job. Where there is none, drops the connection, if possible with a 503.
    /// Never blocks.
    fn spawn(self: &Arc<Self>, job: Job) {
        let Err(((_, job), error)) = self.threads.start((Arc::clone(self), job)) else { return };
        log::debug!("no thread for a connection: {error}");
        let pending = match &job {
            // A 503 would end an `EventSource` for good. A close without a response is a network error for
            // it, after which it reconnects.
            Job::Submit(ticket) | Job::Handle(ticket) if ticket.head.wants_event_stream() => return,
            Job::Submit(ticket) | Job::Handle(ticket) => &ticket.pending,
            Job::Read(pending) => pending,
            Job::Refuse(refused) => &refused.0,
        };
        let response = Response::overloaded("no thread can be started");
        let _ = send_now(&pending.stream, &response.to_bytes(false, Persistence::Close));
    }

    /// Does a job, in a thread of [`Listener::threads`].
    fn run((listener, job): (Arc<Listener>, Job)) {
        match job {
            Job::Read(pending) => listener.read(pending),
            Job::Submit(ticket) => listener.submit(ticket),
            Job::Handle(ticket) => listener.handle(ticket),
            Job::Refuse(refused) => door::refuse(&refused.0, &refused.1),
        }
    }

    /// Tells a client that its request was lost, in another thread.
    fn refuse(self: &Arc<Self>, Ticket { pending, head }: Ticket) {
        let refusal = Response::error(500, "internal", "the listener failed; try again");
        self.spawn(Job::Refuse(Box::new((pending, head.or_come_back(refusal)))));
    }

    /// Reads the next head on a connection, and submits it.
    // Not inlined: the table of a head's fields, 3 KiB, would be in the frame below every client's,
    // and cost each idle one another resident page of stack.
    #[inline(never)]
    fn read(&self, mut pending: Box<Pending>) {
        if let Some(head) = self.door.read_head(&mut pending) {
            self.submit(Box::new(Ticket { pending: *pending, head }));
        }
    }

    /// Sends a head through the pipe from the accept thread, which must not wait. Where the pipe is not
    /// free at once, another thread submits it.
    fn submit_now(self: &Arc<Self>, ticket: Box<Ticket>) {
        let left = match self.tickets.keep(ticket) {
            Ok((number, line)) => {
                let is_written = self.pipe.try_lock().is_ok_and(|pipe| {
                    pipe.as_ref().is_some_and(|pipe| pipe.write_now(line.as_bytes()).is_ok())
                });
                // If the ticket is gone though, the head has come out, or its pipe broke and the client
                // got its 500.
                if is_written { None } else { self.tickets.take(number) }
            }
            Err(ticket) => Some(ticket),
        };
        if let Some(ticket) = left {
            self.spawn(Job::Submit(ticket));
        }
    }

    /// Sends a head through the pipe. Waits for room in it, and while it is being replaced. No thread
    /// holds the pipe's lock for longer than [`PIPE_TIMEOUT`].
    // Not inlined, as `handle`: `run` is below every client's frames, so its own must be small.
    #[inline(never)]
    fn submit(&self, ticket: Box<Ticket>) {
        let deadline = Instant::now() + PIPE_TIMEOUT;
        let (number, line) = match self.tickets.keep(ticket) {
            Ok(kept) => kept,
            Err(ticket) => {
                let refusal = Response::overloaded("too many requests wait");
                return door::refuse(&ticket.pending, &ticket.head.or_come_back(refusal));
            }
        };
        // In the lock's order: a head is written whole before another one begins.
        let mut pipe = self.pipe();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_awaited = |pipe: &mut Option<_>| pipe.is_none() && !self.door.is_stopped();
            let waited = self.pipe_changed.wait_timeout_while(pipe, left, is_awaited);
            pipe = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Some(current) = pipe.clone() else { break };
            match current.write(line.as_bytes()) {
                Ok(()) => return,
                // The listener thread wakes up, finds no pipe, and makes one. This head goes through that.
                Err(error) => {
                    log::warn!("the pipe to tiny_http is broken: {error}");
                    current.close();
                    *pipe = None;
                }
            }
        }
        drop(pipe);
        // No pipe in time. Without a ticket the client has its response already.
        if let Some(ticket) = self.tickets.take(number) {
            let refusal = Response::overloaded("the listener is not ready");
            door::refuse(&ticket.pending, &ticket.head.or_come_back(refusal));
        }
    }

    /// The body of the listener thread: receives from a pipe until it breaks, and makes another one.
    fn listen(self: &Arc<Self>) {
        // Whether the latest try to make a pipe failed: one warning is enough for all tries in a row.
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
                // Their heads were in the pipe, or are lost in tiny_http.
                for ticket in self.tickets.take_all() {
                    self.refuse(*ticket);
                }
            }
            // Without the lock: this may take seconds, in which others must be able to give up.
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
                    // Most likely descriptors have run out.
                    self.door.table.make_room();
                    std::thread::sleep(RETRY_INTERVAL);
                }
            }
        }
    }

    /// Receives requests from one pipe until it breaks.
    fn receive(self: &Arc<Self>, pipe: &Pipe) {
        let mut memory = Trimmer::new();
        loop {
            memory.tick();
            match pipe.server.recv_timeout(CHECK_INTERVAL) {
                Ok(Some(request)) => {
                    if let Err(error) = self.serve(request, pipe) {
                        return log::warn!("the pipe to tiny_http is broken: {error}");
                    }
                }
                // Its accept thread has ended, as intended: see `Pipe::open`.
                Err(error) => log::debug!("tiny_http: {error}"),
                Ok(None) => {
                    // A thread that finds the pipe broken takes it out. Only this thread puts one in.
                    let is_broken = self.pipe().is_none();
                    let is_stuck = self.tickets.oldest().is_some_and(|age| age > PIPE_TIMEOUT);
                    if is_broken || is_stuck || self.door.is_stopped() {
                        return;
                    }
                }
            }
        }
    }

    /// Gives a request to a thread. Never blocks: the next request must not wait.
    ///
    /// # Errors
    /// Where tiny_http has read something else than was written into the pipe.
    fn serve(self: &Arc<Self>, request: Request, pipe: &Pipe) -> io::Result<()> {
        let ticket = pipe.ticket(&request).and_then(|number| self.tickets.take(number));
        let Some(ticket) = ticket else {
            // From a stranger who connected while the pipe was being made, or the ticket was too old and
            // its client got 500.
            log::debug!("a request without a ticket: {} {}", request.method(), request.url());
            pipe::discard(request);
            return Ok(());
        };
        let is_same = pipe::is_same(&request, &ticket.head);
        pipe::discard(request);
        if !is_same {
            self.refuse(*ticket);
            return Err(io::Error::other("a request came out that is not the one that went in"));
        }
        self.door.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.spawn(Job::Handle(ticket));
        Ok(())
    }

    /// Serves a request, and then reads the next one on the same connection.
    #[inline(never)]
    fn handle(&self, ticket: Box<Ticket>) {
        let client = self.proxies.client(ticket.pending.peer, &ticket.head);
        let body_timeout = self.door.header_timeout;
        let connection =
            Connection { ticket: Some(ticket), client, body_timeout, fields: Vec::new() };
        name_this_thread(&connection.thread_name());
        if let Next::KeepAlive(pending) = (self.handler)(connection) {
            name_this_thread("kept");
            self.read(Box::new(pending));
        }
    }
}
