//! A client's outbox: the one place through which bytes reach its socket.
//!
//! The outbox is *free* or *taken*. Free: whoever has bytes (a broadcaster, an echo, a heartbeat)
//! writes them under the lock, without waiting. What the socket does not take, and all that comes
//! later, goes into the client's channel, and the outbox is taken: one of the client's own threads
//! now writes, waiting for the peer but without the lock, until the channel is empty under the
//! lock. So nobody waits for a slow client but its own thread, and order holds across both ways.
//!
//! In `handoff` mode the outbox is always taken: everything goes through the channel and wakes the
//! client's thread. That is the pure model, and shows what waking a thread costs.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::reason::Reason;
use crate::client::backlog::{Backlog, Queue};
use crate::config::Fanout;
use crate::event::chunk::Chunk;
use crate::listener::connection::Link;
use crate::listener::threads::STACK_BYTES;
use crate::os::send::{send_now, wait_writable};
use crate::os::sys;

/// How often a writer that waits for its peer asks whether that is still there. As long as it is, it
/// may read as slowly as its queue allows.
const PEER_CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// How long a client that has been given up may take to accept the message it is in the middle
/// of, and the last words.
pub const LAST_WORDS_GRACE: Duration = Duration::from_secs(5);

/// The longest a blocked writer sleeps before it looks whether its client has been given up.
const SLICE: Duration = Duration::from_millis(100);

/// How much may wait for one client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages.
    pub events: usize,
    /// Bytes; one message always fits.
    pub bytes: usize,
}

/// Who writes what could not be written at once.
enum Drainer {
    /// A thread of the client's that sleeps in [`Outbox::run`].
    Parked(Thread),
    /// A thread that is started for the purpose, and ends when it has caught up. For a WebSocket,
    /// whose own thread is blocked in `read`.
    Spawned,
}

/// See the module's documentation.
// What a fan-out touches stands in front, side by side: with thousands of clients it is reading
// their outboxes from memory that costs, not the few instructions in between.
#[repr(C)]
pub struct Outbox {
    state: Mutex<State>,
    link: Link,
    fanout: Fanout,
    limits: Limits,
    /// What is said last before the connection ends because the client is slow.
    farewell: &'static [u8],
    drainer: OnceLock<Drainer>,
    sender: Sender<Chunk>,
    receiver: Receiver<Chunk>,
    /// Signalled when room appears, when the outbox becomes free, and when it is over.
    room: Condvar,
    /// Where what waits is counted for all clients together. Each change of `waiting_bytes` is
    /// made there too, under the lock; it is asked to relieve without.
    backlog: Arc<Backlog>,
}

#[repr(C)]
struct State {
    taken: bool,
    over: Option<Reason>,
    /// Events written.
    sent: u64,
    last_write: Instant,
    /// A message that the socket has taken up to the offset. It goes before the channel.
    partial: Option<(Chunk, usize)>,
    /// Messages in the channel, and one more for the chunk that is being written, however many that
    /// holds: the peer may have them all before its writer can cross them off.
    waiting: usize,
    /// The bytes of all of these, until they are written.
    waiting_bytes: usize,
    /// Once it is over: until when what still waits, and the last words, may be written.
    until: Instant,
    last_words: Option<Box<[u8]>>,
    done: bool,
    /// The client's own thread has the outbox between [`Outbox::take`] and [`Outbox::release`], or
    /// wants it: whoever writes hands it over when nothing waits.
    held: bool,
    wanted: bool,
    /// Threads that wait for `room`. To signal it without need is a system call each time.
    waiters: usize,
    /// When the kernel is asked next whether the peer acknowledges what was sent, and since when it
    /// has not: then with the count of bytes that it had acknowledged.
    next_check: Instant,
    silent_since: Option<(Instant, u64)>,
}

/// What the client's thread is woken for.
enum Work {
    Write(Chunk, usize),
    Idle,
    Over,
}

/// What became of bytes in [`Outbox::send_free`].
enum Sent {
    Whole,
    Partly,
    Lost,
}

