//! The writers of an outbox: threads that write what could not be written at once. They sleep until
//! something waits (`park`; a change of the phase wakes them), and while they write they wait for the
//! peer (`poll`; it ends when the peer reads, or when the socket is shut down).

use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::phase::{Close, Phase};
use super::queue::Piece;
use super::{Outbox, State};
use crate::client::reason::Reason;
use crate::config::Fanout;
use crate::event::payload::Payload;
use crate::listener::threads::STACK_BYTES;
use crate::os::send::{send_now, wait_writable};
use crate::os::tcp;

/// How often a writer that waits for its peer asks the kernel whether the peer is still there. As long as it
/// is, it may read as slowly as its queue allows.
const PEER_CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// How often a blocked writer checks whether its client has been given up.
const CLOSE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What a writer does next.
pub(super) enum Step {
    Write(Piece),
    /// It is not its turn, or nothing waits.
    Nothing,
    /// Nothing will ever be written again.
    Over,
}

impl Outbox {
    /// Sleeps until something waits for the client, and returns it; `None` when the connection is over.
    /// Called by the thread of [`Outbox::set_writer`], which then calls [`Outbox::write_piece`].
    pub fn next_piece(&self) -> Option<Piece> {
        loop {
            let step = self.next_step(&mut self.lock());
            match step {
                Step::Write(piece) => return Some(piece),
                Step::Over => return None,
                // A change before `park` is not missed: `unpark` leaves a token.
                Step::Nothing => thread::park(),
            }
        }
    }

    /// Writes all of a piece, waiting for the peer.
    pub fn write_piece(&self, piece: &Piece) {
        let is_written = self.write_out(piece.rest());
        let mut state = self.lock();
        state.queue.count_written(piece);
        if is_written {
            state.count_written(piece.payload(), Instant::now());
        }
    }

    /// The writer's part of the table of phases.
    pub(super) fn next_step(&self, state: &mut State) -> Step {
        match &mut state.phase {
            Phase::Idle | Phase::Held { .. } => Step::Nothing,
            Phase::Closed(_) => Step::Over,
            Phase::Draining { wanted } => {
                let next = if *wanted { Phase::Held { close: None } } else { Phase::Idle };
                if let Some(piece) = state.queue.pop() {
                    return Step::Write(piece);
                }
                self.enter(state, next);
                Step::Nothing
            }
            Phase::Closing(close) => {
                let message = || close.message.take().map(|text| Piece::new(Payload::own(text)));
                if let Some(piece) = state.queue.pop().or_else(message) {
                    return Step::Write(piece);
                }
                let (reason, deadline) = (close.reason, close.deadline);
                // The end of an event stream has to be told. A WebSocket's client has read the close
                // frame, and its session closes when that has been answered.
                if self.link.coding().is_some() {
                    let _ = self.link.stream().shutdown(std::net::Shutdown::Write);
                }
                self.enter(state, Phase::Closed(Close { reason, message: None, deadline }));
                Step::Over
            }
        }
    }

    /// After a change to draining or closing: sees to it that somebody writes.
    pub(super) fn dispatch(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if let Some(thread) = self.writer.get() {
            drop(state);
            return thread.unpark();
        }
        // What the socket takes at once needs no thread.
        let Some(piece) = self.flush(&mut state) else { return };
        drop(state);
        self.start_thread(move |outbox| outbox.catch_up(piece));
    }

    /// With `handoff`, gives the outbox a writer of its own, unless it has one: for a client whose own thread
    /// is blocked in `read`. With `direct` there is nothing to do.
    // Not inlined, nor is what it calls: their frames would be below every idle client's.
    #[inline(never)]
    pub fn ensure_writer(self: &Arc<Self>) {
        if self.fanout == Fanout::Direct || self.writer.get().is_some() {
            return;
        }
        let thread = self.start_thread(|outbox| {
            while let Some(piece) = outbox.next_piece() {
                outbox.write_piece(&piece);
            }
        });
        if let Some(thread) = thread {
            self.set_writer(thread);
        }
    }

    /// Starts a thread that writes. The connection ends where there is none, and where it panics: a phase
    /// without its writer would last for ever.
    #[inline(never)]
    fn start_thread(
        self: &Arc<Self>,
        write: impl FnOnce(&Outbox) + Send + 'static,
    ) -> Option<Thread> {
        let outbox = Arc::clone(self);
        let body = move || {
            if catch_unwind(AssertUnwindSafe(|| write(&outbox))).is_err() {
                outbox.abort_for(Reason::Internal);
            }
        };
        let name = format!("wsw {}", self.link.peer());
        match thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(body) {
            Ok(started) => Some(started.thread().clone()),
            Err(_) => {
                self.abort_for(Reason::Internal);
                None
            }
        }
    }

    /// The body of a thread that is started for a client which has fallen behind.
    fn catch_up(&self, mut piece: Piece) {
        loop {
            self.write_piece(&piece);
            let step = self.next_step(&mut self.lock());
            match step {
                Step::Write(next) => piece = next,
                Step::Nothing | Step::Over => return,
            }
        }
    }

    /// Takes the writer's steps as far as the socket takes their bytes at once. Returns the piece of which
    /// it does not take everything.
    fn flush(&self, state: &mut State) -> Option<Piece> {
        while let Step::Write(mut piece) = self.next_step(state) {
            match send_now(self.link.stream(), piece.rest()) {
                Ok(sent) if sent == piece.rest().len() => {
                    state.queue.count_written(&piece);
                    state.count_written(piece.payload(), Instant::now());
                }
                Ok(sent) => {
                    piece.sent += sent;
                    return Some(piece);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(piece),
                Err(_) => self.lose(state, Reason::Lost),
            }
        }
        None
    }

    /// Writes all of `left`, waiting for the peer. Returns whether it was written; if not, the connection
    /// is over.
    pub(super) fn write_out(&self, mut left: &[u8]) -> bool {
        let mut check = PeerCheck::default();
        while !left.is_empty() {
            match send_now(self.link.stream(), left) {
                Ok(sent) => left = &left[sent..],
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && self.wait_for(&mut check) => {}
                Err(_) => {
                    self.lose(&mut self.lock(), Reason::Lost);
                    return false;
                }
            }
        }
        true
    }

    /// Waits a while for the peer to read. Returns whether to go on: the peer is there, and its time is not
    /// over.
    fn wait_for(&self, check: &mut PeerCheck) -> bool {
        let now = Instant::now();
        if self.is_overdue(now) || check.is_gone(self.link.stream(), now) {
            return false;
        }
        wait_writable(self.link.stream(), now + CLOSE_CHECK_INTERVAL).is_ok()
    }
}

/// What a writer that waits knows of its peer.
#[derive(Default)]
struct PeerCheck {
    next: Option<Instant>,
    last_told: tcp::Unacknowledged,
}

impl PeerCheck {
    fn is_gone(&mut self, stream: &TcpStream, now: Instant) -> bool {
        if now < *self.next.get_or_insert(now + PEER_CHECK_INTERVAL) {
            return false;
        }
        self.next = Some(now + PEER_CHECK_INTERVAL);
        let told = tcp::unacknowledged(stream);
        // A peer that has taken bytes since the last check is there, though on a bad line data may be sent
        // twice at the moment.
        let is_gone = told.is_overdue && told == self.last_told;
        self.last_told = told;
        is_gone
    }
}
