//! The pipe: one connection inside this process, through which heads reach tiny_http.
//!
//! tiny_http listens on a Unix socket, or where none can be had, on a TCP port of loopback. Exactly
//! one connection is made to it; then nobody else can connect. What goes through is made by
//! [`encode`] from a checked head: one line, a ticket's number in a field `@` that no client can
//! send (`@` is no token character), and `Upgrade` where a WebSocket is asked for. Nothing else:
//! tiny_http would end the pipe for a `Connection: close`, and wait for a body, or allocate one,
//! where a length is given. All other fields stay with the ticket.
//!
//! A pipe and its `tiny_http::Server` are one thing, made and replaced whole. Heads behind a break
//! vanish without an error, so a pipe that does not do what is expected of it is broken for good.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};
use tiny_http::{Request, Server};

use crate::http::head::Head;
use crate::os::send::{send_all, send_now};

/// How long tiny_http may take for the first head, and the pipe to take one.
pub const PIPE_TIMEOUT: Duration = Duration::from_secs(2);

/// The field that holds a ticket's number.
const TICKET: &str = "@";

/// The writing end, and the server at the other one.
pub struct Pipe {
    writer: OwnedFd,
    /// The end at which heads come out.
    pub server: Server,
    /// Our end's address, where the pipe is a TCP connection: who else connects is a stranger.
    own_address: Option<SocketAddr>,
}

/// A head as it goes through the pipe.
pub fn encode(head: &Head, ticket: u64) -> String {
    let upgrade = if head.is_upgrade { "Upgrade: websocket\r\n" } else { "" };
    let line =
        format!("{} {} HTTP/1.1\r\n{TICKET}: {ticket}\r\n{upgrade}\r\n", head.method, head.target);
    debug_assert!(
        line.is_ascii() && line.matches("\r\n").count() == 3 + usize::from(head.is_upgrade)
    );
    line
}

/// Whether a request that came out of the pipe is this head.
pub fn is_same(request: &Request, head: &Head) -> bool {
    let asks_for_upgrade = request.headers().iter().any(|field| field.field.equiv("Upgrade"));
    request.method().as_str() == head.method
        && request.url() == head.target
        && asks_for_upgrade == head.is_upgrade
}

/// Drops a request. A plain drop writes a response of 500 into the pipe, where nobody reads it.
pub fn discard(request: Request) {
    drop(request.into_writer());
}

impl Pipe {
    /// Makes a pipe, and returns it when a head has come through. Fails where descriptors or threads
    /// have run out, or the head does not come back in time.
    pub fn open() -> io::Result<Pipe> {
        let listening: OwnedFd;
        let (listener, writer, own_address) = match unix_pair() {
            Ok((listener, writer)) => {
                listening = listener.try_clone()?.into();
                (tiny_http::Listener::Unix(listener), writer.into(), None)
            }
            Err(error) => {
                log::debug!("no Unix socket for the pipe: {error}");
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let writer = TcpStream::connect(listener.local_addr()?)?;
                writer.set_nodelay(true)?;
                let own_address = writer.local_addr()?;
                listening = listener.try_clone()?.into();
                (tiny_http::Listener::Tcp(listener), writer.into(), Some(own_address))
            }
        };
        // What is written back is never read: tiny_http must not wait for that.
        shutdown(&writer, Shutdown::Read)?;
        // Where its thread cannot be started, tiny_http panics.
        let server = catch_unwind(AssertUnwindSafe(|| Server::from_listener(listener, None)))
            .map_err(|_| io::Error::other("no thread for tiny_http"))?
            .map_err(io::Error::other)?;
        let pipe = Pipe { writer, server, own_address };
        let probed = pipe.probe();
        // Strangers get ECONNREFUSED from now on, tiny_http's accept thread and idle workers end, and
        // so does, when it is dropped, its attempt to connect to itself.
        let _ = shutdown(&listening, Shutdown::Both);
        probed.map(|()| pipe)
    }

    /// Sends a head through, and waits until it comes out. A stranger who was faster than we may
    /// have sent others.
    fn probe(&self) -> io::Result<()> {
        let ticket = getrandom::u64().map_err(io::Error::other)?;
        self.write(format!("GET / HTTP/1.1\r\n{TICKET}: {ticket}\r\n\r\n").as_bytes())?;
        let deadline = Instant::now() + PIPE_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.server.recv_timeout(left) {
                Ok(Some(request)) => {
                    let is_probe = self.ticket(&request) == Some(ticket);
                    discard(request);
                    if is_probe {
                        return Ok(());
                    }
                }
                _ if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
                _ => {}
            }
        }
    }

    /// The ticket's number of a request that came out; `None` where a stranger has sent it.
    pub fn ticket(&self, request: &Request) -> Option<u64> {
        let field = request.headers().iter().find(|field| field.field.equiv(TICKET))?;
        let is_own = request.remote_addr().copied() == self.own_address;
        field.value.as_str().parse().ok().filter(|_| is_own)
    }

    /// Writes without waiting. Fails with [`io::ErrorKind::WouldBlock`] where the pipe is full; any
    /// other error means that it is broken.
    pub fn write_now(&self, head: &[u8]) -> io::Result<()> {
        let sent = send_now(&self.writer, head)?;
        // Whoever writes next must not write into the middle of this head.
        self.write(&head[sent..])
    }

    /// Writes, waiting for at most [`PIPE_TIMEOUT`]. An error means that the pipe is broken.
    pub fn write(&self, head: &[u8]) -> io::Result<()> {
        send_all(&self.writer, head, Instant::now() + PIPE_TIMEOUT)
    }

    /// Ends the pipe: what is still in it is lost, and whoever waits for a head is woken.
    pub fn close(&self) {
        let _ = shutdown(&self.writer, Shutdown::Both);
        self.server.unblock();
    }
}

/// A Unix socket that listens, and a connection to it. Its directory, which only this user can
/// enter, is gone already: nobody else can connect.
fn unix_pair() -> io::Result<(UnixListener, UnixStream)> {
    let number = getrandom::u64().map_err(io::Error::other)?;
    let directory = std::env::temp_dir().join(format!("threadcast-{number:016x}"));
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let path = directory.join("pipe");
    let pair = UnixListener::bind(&path).and_then(|one| Ok((one, UnixStream::connect(&path)?)));
    let _ = std::fs::remove_dir_all(&directory);
    pair
}