impl Outbox {
    /// An outbox that is taken by its maker, who writes the first bytes and then calls
    /// [`Outbox::release`] or [`Outbox::run`].
    pub fn new(
        link: Link,
        fanout: Fanout,
        limits: Limits,
        farewell: &'static [u8],
        backlog: Arc<Backlog>,
    ) -> Arc<Outbox> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let now = Instant::now();
        Arc::new(Outbox {
            link,
            fanout,
            limits,
            farewell,
            drainer: OnceLock::new(),
            sender,
            receiver,
            state: Mutex::new(State {
                taken: true,
                partial: None,
                waiting: 0,
                waiting_bytes: 0,
                last_write: now,
                over: None,
                until: now,
                last_words: None,
                done: false,
                held: false,
                wanted: false,
                waiters: 0,
                sent: 0,
                next_check: now,
                silent_since: None,
            }),
            room: Condvar::new(),
            backlog,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's socket, for reading and for its options.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Which way its events go.
    pub fn fanout(&self) -> Fanout {
        self.fanout
    }

    /// Events written so far.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Messages and bytes that wait.
    pub fn backlog(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting, state.waiting_bytes)
    }

    /// Why the connection ends, if it does.
    pub fn over(&self) -> Option<Reason> {
        self.lock().over
    }

    /// The calling thread will write what cannot be written at once: it calls [`Outbox::run`].
    pub fn drained_by_this_thread(&self) {
        let _ = self.drainer.set(Drainer::Parked(thread::current()));
    }

    /// A thread will be started to write what cannot be written at once.
    pub fn drained_by_new_threads(&self) {
        let _ = self.drainer.set(Drainer::Spawned);
    }

    /// Reads what [`Outbox::offer`] is going to read, and makes nothing of it: a processor waits for
    /// memory less often where it knows early what will be wanted.
    #[inline]
    pub fn fetch(&self) {
        std::hint::black_box((self.state.is_poisoned(), self.link.stream().as_raw_fd()));
    }

    /// Hands a message over without waiting. It is cloned only where it must wait: a fan-out in
    /// which all clients keep up touches nothing that is shared between them.
    pub fn offer(self: &Arc<Self>, chunk: &Chunk, now: Instant) {
        let mut state = self.lock();
        if state.over.is_some() {
            return;
        }
        if !state.taken {
            match self.send_free(&mut state, chunk.bytes(), || chunk.clone()) {
                Sent::Whole => {
                    state.last_write = now;
                    state.sent += chunk.events() as u64;
                }
                Sent::Partly => {
                    drop(state);
                    self.wake();
                    self.backlog.relieve();
                }
                Sent::Lost => {
                    drop(state);
                    self.finish(Reason::Lost, None);
                }
            }
            return;
        }
        let length = chunk.bytes().len();
        let full = state.waiting + chunk.messages() > self.limits.events
            || state.waiting_bytes + length > self.limits.bytes;
        if state.waiting > 0 && full {
            drop(state);
            return self.finish(Reason::Slow, Some(self.farewell));
        }
        self.enqueue(&mut state, chunk.clone());
        drop(state);
        // In direct mode the thread that has taken the outbox is awake already.
        if self.fanout == Fanout::Handoff {
            self.wake();
        }
        self.backlog.relieve();
    }

    fn enqueue(&self, state: &mut State, chunk: Chunk) {
        self.count_waiting(state, chunk.messages(), chunk.bytes().len());
        let _ = self.sender.send(chunk);
    }

    /// This waits as well. The caller asks the backlog to relieve, when it holds no lock.
    fn count_waiting(&self, state: &mut State, messages: usize, bytes: usize) {
        state.waiting += messages;
        state.waiting_bytes += bytes;
        self.backlog.add(bytes);
    }

    /// Writes a whole message from the client's own thread, waiting for the peer and for whoever
    /// is writing. After the end bytes are accepted and dropped.
    pub fn write(self: &Arc<Self>, bytes: &[u8]) {
        let mut state = self.lock();
        // While the client is behind, its own messages leave half of the queue to events.
        let room = (self.limits.events / 2).max(1);
        loop {
            if state.over.is_some() {
                return;
            }
            if !state.taken {
                break;
            }
            if self.fanout == Fanout::Handoff && state.waiting < room {
                self.enqueue(&mut state, Chunk::Own(bytes.into()));
                drop(state);
                self.wake();
                return self.backlog.relieve();
            }
            state.waiters += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiters -= 1;
        }
        let sent = self.send_free(&mut state, bytes, || Chunk::Own(bytes.into()));
        drop(state);
        match sent {
            Sent::Whole => {}
            Sent::Partly => {
                self.backlog.relieve();
                self.drain();
            }
            Sent::Lost => self.finish(Reason::Lost, None),
        }
    }

    /// Writes a whole message if nothing waits for the client, and does not wait for it either.
    /// Returns whether it was written, or will be before anything else.
    pub fn write_if_idle(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if state.over.is_some() || state.held || state.waiting > 0 {
            return false;
        }
        if state.taken {
            // Only in handoff mode: there the client's thread sleeps.
            self.enqueue(&mut state, Chunk::Own(bytes.into()));
            drop(state);
            self.wake();
            return true;
        }
        let sent = self.send_free(&mut state, bytes, || Chunk::Own(bytes.into()));
        drop(state);
        match sent {
            Sent::Whole => {}
            Sent::Partly => self.wake(),
            Sent::Lost => self.finish(Reason::Lost, None),
        }
        true
    }

    /// Writes into a free outbox what the socket takes at once. What it does not take is kept, as
    /// the `chunk` that it belongs to, and the outbox is taken: the caller sees to its writer.
    // A fan-out's innermost step.
    #[inline(always)]
    fn send_free(&self, state: &mut State, bytes: &[u8], chunk: impl FnOnce() -> Chunk) -> Sent {
        let sent = match send_now(self.link.stream(), bytes) {
            Ok(sent) if sent == bytes.len() => return Sent::Whole,
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Sent::Lost,
        };
        let chunk = chunk();
        self.count_waiting(state, 1, chunk.bytes().len());
        state.partial = Some((chunk, sent));
        state.taken = true;
        Sent::Partly
    }

    /// Takes the outbox for the calling thread, one of the client's own, when all that was handed
    /// over before is written. What comes from now on waits until [`Outbox::release`], behind what
    /// the caller writes. Returns `false`, and takes nothing, where the connection is over.
    pub fn take(&self) -> bool {
        let mut state = self.lock();
        let idle = match self.fanout {
            Fanout::Direct => !state.taken,
            // What waits is counted until it is written.
            Fanout::Handoff => state.waiting == 0,
        };
        if idle && state.over.is_none() {
            state.taken = true;
            state.held = true;
        }
        // To wait for a free moment could be for ever, with events coming one after another.
        state.wanted = !state.held;
        while !state.held {
            if state.over.is_some() {
                state.wanted = false;
                return false;
            }
            state.waiters += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiters -= 1;
        }
        true
    }

    /// Writes a chunk while the outbox is taken by the calling thread and nothing is in front of
    /// it: the beginning of the stream, or a replay.
    pub fn write_taken(&self, chunk: Chunk) {
        let written = self.write_out(&chunk, 0);
        if written {
            self.lock().sent += chunk.events() as u64;
        }
    }

    /// Gives the outbox that this thread has taken back, after what came meanwhile is written.
    pub fn release(&self) {
        self.lock().held = false;
        // In handoff mode there is a thread to write it.
        if !self.unpark() {
            self.drain();
        }
    }

    /// The same for a thread that must not wait for the peer: a thread is started for what came
    /// meanwhile (see [`Outbox::drained_by_new_threads`]).
    pub fn release_to_new_thread(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.waiting > 0 || state.over.is_some() {
            drop(state);
            return self.wake();
        }
        state.taken = false;
        self.signal(state);
    }

    /// Ends the connection. The first reason stays. What waits is still written where the server
    /// shuts down, or the client has said goodbye (the answer may be among it), else dropped; then
    /// the last words are said.
    pub fn finish(self: &Arc<Self>, reason: Reason, last_words: Option<&[u8]>) {
        self.end(reason, last_words);
    }

    /// Returns whether the reason is the first one.
    fn end(self: &Arc<Self>, reason: Reason, last_words: Option<&[u8]>) -> bool {
        let mut state = self.lock();
        if state.over.is_some() {
            return false;
        }
        state.over = Some(reason);
        state.until = Instant::now() + LAST_WORDS_GRACE;
        state.last_words = last_words.map(Into::into);
        if !matches!(reason, Reason::Shutdown | Reason::Closed) {
            self.clear(&mut state);
        }
        let was_taken = state.taken;
        state.taken = true;
        self.signal(state);
        // A writer that sleeps is woken; one that has taken the outbox is at work and will look.
        if !self.unpark() && !was_taken {
            self.say_last_words_now();
        }
        true
    }

    /// Drops what waits in the channel.
    fn clear(&self, state: &mut State) {
        while self.receiver.try_recv().is_ok() {}
        self.backlog.remove(state.waiting_bytes);
        state.waiting = 0;
        state.waiting_bytes = 0;
    }

    /// Wakes the writer, if it is a thread that sleeps in [`Outbox::run`]; returns whether it is.
    fn unpark(&self) -> bool {
        let Some(Drainer::Parked(thread)) = self.drainer.get() else { return false };
        thread.unpark();
        true
    }

    /// For a WebSocket whose outbox was free: the last words fit into the socket's buffer, or a
    /// thread must wait for them.
    fn say_last_words_now(self: &Arc<Self>) {
        let mut state = self.lock();
        let words = state.last_words.take().unwrap_or_default();
        match send_now(self.link.stream(), &words) {
            Ok(sent) if sent < words.len() => {
                state.partial = Some((Chunk::Own(words), sent));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !words.is_empty() => {
                state.partial = Some((Chunk::Own(words), 0));
            }
            _ => {
                drop(state);
                return self.hang_up();
            }
        }
        drop(state);
        self.wake();
    }

    /// Sleeps until there is something to write, writes it, and so on until the connection is
    /// over. The life of an SSE client's thread, and of a WebSocket's writer in handoff mode.
    pub fn run(&self) -> Reason {
        loop {
            self.drain();
            loop {
                {
                    let state = self.lock();
                    if let (true, Some(reason)) = (state.done, state.over) {
                        return reason;
                    }
                    let work = state.partial.is_some() || state.waiting > 0 || state.over.is_some();
                    if work && !state.held {
                        break;
                    }
                }
                thread::park();
            }
        }
    }

    /// Writes what waits, in order, until nothing does; then gives the outbox back.
    fn drain(&self) {
        loop {
            match self.next_work() {
                Work::Write(chunk, offset) => {
                    let written = self.write_out(&chunk, offset);
                    let mut state = self.lock();
                    // Less than the chunk where it was cleared meanwhile, or was the last words.
                    let bytes = chunk.bytes().len().min(state.waiting_bytes);
                    state.waiting = state.waiting.saturating_sub(1);
                    state.waiting_bytes -= bytes;
                    self.backlog.remove(bytes);
                    state.last_write = Instant::now();
                    if written {
                        state.sent += chunk.events() as u64;
                    }
                    self.signal(state);
                }
                Work::Idle => return,
                Work::Over => return self.hang_up(),
            }
        }
    }

    fn next_work(&self) -> Work {
        let mut state = self.lock();
        if state.held {
            return Work::Idle;
        }
        if let Some((chunk, offset)) = state.partial.take() {
            return Work::Write(chunk, offset);
        }
        if let Ok(chunk) = self.receiver.try_recv() {
            state.waiting = state.waiting.saturating_sub(chunk.messages() - 1);
            return Work::Write(chunk, 0);
        }
        if state.over.is_some() {
            return match state.last_words.take() {
                Some(words) => Work::Write(Chunk::Own(words), 0),
                None => Work::Over,
            };
        }
        if state.wanted {
            state.wanted = false;
            state.held = true;
            self.signal(state);
        } else if self.fanout == Fanout::Direct {
            state.taken = false;
            self.signal(state);
        }
        Work::Idle
    }

    /// Writes all of a chunk from `offset` on, waiting for the peer. Returns whether it was
    /// written; if not, the connection is over.
    fn write_out(&self, chunk: &Chunk, offset: usize) -> bool {
        let mut left = &chunk.bytes()[offset..];
        let mut check = Instant::now() + PEER_CHECK_INTERVAL;
        let mut last_told = sys::Unacknowledged::default();
        while !left.is_empty() {
            match send_now(self.link.stream(), left) {
                Ok(sent) => left = &left[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = Instant::now();
                    let is_overdue = {
                        let state = self.lock();
                        state.over.is_some() && now >= state.until
                    };
                    if is_overdue {
                        self.give_up(Reason::Stuck);
                        return false;
                    }
                    let mut is_gone = false;
                    if now >= check {
                        check = now + PEER_CHECK_INTERVAL;
                        let told = sys::unacknowledged(self.link.stream());
                        // Whoever has taken bytes since the last check is there: a moment in which
                        // data is sent again is the life of a bad line.
                        is_gone = told.is_overdue && told == last_told;
                        last_told = told;
                    }
                    if is_gone || wait_writable(self.link.stream(), now + SLICE).is_err() {
                        self.give_up(Reason::Lost);
                        return false;
                    }
                }
                Err(_) => {
                    self.give_up(Reason::Lost);
                    return false;
                }
            }
        }
        true
    }

    /// Nothing more can be written.
    fn give_up(&self, reason: Reason) {
        let mut state = self.lock();
        state.over.get_or_insert(reason);
        state.last_words = None;
        state.partial = None;
        self.clear(&mut state);
        let _ = self.link.stream().shutdown(std::net::Shutdown::Both);
        self.signal(state);
    }

    /// All has been said: tells the peer so, and whoever waits in [`Outbox::wait_done`].
    fn hang_up(&self) {
        // The end of a stream has to be told; a WebSocket's client has read the close frame, and its
        // session closes when it has been answered.
        if self.link.coding().is_some() {
            let _ = self.link.stream().shutdown(std::net::Shutdown::Write);
        }
        let mut state = self.lock();
        state.done = true;
        self.signal(state);
    }

    /// Lets those look again who wait for room, for the outbox to be free, or for its end.
    fn signal(&self, state: MutexGuard<'_, State>) {
        let waiters = state.waiters;
        drop(state);
        if waiters > 0 {
            self.room.notify_all();
        }
    }

    /// Waits until the last words are written, or given up; at most until `deadline`.
    pub fn wait_done(&self, deadline: Instant) {
        let mut state = self.lock();
        while !state.done {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state.waiters += 1;
            let waited = self.room.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiters -= 1;
        }
    }

    fn wake(self: &Arc<Self>) {
        match self.drainer.get() {
            Some(Drainer::Parked(thread)) => thread.unpark(),
            Some(Drainer::Spawned) => {
                let outbox = Arc::clone(self);
                let name = format!("wsw {}", self.link.peer());
                let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES);
                if thread.spawn(move || outbox.drain()).is_err() {
                    self.give_up(Reason::Internal);
                }
            }
            // The maker still holds the outbox, and will look.
            None => {}
        }
    }

    /// What the broadcaster does now and then for a client that only listens: sends `beat` when
    /// nothing was written for `idle`, and ends the connection of a client that has vanished.
    pub fn tend(self: &Arc<Self>, beat: &'static [u8], idle: Duration, now: Instant) {
        if idle.is_zero() {
            return;
        }
        if self.has_vanished(idle, now) {
            return self.finish(Reason::Lost, None);
        }
        let due = {
            let state = self.lock();
            let asleep = state.waiting == 0 && state.over.is_none();
            asleep && now.saturating_duration_since(state.last_write) >= idle
        };
        if due {
            self.offer(&Chunk::Fixed(beat), now);
            // A heartbeat is acknowledged within a round trip: ask about that one soon.
            self.lock().next_check = now + Duration::from_secs(1);
        }
    }

    /// Whether sent data has gone unacknowledged for `patience`. The kernel is asked once in so
    /// long, and every time while data is overdue. (`TCP_USER_TIMEOUT` would find the same, and cut
    /// a reader that only pauses, too.)
    fn has_vanished(&self, patience: Duration, now: Instant) -> bool {
        let mut state = self.lock();
        if state.over.is_some() || (now < state.next_check && state.silent_since.is_none()) {
            return false;
        }
        state.next_check = now + patience;
        let told = sys::unacknowledged(self.link.stream());
        state.silent_since = match state.silent_since {
            _ if !told.is_overdue => None,
            Some((since, acknowledged)) if acknowledged == told.acknowledged => {
                Some((since, acknowledged))
            }
            _ => Some((now, told.acknowledged)),
        };
        state
            .silent_since
            .is_some_and(|(since, _)| now.saturating_duration_since(since) >= patience)
    }

    /// Gives a client that has been given up more time to hear why: its own thread is busy with it.
    pub fn postpone_cut(&self, until: Instant) {
        self.lock().until = until;
    }

    /// Cuts the connection of a client that has been given up and has had time enough to hear why.
    pub fn enforce_end(&self, now: Instant) {
        let overdue = {
            let state = self.lock();
            state.over.is_some() && now > state.until
        };
        if overdue {
            self.cut();
        }
    }

    /// Cuts the connection, whatever is still to be said: the drain time is over.
    pub fn cut(&self) {
        self.give_up(Reason::Shutdown);
        self.hang_up();
        self.unpark();
    }
}

impl Queue for Outbox {
    fn bytes(&self) -> usize {
        self.backlog().1
    }

