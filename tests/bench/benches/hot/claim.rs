//! `Sockets::claim`: what every request costs before anything is known of it, and what must not
//! grow with the clients that are there already.
//!
//! As in a server, each connection has tiny_http's two descriptors, of which a client that listens
//! keeps one, and that of its claim. The newest connection, the one that is looked for, has the
//! highest numbers.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use divan::Bencher;
use threadcast::listener::socket::{Claim, Sockets};

use crate::peers::Peers;
use crate::room;

/// A connection as tiny_http holds it until its request is claimed.
struct Accepted {
    writer: TcpStream,
    reader: TcpStream,
    peer: SocketAddr,
}

/// Connections, and one more. The fields go in this order: the peers' end first.
struct Crowd {
    peers: Peers,
    clients: Vec<(Claim, TcpStream)>,
    strangers: Vec<Accepted>,
    newest: Option<Accepted>,
    sockets: Arc<Sockets>,
}

impl Crowd {
    fn new() -> Crowd {
        let peers = Peers::start().expect("this program again");
        let sockets = Sockets::new(peers.port());
        Crowd { peers, clients: Vec::new(), strangers: Vec::new(), newest: None, sockets }
    }

    /// Lets connections come until this process has so many descriptors; `settle` is done with
    /// each but the newest.
    fn gather(mut self, descriptors: usize, settle: fn(&mut Crowd, Accepted)) -> Crowd {
        loop {
            let (writer, peer) = self.peers.next().expect("a connection");
            let reader = writer.try_clone().expect("a descriptor");
            // New numbers are the lowest free ones, so the highest tells how many there are.
            let enough = reader.as_raw_fd() + 1 >= descriptors as i32;
            let accepted = Accepted { writer, reader, peer };
            if enough {
                self.newest = Some(accepted);
                // What the reaper does now and then: it finds the highest open number.
                self.sockets.survey();
                return self;
            }
            settle(&mut self, accepted);
        }
    }

    fn measure(self, bencher: Bencher) {
        let peer = self.newest.as_ref().expect("somebody came").peer;
        // Given back between two samples, outside of the time that counts.
        bencher.bench_local(|| self.sockets.claim(peer).expect("it is there"));
    }
}

/// The others are SSE clients: their numbers are known, and skipped 64 at a time.
#[divan::bench(args = room::descriptors(), sample_size = 1, sample_count = 1000)]
fn among_clients(bencher: Bencher, descriptors: usize) {
    let settle = |crowd: &mut Crowd, accepted: Accepted| {
        let claim = crowd.sockets.claim(accepted.peer).expect("it is there");
        claim.stop_reading();
        // tiny_http's worker has gone home.
        drop(accepted.reader);
        crowd.clients.push((claim, accepted.writer));
    };
    Crowd::new().gather(descriptors, settle).measure(bencher);
}

/// The others have connected, and no request has come of them: each is looked at. The worst there
/// is, until the reaper's time is up.
#[divan::bench(args = room::descriptors(), sample_size = 1, sample_count = 100)]
fn among_strangers(bencher: Bencher, descriptors: usize) {
    let settle = |crowd: &mut Crowd, accepted| crowd.strangers.push(accepted);
    Crowd::new().gather(descriptors, settle).measure(bencher);
}
