//! The table of phases, driven by random interleavings of what happens to an outbox.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use socket2::SockRef;

use super::writer::Step;
use super::*;
use crate::event::encoding::Encoding;
use crate::event::{Draft, Event};
use crate::http::coding::Coding;

const LIMITS: Limits = Limits { events: 4, bytes: 300_000 };
const GOODBYE: &[u8] = b"goodbye";
const TOO_SLOW: &[u8] = b"too slow";

/// What happens. A number is that of bytes.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Offer(usize),
    OfferIfIdle(usize),
    Take,
    Write(usize),
    Release,
    /// The writer takes a step, or goes on with a piece of which the socket has not taken everything.
    Step,
    /// The peer reads so much at most: the socket is writable again.
    Read(usize),
    Goodbye,
    Misbehave,
    Lose,
    Abort,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    // The socket's buffers take about two of the large ones.
    let size = || prop_oneof![3 => 8..2_000_usize, 2 => 2_000..100_000_usize];
    prop_oneof![
        8 => size().prop_map(Offer),
        1 => size().prop_map(OfferIfIdle),
        2 => Just(Take),
        2 => size().prop_map(Write),
        3 => Just(Release),
        8 => Just(Step),
        5 => size().prop_map(Read),
        1 => prop_oneof![4 => Just(Goodbye), 2 => Just(Misbehave), 1 => Just(Lose), 1 => Just(Abort)],
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Idle,
    Draining,
    Held,
    Closing,
    Closed,
}

/// The table in the module's documentation: which phase may follow.
fn may_follow(happening: Happening, before: Name) -> &'static [Name] {
    use Happening::*;
    use Name::*;
    match (happening, before) {
        (Abort, _) => &[Closed],
        (_, Closed) => &[Closed],
        (Read(_), same) | (OfferIfIdle(_), same @ (Draining | Held | Closing)) => only(same),
        (Offer(_) | OfferIfIdle(_), Idle) => &[Idle, Draining, Closing],
        (Offer(_), Draining) => &[Draining, Closing],
        (Offer(_), same @ (Held | Closing)) => only(same),
        (Take, Idle) => &[Held],
        (Take, same) => only(same),
        (Write(_), same) => only(same),
        (Release, Held) => &[Idle, Draining, Closing],
        (Release, same) => only(same),
        (Step, same @ (Idle | Held)) => only(same),
        (Step, Draining) => &[Draining, Idle, Held, Closing],
        (Step, Closing) => &[Closing, Closed],
        (Goodbye | Misbehave | Lose, Held) => &[Held],
        (Goodbye | Misbehave | Lose, _) => &[Closing],
    }
}

fn only(name: Name) -> &'static [Name] {
    match name {
        Name::Idle => &[Name::Idle],
        Name::Draining => &[Name::Draining],
        Name::Held => &[Name::Held],
        Name::Closing => &[Name::Closing],
        Name::Closed => &[Name::Closed],
    }
}

/// An outbox whose writer is the test, and what its peer is to get.
struct Model {
    outbox: Arc<Outbox>,
    backlog: Arc<Backlog>,
    peer: TcpStream,
    /// What has been begun, one behind the other, and what waits.
    written: Vec<u8>,
    waiting: VecDeque<Vec<u8>>,
    /// The piece that the writer has in hand.
    piece: Option<Piece>,
    read: Vec<u8>,
    count: u32,
    /// The connection was cut: the peer gets a beginning of what was written.
    is_cut: bool,
}

impl Model {
    fn new(fanout: Fanout) -> Model {
        let (link, peer) = Link::pair();
        SockRef::from(link.stream()).set_send_buffer_size(16 * 1024).unwrap();
        peer.set_nonblocking(true).unwrap();
        let backlog = Backlog::new(usize::MAX, Vec::new);
        let outbox = Outbox::new(link, fanout, LIMITS, TOO_SLOW, Arc::clone(&backlog));
        outbox.set_writer(std::thread::current());
        outbox.release();
        Model {
            outbox,
            backlog,
            peer,
            written: Vec::new(),
            waiting: VecDeque::new(),
            piece: None,
            read: Vec::new(),
            count: 0,
            is_cut: false,
        }
    }