    fn shed(self: Arc<Self>) -> bool {
        self.end(Reason::Crowded, Some(self.farewell))
    }
}

impl Drop for Outbox {
    /// Nothing waits any more, whatever the client's threads came to.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.backlog.remove(state.waiting_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::event::batch::Batch;
    use crate::event::{Draft, Event};
    use crate::http::coding::Coding;

    /// So many events, one behind the other, as one chunk.
    fn chunk(events: usize, size: usize) -> Chunk {
        let data = "x".repeat(size);
        let event = |n| {
            let id = format!("1-{n}").parse().unwrap();
            Arc::new(Event::new(id, Draft::new("t", None, &data).unwrap()))
        };
        let batch = Batch::new((0..events).map(event).collect::<Vec<_>>());
        Chunk::Sse(Arc::new(batch), Coding::Identity)
    }

    /// A batch larger than the queue is on its way: the queue behind it is there for what comes
    /// next, however little the peer has taken of it.
    #[test]
    fn what_is_being_written_counts_as_one_message() {
        for fanout in [Fanout::Direct, Fanout::Handoff] {
            let (link, mut peer) = Link::pair();
            let limits = Limits { events: 4, bytes: usize::MAX };
            let backlog = Backlog::new(usize::MAX, Vec::new);
            let outbox = Outbox::new(link, fanout, limits, &[], backlog);
            let large = chunk(10, 2 << 20);
            outbox.offer(&large, Instant::now());
            assert_eq!(outbox.backlog().0, 10, "nobody writes it yet");
            std::thread::scope(|scope| {
                scope.spawn(|| outbox.drain());
                peer.read_exact(&mut [0; 4096]).unwrap();
                assert_eq!(outbox.backlog(), (1, large.bytes().len()));
                for more in 1..=3 {
                    outbox.offer(&chunk(1, 1), Instant::now());
                    assert_eq!((outbox.over(), outbox.backlog().0), (None, 1 + more));
                }
                outbox.offer(&chunk(1, 1), Instant::now());
                assert_eq!(outbox.over(), Some(Reason::Slow));
                drop(peer);
            });
        }
    }
}
