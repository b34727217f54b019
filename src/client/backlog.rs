//! The backlog: the bytes that wait for all clients together, and their cap.
//!
//! Each client's queue is bounded, but many slow clients together could still fill the memory. So
//! every outbox counts what it queues here as well; a client that keeps up never touches this number.
//! The thread whose message takes it above the cap disconnects the slowest clients until the rest fits.
//! An event that waits for ten clients counts ten times, though its bytes are in memory once: the number is
//! what the clients still have to take.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Which part of the cap is free after clients were disconnected. To find the slowest ones takes a walk
/// through all clients, so it must not be due again at the next event. (Where fewer clients than this are
/// behind, the first of them is always enough.)
const FREED_PART: usize = 16;

/// A client for which something waits.
pub trait Queued {
    /// How many bytes.
    fn bytes(&self) -> usize;

    /// Disconnects the client because too much waits for all together. Returns whether its connection
    /// was not over before.
    fn disconnect(self: Arc<Self>) -> bool;
}

/// Tells the queues of all clients.
type Queues = dyn Fn() -> Vec<Arc<dyn Queued>> + Send + Sync;

/// See the module's documentation.
pub struct Backlog {
    cap: usize,
    bytes: AtomicUsize,
    disconnected: AtomicU64,
    is_relieving: AtomicBool,
    queues: Box<Queues>,
}

impl Backlog {
    /// At most `cap` bytes may wait in all `queues` together.
    pub fn new(
        cap: usize,
        queues: impl Fn() -> Vec<Arc<dyn Queued>> + Send + Sync + 'static,
    ) -> Arc<Backlog> {
        Arc::new(Backlog {
            cap,
            bytes: AtomicUsize::new(0),
            disconnected: AtomicU64::new(0),
            is_relieving: AtomicBool::new(false),
            queues: Box::new(queues),
        })
    }

    /// The bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// How many clients have been disconnected because too much waited.
    pub fn disconnected(&self) -> u64 {
        self.disconnected.load(Ordering::Relaxed)
    }

    /// An outbox has queued this.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// An outbox has sent or dropped this.
    pub(crate) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Disconnects the slowest clients while too much waits. Called after [`Backlog::add`], with no outbox
    /// locked, since it locks others (one at a time). It does not wait: where another thread is at it
    /// already, that one checks again when it is done.
    pub(crate) fn relieve(&self) {
        while self.bytes() > self.cap {
            if self.is_relieving.swap(true, Ordering::SeqCst) {
                return;
            }
            let count = self.disconnect_slowest();
            self.disconnected.fetch_add(count, Ordering::Relaxed);
            self.is_relieving.store(false, Ordering::SeqCst);
            if count == 0 {
                // What waits is for clients that are leaving already.
                return;
            }
        }
    }