    fn name(&self) -> Name {
        match self.outbox.lock().phase {
            Phase::Idle => Name::Idle,
            Phase::Draining { .. } => Name::Draining,
            Phase::Held { .. } => Name::Held,
            Phase::Closing(_) => Name::Closing,
            Phase::Closed(_) => Name::Closed,
        }
    }

    /// Bytes that differ from those of all other messages.
    fn message(&mut self, size: usize) -> Vec<u8> {
        self.count += 1;
        let mut bytes = self.count.to_be_bytes().to_vec();
        bytes.resize(size.max(4), self.count as u8);
        bytes
    }

    fn apply(&mut self, happening: Happening) {
        let now = Instant::now();
        let is_open = self.outbox.close_reason().is_none();
        match happening {
            Happening::Offer(size) => {
                let message = self.message(size);
                let payload = Payload::own(message.clone());
                let (messages, bytes) = self.outbox.queued();
                let bytes_fit = messages == 0 || bytes + message.len() <= LIMITS.bytes;
                let messages_fit = messages == 0 || messages < LIMITS.events;
                // While nobody sends, the socket only gets emptier: what holds before the offer or after it
                // held at that moment.
                let was_writable = is_writable(self.outbox.link().stream());
                self.outbox.offer(&payload, now);
                let is_taken = self.outbox.close_reason().is_none();
                match (is_open, is_taken) {
                    (true, true) => {
                        let is_writable = || is_writable(self.outbox.link().stream());
                        assert!(bytes_fit && (messages_fit || is_writable()), "too much is taken");
                        self.accept(message);
                    }
                    (true, false) => {
                        assert!(!bytes_fit || !(messages_fit || was_writable), "there was room");
                        self.drop_waiting(TOO_SLOW);
                    }
                    (false, _) => {}
                }
            }
            Happening::OfferIfIdle(size) => {
                let message = self.message(size);
                let is_idle = self.name() == Name::Idle;
                let is_taken = self.outbox.offer_if_idle(&Payload::own(message.clone()), now);
                assert_eq!(is_taken, is_idle);
                if is_taken {
                    self.accept(message);
                }
            }
            // Without a wait: a thread that waits has said so, and gets the outbox from the writer.
            Happening::Take => {
                let mut state = self.outbox.lock();
                if let Phase::Draining { wanted } = &mut state.phase {
                    *wanted = true;
                } else {
                    let is_idle = matches!(state.phase, Phase::Idle);
                    let is_held = matches!(state.phase, Phase::Held { .. });
                    drop(state);
                    assert_eq!(self.outbox.take(), is_idle || is_held);
                }
            }
            Happening::Write(size) if self.name() == Name::Held => {
                let message = self.message(size);
                self.write(&message);
                self.written.extend(message);
            }
            Happening::Release if self.name() == Name::Held => self.outbox.release(),
            Happening::Write(_) | Happening::Release => {}
            Happening::Step => self.step(),
            Happening::Read(size) => {
                self.receive(size);
            }
            Happening::Goodbye => {
                let is_first = self.outbox.close(Reason::Closed, Some(GOODBYE));
                assert_eq!(is_first, is_open);
                if is_first {
                    self.waiting.push_back(GOODBYE.to_vec());
                }
            }
            Happening::Misbehave => {
                if self.outbox.close(Reason::Protocol, Some(GOODBYE)) {
                    self.drop_waiting(GOODBYE);
                }
            }
            Happening::Lose => {
                if is_open {
                    self.outbox.close(Reason::Lost, None);
                }
                self.outbox.lose(&mut self.outbox.lock(), Reason::Lost);
                self.cut();
            }
            Happening::Abort => {
                self.outbox.abort();
                self.cut();
            }
        }
    }

    /// The outbox has taken a message: it is written, or waits.
    fn accept(&mut self, message: Vec<u8>) {
        match self.name() {
            Name::Idle => self.written.extend(message),
            _ => self.waiting.push_back(message),
        }
    }

    /// What waits is not written any more, but for what has been begun.
    fn drop_waiting(&mut self, close_message: &[u8]) {
        // The outbox knows which one the peer is in the middle of.
        self.waiting.truncate(self.outbox.lock().queue.len());
        self.waiting.push_back(close_message.to_vec());
    }

    fn cut(&mut self) {
        self.is_cut = true;
    }

