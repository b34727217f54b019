//! The other ends of connections, in a process of their own: here they would be descriptors that
//! no server has, and the claim is measured by how many there are.
//!
//! The process is this program again. It connects once for each byte that it reads, and ends at
//! the end of its input, so it never outlives the benchmark.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use socket2::SockRef;

use crate::room;

/// Names the address to connect to, and makes this program the other end.
const ADDRESS: &str = "THREADCAST_BENCH_PEERS_OF";

/// Nothing takes this long on one machine, however busy it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this process is one of peers.
pub fn is_peer() -> bool {
    std::env::var_os(ADDRESS).is_some()
}

/// The life of such a process.
pub fn run() {
    room::raise();
    let address = std::env::var(ADDRESS).expect("an address");
    let mut streams = Vec::new();
    for _ in io::stdin().lock().bytes().take_while(Result::is_ok) {
        streams.push(connect(address.parse().expect("an address")).expect("a connection"));
    }
}

/// A connection that leaves nothing behind: closing it resets it, so that a thousand of them do
/// not sit in TIME_WAIT while the next thousand come.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A process that connects to a listener of ours. Dropping it ends it and its connections.
pub struct Peers {
    listener: TcpListener,
    process: Child,
    input: Option<ChildStdin>,
}

impl Peers {
    /// Starts it.
    pub fn start() -> io::Result<Peers> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // `accept` fails rather than wait for ever for a process that has ended.
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
        let mut process = Command::new(std::env::current_exe()?)
            .env(ADDRESS, listener.local_addr()?.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let input = process.stdin.take();
        Ok(Peers { listener, process, input })
    }

    /// The port that they connect to.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |address| address.port())
    }

    /// Lets it connect once more, and accepts.
    pub fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let input = self.input.as_mut().expect("taken only by the drop");
        input.write_all(b".")?;
        self.listener.accept()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}
