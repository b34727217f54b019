//! An event's way through the hub, in a running server whose SSE clients all want it.
//!
//! The clients' ends are read between two samples, not by a thread that sleeps until something
//! comes: waking it would be part of each delivery, and is no work of a server whose clients are
//! elsewhere.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use socket2::SockRef;
use threadcast::config::Fanout;
use threadcast::event::Draft;
use threadcast::{Config, Server};

use crate::room;

/// The last bytes of a client's greeting.
const GREETED: &[u8] = b"established\"}\n\n\r\n";

/// After how many events the clients' ends are read: their buffers hold many more of 100 bytes.
const READ_EVERY: u64 = 16;

/// No fan-out takes this long, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with its clients.
struct Audience {
    server: Server,
    streams: Vec<TcpStream>,
    published: u64,
}

impl Audience {
    fn new(subscribers: usize, fanout: Fanout) -> Audience {
        let mut config = Config::default();
        config.set_listen("127.0.0.1:0").expect("an address");
        // Nothing that happens by itself.
        config.set_tick(Duration::ZERO).expect("no ticks");
        config.set_heartbeat(Duration::ZERO).expect("no comment lines");
        config.set_fanout(fanout).expect("either way");
        let server = Server::start(config).expect("a server");
        let streams = (0..subscribers).map(|_| subscribe(&server)).collect();
        Audience { server, streams, published: 0 }
    }

    fn publish(&mut self, draft: Draft) {
        self.published += 1;
        self.server.app().hub.publish(draft).expect("a hub that is not stopped");
    }

    /// Waits until every event has been written into the socket of every client.
    fn wait_delivered(&self) {
        let app = self.server.app();
        let handed_out = || {
            let mut timings = app.hub.timings();
            timings.all(|timing| timing.events.load(Ordering::Relaxed) == self.published)
        };
        let start = Instant::now();
        // What was handed to a client's thread is in the backlog until that has written it.
        while !handed_out() || app.backlog.bytes() > 0 {
            thread::yield_now();
            assert!(start.elapsed() < PATIENCE, "an event is stuck");
        }
    }

    /// What the time between two samples is for: everything has arrived, and there is room for
    /// more.
    fn rest(&mut self) -> Draft {
        self.wait_delivered();
        if self.published.is_multiple_of(READ_EVERY) {
            let mut buffer = [0; 16 * 1024];
            for stream in &mut self.streams {
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => panic!("the server has closed"),
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
        Draft::new("bench", None, &"x".repeat(100)).expect("a topic that is allowed")
    }

    /// Fails where the figures are of something else than deliveries to all.
    fn leave(mut self) {
        self.wait_delivered();
        let clients = self.server.app().clients.list();
        assert_eq!(clients.len(), self.streams.len(), "somebody has left");
        for client in clients {
            let sent = client.outbox().map(|outbox| outbox.sent());
            assert_eq!(sent, Some(self.published), "not everything was delivered");
        }
        self.streams.clear();
        assert!(self.server.shutdown(), "somebody has stayed");
    }
}

/// A connection that leaves nothing behind: closing it resets it, so that a thousand of them do
/// not sit in TIME_WAIT while the next thousand come.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A client that has been greeted: it gets every event from now on.
fn subscribe(server: &Server) -> TcpStream {
    let mut stream = connect(server.address()).expect("a connection");
    stream.write_all(b"GET /events?topic=bench HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(GREETED) {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).expect("a greeting");
        assert!(read > 0, "refused: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    stream.set_nonblocking(true).expect("an option");
    stream
}

/// How long a publisher waits: the event has its id, and has been handed to the broadcasters.
#[divan::bench(args = room::subscribers(), sample_size = 1, sample_count = 500)]
fn publish(bencher: Bencher, subscribers: usize) {
    let audience = RefCell::new(Audience::new(subscribers, Fanout::Direct));
    bencher
        .with_inputs(|| audience.borrow_mut().rest())
        .bench_local_values(|draft| audience.borrow_mut().publish(draft));
    audience.into_inner().leave();
}

fn deliver(bencher: Bencher, subscribers: usize, fanout: Fanout) {
    let audience = RefCell::new(Audience::new(subscribers, fanout));
    bencher
        .counter(ItemsCount::new(subscribers))
        .with_inputs(|| audience.borrow_mut().rest())
        .bench_local_values(|draft| {
            let mut audience = audience.borrow_mut();
            audience.publish(draft);
            audience.wait_delivered();
        });
    audience.into_inner().leave();
}

/// Until the event is in every client's socket, written by the broadcasters.
#[divan::bench(args = room::subscribers(), sample_size = 1, sample_count = 500)]
fn deliver_direct(bencher: Bencher, subscribers: usize) {
    deliver(bencher, subscribers, Fanout::Direct);
}

/// The same, written by each client's own thread.
#[divan::bench(args = room::subscribers(), sample_size = 1, sample_count = 500)]
fn deliver_handoff(bencher: Bencher, subscribers: usize) {
    deliver(bencher, subscribers, Fanout::Handoff);
}