    /// Returns how many were disconnected.
    fn disconnect_slowest(&self) -> u64 {
        let enough = self.cap - self.cap / FREED_PART;
        let queues = (self.queues)().into_iter().map(|queue| (queue.bytes(), queue));
        let mut behind: Vec<_> = queues.filter(|(bytes, _)| *bytes > 0).collect();
        behind.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        let mut count = 0;
        for (_, queue) in behind {
            if self.bytes() <= enough {
                break;
            }
            count += u64::from(queue.disconnect());
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::client::outbox::{Limits, Outbox};
    use crate::client::reason::Reason;
    use crate::client::registry::{ClientGuard, Clients, Transport};
    use crate::config::Fanout;
    use crate::event::payload::Payload;
    use crate::listener::connection::Link;

    const LIMITS: Limits = Limits { events: 1000, bytes: usize::MAX };

    /// A client with its outbox, and its peer's end of the connection.
    struct Member {
        outbox: Arc<Outbox>,
        guard: ClientGuard,
        peer: TcpStream,
    }

    fn member(clients: &Arc<Clients>, backlog: &Arc<Backlog>, fanout: Fanout) -> Member {
        let (link, peer) = Link::pair();
        let guard = clients.register(Transport::WebSocket, link.peer()).unwrap();
        let outbox = Outbox::new(link, fanout, LIMITS, &[], Arc::clone(backlog));
        guard.set_outbox(&outbox);
        Member { outbox, guard, peer }
    }

    fn payload(length: usize) -> Payload {
        Payload::own(vec![b'x'; length])
    }

    fn start(cap: usize) -> (Arc<Clients>, Arc<Backlog>) {
        let clients = Clients::new(100, None);
        let queues = Arc::clone(&clients);
        (clients, Backlog::new(cap, move || queues.queues()))
    }

    fn wait_for_nothing(backlog: &Backlog, how: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while backlog.bytes() > 0 {
            assert!(Instant::now() < deadline, "{how}: {} bytes are left", backlog.bytes());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn read_all(mut peer: TcpStream) -> std::thread::JoinHandle<usize> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = peer.read_to_end(&mut bytes);
            bytes.len()
        })
    }

    /// More than any socket's buffers take.
    const LARGE: usize = 32 << 20;

    #[test]
    fn nothing_is_left_however_a_client_leaves() {
        let (clients, backlog) = start(usize::MAX);
        type End = fn(Member, &Backlog);
        let ends: [(&str, End); 6] = [
            ("written", |member, backlog| {
                let read = read_all(member.peer);
                member.outbox.release();
                wait_for_nothing(backlog, "written");
                member.outbox.abort();
                assert_eq!(read.join().unwrap(), LARGE + 200);
            }),
            ("goodbye", |member, _| {
                let read = read_all(member.peer);
                member.outbox.close(Reason::Closed, Some(b"bye"));
                member.outbox.release();
                member.outbox.wait_closed(Instant::now() + Duration::from_secs(20));
                member.outbox.abort();
                assert_eq!(read.join().unwrap(), LARGE + 203);
            }),
            ("too slow", |member, _| {
                member.outbox.close(Reason::Slow, Some(b"bye"));
            }),
            ("cut", |member, _| member.outbox.abort()),
            ("lost", |member, backlog| {
                drop(member.peer);
                member.outbox.release();
                wait_for_nothing(backlog, "lost");
            }),
            ("dropped by a panic", |member, _| drop(member)),
        ];
        for fanout in [Fanout::Direct, Fanout::Handoff] {
            for (how, end) in ends {
                let member = member(&clients, &backlog, fanout);
                let now = Instant::now();
                for length in [100, LARGE, 100] {
                    member.outbox.offer(&payload(length), now);
                }
                assert_eq!(backlog.bytes(), LARGE + 200, "{how}");
                end(member, &backlog);
                assert_eq!(backlog.bytes(), 0, "{how}");
            }
        }
        assert!(clients.list().is_empty());
        assert_eq!(backlog.disconnected(), 0);
    }

    #[test]
    fn only_what_waits_counts() {
        let (clients, backlog) = start(usize::MAX);
        let member = member(&clients, &backlog, Fanout::Direct);
        member.outbox.release();
        member.outbox.offer(&payload(1000), Instant::now());
        assert_eq!(backlog.bytes(), 0, "the socket took it");
        member.outbox.offer(&payload(LARGE), Instant::now());
        assert_eq!(backlog.bytes(), LARGE, "a message counts until it is written whole");
        member.outbox.offer(&payload(10), Instant::now());
        assert_eq!(backlog.bytes(), LARGE + 10);
        let read = read_all(member.peer);
        wait_for_nothing(&backlog, "read");
        member.outbox.abort();
        assert_eq!(read.join().unwrap(), 1000 + LARGE + 10);
    }

    #[test]
    fn the_most_behind_go_until_the_rest_fits() {
        let (clients, backlog) = start(1000);
        let members: Vec<_> = (0..4).map(|_| member(&clients, &backlog, Fanout::Handoff)).collect();
        let over = || -> Vec<bool> {
            members
                .iter()
                .map(|member| member.outbox.close_reason() == Some(Reason::Crowded))
                .collect()
        };
        for (member, length) in members.iter().zip([100, 500, 300, 100]) {
            member.outbox.offer(&payload(length), Instant::now());
        }
        assert_eq!(
            (backlog.bytes(), backlog.disconnected()),
            (1000, 0),
            "the cap itself is allowed"
        );
        members[0].outbox.offer(&payload(1), Instant::now());
        assert_eq!((backlog.bytes(), over()), (501, vec![false, true, false, false]));
        members[1].outbox.offer(&payload(5000), Instant::now());
        assert_eq!(backlog.bytes(), 501, "a client that was disconnected gets nothing more");
        members[3].outbox.offer(&payload(2000), Instant::now());
        assert_eq!((backlog.bytes(), over()), (401, vec![false, true, false, true]));
        members[0].outbox.offer(&payload(590), Instant::now());
        assert_eq!((backlog.bytes(), over()), (991, vec![false, true, false, true]));
        assert_eq!(backlog.disconnected(), 2);
        // A message of the client that is behind least.
        members[2].outbox.offer(&payload(10), Instant::now());
        assert_eq!((backlog.bytes(), over()), (310, vec![true, true, false, true]));
        assert_eq!(backlog.disconnected(), 3);
        for member in members {
            member.outbox.abort();
            drop(member.guard);
        }
        assert_eq!(backlog.bytes(), 0);
    }

    #[test]
    fn of_many_small_ones_several_go_at_once() {
        let (clients, backlog) = start(1000);
        let members: Vec<_> =
            (0..20).map(|_| member(&clients, &backlog, Fanout::Handoff)).collect();
        for member in &members {
            member.outbox.offer(&payload(50), Instant::now());
        }
        members[7].outbox.offer(&payload(1), Instant::now());
        assert_eq!((backlog.bytes(), backlog.disconnected()), (900, 2));
        assert_eq!(members[7].outbox.close_reason(), Some(Reason::Crowded));
    }

    /// Many threads queue at once, and all in all far more than the cap: it is kept, nobody waits
    /// for ever, and the number is right in the end.
    #[test]
    fn the_cap_holds_whoever_queues() {
        let (cap, each) = (100_000, 1000);
        let (clients, backlog) = start(cap);
        let members: Vec<_> =
            (0..40).map(|_| member(&clients, &backlog, Fanout::Handoff)).collect();
        std::thread::scope(|scope| {
            for part in members.chunks(10) {
                scope.spawn(move || {
                    let now = Instant::now();
                    for _ in 0..50 {
                        for member in part {
                            member.outbox.offer(&payload(each), now);
                        }
                    }
                });
            }
        });
        assert!(backlog.bytes() <= cap, "{}", backlog.bytes());
        let sum: usize = members.iter().map(|member| member.outbox.queued().1).sum();
        assert_eq!(backlog.bytes(), sum);
        let over = members.iter().filter(|member| member.outbox.close_reason().is_some()).count();
        assert_eq!(backlog.disconnected(), over as u64);
        assert!((1..40).contains(&over), "{over}");
        drop(members);
        assert_eq!(backlog.bytes(), 0);
    }
}
