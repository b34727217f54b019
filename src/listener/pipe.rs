//! The pipe: one connection inside this process, through which heads reach tiny_http.
//!
//! tiny_http listens on a Unix socket, or where none can be made, on a TCP port of loopback. One
//! connection is made to it, and then it stops listening, so nobody else can connect. Through the
//! connection go heads in the form that [`encode`] makes of a checked [`Head`]:
//!
//! - the request line;
//! - the number of a ticket, in a field `@` that no client can send (`@` is no token character);
//! - `Upgrade`, where the client asks for a WebSocket.
//!
//! All other fields stay with the ticket. tiny_http would end the pipe for a `Connection: close`, and for
//! a length it would wait for a body, or allocate one.
//!
//! A pipe and its `tiny_http::Server` are one thing, made and replaced whole. Heads behind a break
//! vanish without an error, so a pipe that once does something unexpected is not used any more.
//!
//! A thread with a head writes, and waits for at most [`PIPE_TIMEOUT`] where the pipe is full. tiny_http's
//! thread reads and parses. The listener thread receives, blocked in [`Pipe::server`]; a request and
//! [`Pipe::close`] wake it.

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

/// How long a head may take through a new pipe, and a full pipe may block a thread that writes.
pub const PIPE_TIMEOUT: Duration = Duration::from_secs(2);

/// The field that holds a ticket's number.
const TICKET: &str = "@";

/// Our end of the connection, and the server at the other end.
pub struct Pipe {
    writer: OwnedFd,
    /// Gives out a request for each head.
    pub server: Server,
    /// The address of our end, where the pipe is a TCP connection: requests from others are strangers'.
    own_address: Option<SocketAddr>,
}

/// A head as it goes through the pipe.
pub fn encode(head: &Head, ticket: u64) -> String {
    let upgrade = if head.is_upgrade { "Upgrade: websocket\r\n" } else { "" };
    // What tiny_http must not read is not even written: see the module's documentation.
    let line =
        format!("{} {} HTTP/1.1\r\n{TICKET}: {ticket}\r\n{upgrade}\r\n", head.method, head.target);
    debug_assert!(
        line.is_ascii() && line.matches("\r\n").count() == 3 + usize::from(head.is_upgrade)
    );
    line
}

/// Whether a request that came out of the pipe has been read as `head` was written.
pub fn is_same(request: &Request, head: &Head) -> bool {
    let asks_for_upgrade = request.headers().iter().any(|field| field.field.equiv("Upgrade"));
    request.method().as_str() == head.method
        && request.url() == head.target
        && asks_for_upgrade == head.is_upgrade
}

/// Drops a request without a response. A plain drop would write a 500 into the pipe, where nobody reads
/// it.
pub fn discard(request: Request) {
    drop(request.into_writer());
}

impl Pipe {
    /// Makes a pipe, and returns it when a first head has come through.
    ///
    /// # Errors
    /// Descriptors or threads have run out, or the head does not come out in time.
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
        // Nobody reads responses here. Without this, tiny_http would block once it has written many.
        shutdown(&writer, Shutdown::Read)?;
        // tiny_http panics where it cannot start its thread.
        let server = catch_unwind(AssertUnwindSafe(|| Server::from_listener(listener, None)))
            .map_err(|_| io::Error::other("no thread for tiny_http"))?
            .map_err(io::Error::other)?;
        let pipe = Pipe { writer, server, own_address };
        let probed = pipe.probe();
        // From here on strangers get ECONNREFUSED. tiny_http's accept thread and idle workers end. And when
        // its server is dropped, which connects to itself, that fails at once.
        let _ = shutdown(&listening, Shutdown::Both);
        probed.map(|()| pipe)
    }

    /// Sends a head through, and waits until it comes out. Requests of strangers, who may have connected
    /// before us, are dropped.
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

    /// The number of a request's ticket; `None` for a stranger's request.
    pub fn ticket(&self, request: &Request) -> Option<u64> {
        let field = request.headers().iter().find(|field| field.field.equiv(TICKET))?;
        let is_own = request.remote_addr().copied() == self.own_address;
        field.value.as_str().parse().ok().filter(|_| is_own)
    }

    /// Writes a head without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where the pipe is full. Any other one means that it is broken.
    pub fn write_now(&self, head: &[u8]) -> io::Result<()> {
        let sent = send_now(&self.writer, head)?;
        // The next thread must not write into the middle of this head. Almost always it is whole.
        self.write(&head[sent..])
    }

    /// Writes a head, and waits for room for at most [`PIPE_TIMEOUT`].
    ///
    /// # Errors
    /// The pipe is broken.
    pub fn write(&self, head: &[u8]) -> io::Result<()> {
        send_all(&self.writer, head, Instant::now() + PIPE_TIMEOUT)
    }

    /// Ends the pipe, and wakes the thread that receives. Heads that are still in it are lost.
    pub fn close(&self) {
        let _ = shutdown(&self.writer, Shutdown::Both);
        self.server.unblock();
    }
}

/// A listening Unix socket, and a connection to it. It was made in a directory that only this user can
/// enter, and that is removed already: nobody else can connect.
fn unix_pair() -> io::Result<(UnixListener, UnixStream)> {
    let number = getrandom::u64().map_err(io::Error::other)?;
    let directory = std::env::temp_dir().join(format!("threadcast-{number:016x}"));
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let path = directory.join("pipe");
    let pair = UnixListener::bind(&path).and_then(|one| Ok((one, UnixStream::connect(&path)?)));
    let _ = std::fs::remove_dir_all(&directory);
    pair
}