    /// What [`Outbox::write_piece`] does, without waiting.
    fn step(&mut self) {
        if self.piece.is_none() {
            let step = self.outbox.next_step(&mut self.outbox.lock());
            if let Step::Write(piece) = step {
                self.written.extend(self.waiting.pop_front().unwrap_or_default());
                self.piece = Some(piece);
            }
        }
        let Some(mut piece) = self.piece.take() else { return };
        match send_now(self.outbox.link().stream(), piece.rest()) {
            Ok(sent) => piece.sent += sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => piece.sent = piece.payload().bytes().len(),
        }
        if piece.rest().is_empty() {
            self.outbox.lock().queue.count_written(&piece);
        } else {
            self.piece = Some(piece);
        }
    }

    /// Writes what the holder has to say, while the peer reads.
    fn write(&mut self, message: &[u8]) {
        let is_written = AtomicBool::new(false);
        let (outbox, payload) = (Arc::clone(&self.outbox), Payload::own(message));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                outbox.write_held(&payload);
                is_written.store(true, Ordering::SeqCst);
            });
            while !is_written.load(Ordering::SeqCst) {
                self.receive(1_000_000);
            }
        });
    }

    /// Returns whether the stream has ended.
    fn receive(&mut self, size: usize) -> bool {
        let mut bytes = vec![0; size];
        match self.peer.read(&mut bytes) {
            Ok(read) => {
                self.read.extend_from_slice(&bytes[..read]);
                read == 0
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    fn check(&self) {
        let (messages, bytes) = self.outbox.queued();
        assert_eq!(self.backlog.bytes(), bytes);
        assert_eq!(messages == 0, bytes == 0);
        // A message that does not fit into an empty queue waits alone.
        assert!(bytes <= LIMITS.bytes.max(100_000));
        let waiting = self.waiting.iter().flatten();
        let mut expected = self.written.iter().chain(waiting);
        assert!(self.read.iter().all(|byte| expected.next() == Some(byte)), "in order, whole");
    }

    /// All ends well: whoever holds the outbox releases it, the writer writes, the peer reads.
    fn finish(mut self) {
        if self.name() == Name::Held {
            self.outbox.release();
        }
        self.apply(Happening::Goodbye);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.receive(1_000_000) {
            self.step();
            self.check();
            assert!(Instant::now() < deadline, "{:?}", self.name());
        }
        while self.name() != Name::Closed {
            self.step();
        }
        assert_eq!(self.backlog.bytes(), 0);
        if !self.is_cut {
            assert!(self.waiting.is_empty());
            assert_eq!(self.read.len(), self.written.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn whatever_happens_the_table_holds(
        is_direct in any::<bool>(),
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let mut model = Model::new(if is_direct { Fanout::Direct } else { Fanout::Handoff });
        for happening in happenings {
            let before = model.name();
            model.apply(happening);
            let after = model.name();
            prop_assert!(
                may_follow(happening, before).contains(&after),
                "{before:?}, {happening:?} -> {after:?}"
            );
            model.check();
        }
        model.finish();
    }
}

/// Real threads at once: two that offer, one that takes turns, a writer that sleeps or is started, and a
/// peer that reads in fits and starts. What was handed over arrives whole, and each thread's in order.
#[test]
fn threads_that_write_at_once_do_not_mix_their_bytes() {
    const EACH: u32 = 300;
    const SIZE: usize = 3_000;
    let message = |thread: u32, number: u32| {
        let mut bytes = [thread.to_be_bytes(), number.to_be_bytes()].concat();
        bytes.resize(SIZE, thread as u8);
        bytes
    };
    for (fanout, has_writer) in
        [(Fanout::Direct, true), (Fanout::Direct, false), (Fanout::Handoff, true)]
    {
        let (link, mut peer) = Link::pair();
        SockRef::from(link.stream()).set_send_buffer_size(16 * 1024).unwrap();
        let limits = Limits { events: usize::MAX, bytes: usize::MAX };
        let backlog = Backlog::new(usize::MAX, Vec::new);
        let outbox = Outbox::new(link, fanout, limits, &[], Arc::clone(&backlog));
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let (mut read, mut part) = (Vec::new(), [0; 20_000]);
                while let Ok(length @ 1..) = peer.read(&mut part) {
                    read.extend_from_slice(&part[..length]);
                    if read.len() % 7 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                read
            });
            if has_writer {
                let outbox = &outbox;
                let writer = scope.spawn(move || {
                    while let Some(piece) = outbox.next_piece() {
                        outbox.write_piece(&piece);
                    }
                });
                outbox.set_writer(writer.thread().clone());
            }
            outbox.release();
            let outbox = &outbox;
            let mut threads = Vec::new();
            for thread in 1..=2 {
                threads.push(scope.spawn(move || {
                    for number in 0..EACH {
                        outbox.offer(&Payload::own(message(thread, number)), Instant::now());
                    }
                }));
            }
            threads.push(scope.spawn(move || {
                (0..EACH).for_each(|number| outbox.write(&message(3, number)));
            }));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            outbox.close(Reason::Closed, None);
            outbox.wait_closed(Instant::now() + Duration::from_secs(60));
            outbox.abort();
            let read = reader.join().unwrap();
            assert_eq!(read.len(), 3 * EACH as usize * SIZE, "{fanout:?} {has_writer}");
            let mut next = [0; 4];
            for bytes in read.chunks(SIZE) {
                let thread = u32::from_be_bytes(bytes[..4].try_into().unwrap());
                assert_eq!(bytes, message(thread, next[thread as usize]));
                next[thread as usize] += 1;
            }
        });
        assert_eq!(backlog.bytes(), 0);
    }
}

/// A batch larger than the queue is on its way: the queue behind it is there for what comes
/// next, however little the peer has taken of it.
#[test]
fn what_is_being_written_counts_as_one_message() {
    let payload = |events: usize, size: usize| {
        let data = "x".repeat(size);
        let event = |n| {
            let id = format!("1-{n}").parse().unwrap();
            Arc::new(Event::new(id, Draft::new("t", None, &data).unwrap()))
        };
        let events: Vec<_> = (0..events).map(event).collect();
        Payload::of(&events, Encoding::Sse(Coding::Identity))
    };
    for fanout in [Fanout::Direct, Fanout::Handoff] {
        let (link, mut peer) = Link::pair();
        let limits = Limits { events: 4, bytes: usize::MAX };
        let backlog = Backlog::new(usize::MAX, Vec::new);
        let outbox = Outbox::new(link, fanout, limits, &[], backlog);
        let large = payload(10, 2 << 20);
        outbox.offer(&large, Instant::now());
        assert_eq!(outbox.queued().0, 10, "nobody writes it yet");
        outbox.release();
        peer.read_exact(&mut [0; 4096]).unwrap();
        assert_eq!(outbox.queued(), (1, large.bytes().len()));
        for more in 1..=3 {
            outbox.offer(&payload(1, 1), Instant::now());
            assert_eq!((outbox.close_reason(), outbox.queued().0), (None, 1 + more));
        }
        outbox.offer(&payload(1, 1), Instant::now());
        assert_eq!(outbox.close_reason(), Some(Reason::Slow));
    }
}

/// While nobody writes what waits, its count says nothing about the peer: only whether its socket is full does.
#[test]
fn a_client_is_slow_when_its_socket_takes_no_more() {
    let message = Payload::own(vec![b'x'; 1_000]);
    let by_bytes = LIMITS.bytes / 1_000;
    for (fanout, is_full, room) in [
        (Fanout::Direct, false, by_bytes),
        (Fanout::Handoff, false, by_bytes),
        (Fanout::Direct, true, LIMITS.events),
        (Fanout::Handoff, true, LIMITS.events),
    ] {
        let (link, _peer) = Link::pair();
        while is_full && send_now(link.stream(), &[b'x'; 100_000]).is_ok() {}
        let backlog = Backlog::new(usize::MAX, Vec::new);
        // Its maker holds it.
        let outbox = Outbox::new(link, fanout, LIMITS, TOO_SLOW, backlog);
        for count in 1..=room {
            outbox.offer(&message, Instant::now());
            assert_eq!((outbox.close_reason(), outbox.queued().0), (None, count), "{is_full}");
        }
        outbox.offer(&message, Instant::now());
        assert_eq!(outbox.close_reason(), Some(Reason::Slow), "{is_full}");
    }
}
