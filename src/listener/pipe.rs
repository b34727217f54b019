//! The pipe: one connection inside this process, through which heads reach tiny_http.
//!
//! tiny_http listens on a Unix socket, or where no directory can be written, on a TCP port of
//! loopback. Exactly one connection is made to it; then nobody else can connect. What goes through
//! is made by [`encode`] from a checked head: one line, a ticket's number in a field `@` that no
//! client can send (`@` is no token character), and `Upgrade` where a WebSocket is asked for.
//! Nothing else: tiny_http would end the pipe for a `Connection: close`, and wait for a body, or
//! allocate one, where a length is given. All other fields stay with the ticket.
//!
//! A pipe and its `tiny_http::Server` are one thing, made and replaced whole. Heads behind a break
//! vanish without an error, so a pipe that does not do what is expected of it is broken for good.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use tiny_http::{Request, Server};

use crate::door::head::Head;

/// How long tiny_http may take for the first head, and the pipe to take one.
pub const PIPE_TIMEOUT: Duration = Duration::from_secs(2);

/// The field that holds a ticket's number.
const TICKET: &str = "@";

/// The longest path of a Unix socket that every system takes (`sun_path`).
const MAX_PATH_BYTES: usize = 100;

/// The writing end, and the server at the other one.
pub struct Pipe {
    writer: OwnedFd,
    server: Arc<Server>,
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

/// The ticket's number of a request that came through the pipe.
pub fn ticket(request: &Request) -> Option<u64> {
    let field = request.headers().iter().find(|field| field.field.equiv(TICKET))?;
    field.value.as_str().parse().ok()
}

/// Drops a request. A plain drop writes a response of 500 into the pipe, where nobody reads it.
pub fn discard(request: Request) {
    drop(request.into_writer());
}

impl Pipe {
    /// Makes a pipe, and returns it when a head has come through. `ticket` is the number of that
    /// head, a new one.
    ///
    /// # Errors
    /// Where descriptors or threads have run out, or the head does not come back in time.
    pub fn open(ticket: u64) -> io::Result<Pipe> {
        let directory = Directory::make();
        let (listener, path) = match &directory {
            Ok(directory) => {
                let path = directory.0.join("pipe");
                (UnixListener::bind(&path)?.into(), Some(path))
            }
            Err(error) => {
                log::debug!("no directory for a Unix socket: {error}");
                (tiny_http::Listener::from(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?), None)
            }
        };
        Pipe::connect(listener, path.as_deref(), ticket)
    }

    fn connect(
        listener: tiny_http::Listener,
        path: Option<&Path>,
        ticket: u64,
    ) -> io::Result<Pipe> {
        let (listening, address) = match &listener {
            tiny_http::Listener::Unix(listener) => (OwnedFd::from(listener.try_clone()?), None),
            tiny_http::Listener::Tcp(listener) => {
                (OwnedFd::from(listener.try_clone()?), Some(listener.local_addr()?))
            }
        };
        // Where its thread cannot be started, tiny_http panics.
        let server = catch_unwind(AssertUnwindSafe(|| Server::from_listener(listener, None)))
            .map_err(|_| io::Error::other("no thread for tiny_http"))?
            .map_err(io::Error::other);
        let pipe = server.and_then(|server| {
            let (writer, own_address) = match (path, address) {
                (Some(path), _) => (OwnedFd::from(UnixStream::connect(path)?), None),
                (None, Some(address)) => {
                    let stream = TcpStream::connect(address)?;
                    let own_address = stream.local_addr()?;
                    stream.set_nodelay(true)?;
                    (OwnedFd::from(stream), Some(own_address))
                }
                (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
            };
            Ok(Pipe { writer, server: Arc::new(server), own_address })
        });
        // What is written back is never read: tiny_http must not wait for that.
        let pipe = pipe.and_then(|pipe| {
            rustix::net::shutdown(&pipe.writer, rustix::net::Shutdown::Read)?;
            pipe.probe(ticket)?;
            Ok(pipe)
        });
        // Strangers get ECONNREFUSED from now on, tiny_http's accept thread and idle workers end, and
        // so does, when it is dropped, its attempt to connect to itself.
        let _ = rustix::net::shutdown(&listening, rustix::net::Shutdown::Both);
        pipe
    }

    /// Sends a head through, and waits until it comes out. A stranger who was faster than we may
    /// have sent others.
    fn probe(&self, ticket: u64) -> io::Result<()> {
        self.write(format!("GET / HTTP/1.1\r\n{TICKET}: {ticket}\r\n\r\n").as_bytes())?;
        let deadline = Instant::now() + PIPE_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.server.recv_timeout(left) {
                Ok(Some(request)) => {
                    let is_probe = self::ticket(&request) == Some(ticket)
                        && request.remote_addr().copied() == self.own_address;
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

    /// What the requests of this pipe have as their peer's address; `None` for a Unix socket.
    pub fn own_address(&self) -> Option<SocketAddr> {
        self.own_address
    }

    /// The end at which heads come out.
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server)
    }

    /// Writes without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where the pipe is full; anything else means that it is broken.
    pub fn write_now(&self, head: &[u8]) -> io::Result<()> {
        match rustix::net::send(&self.writer, head, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? {
            sent if sent == head.len() => Ok(()),
            sent => self.write(&head[sent..]),
        }
    }

    /// Writes, waiting for at most [`PIPE_TIMEOUT`].
    ///
    /// # Errors
    /// The pipe is broken.
    pub fn write(&self, mut head: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + PIPE_TIMEOUT;
        while !head.is_empty() {
            match rustix::net::send(&self.writer, head, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => head = &head[sent..],
                Err(rustix::io::Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let timeout = Timespec::try_from(left).ok();
                    poll(&mut [PollFd::new(&self.writer, PollFlags::OUT)], timeout.as_ref())?;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Ends the pipe: what is still in it is lost, and whoever waits for a head is woken.
    pub fn close(&self) {
        let _ = rustix::net::shutdown(&self.writer, rustix::net::Shutdown::Both);
        self.server.unblock();
    }
}

/// A new directory that only this user can enter; removed with what is in it when dropped.
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Directory> {
        let number = getrandom::u64().map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("threadcast-{number:016x}"));
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
