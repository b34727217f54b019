//! Writing to a socket without waiting, or with one deadline for the whole of what is written; and
//! reading what a peer still sends before its socket is closed.
//!
//! Any thread that owns or shares a socket may call this. One that has to wait blocks in `poll`. It
//! wakes when the peer reads (or sends), when the deadline passes, or when another thread shuts the
//! socket down. `SO_SNDTIMEO` would not do: it starts anew with every `send`, so a peer that takes
//! one byte at a time could hold a thread for ever.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;

/// Sends as much as the socket's buffer takes now: at least one byte, at most all.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] where nothing fits; anything else means that the connection is
/// over.
pub fn send_now(stream: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Sends all of `bytes`, waiting for the peer until `deadline`.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at the deadline; anything else as for [`send_now`].
pub fn send_all(stream: &impl AsFd, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        match send_now(stream, bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !wait(stream, PollFlags::OUT, deadline)? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until the socket can be written; returns whether it can (false at the deadline). A socket
/// that was shut down, or has failed, can be written too: the next `send` says why not.
///
/// # Errors
/// What `poll` says.
pub fn wait_writable(stream: &TcpStream, deadline: Instant) -> io::Result<bool> {
    wait(stream, PollFlags::OUT, deadline)
}

/// Whether the socket can be written now: its buffer has room, or the next `send` says what is wrong.
pub fn is_writable(stream: &impl AsFd) -> bool {
    is_ready(stream, PollFlags::OUT)
}

/// Whether the socket can be read now: there is something, or the stream has ended.
#[cfg(any(test, not(target_os = "linux")))]
pub fn is_readable(stream: &impl AsFd) -> bool {
    is_ready(stream, PollFlags::IN)
}

/// Waits until there is something to read, or the stream has ended; returns whether that is so
/// (false at the deadline).
///
/// # Errors
/// What `poll` says.
pub fn wait_readable(stream: &TcpStream, deadline: Instant) -> io::Result<bool> {
    wait(stream, PollFlags::IN, deadline)
}

/// Ends our side of the stream and reads what the peer still sends, until it closes, or `grace` is
/// over, or `max_bytes` came.
///
/// A socket closed with unread bytes in it answers with a reset, and a reset destroys what the
/// peer has not read yet: the last response (RFC 9112 section 9.6).
pub fn linger(stream: &TcpStream, grace: Duration, max_bytes: usize) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    read_out(stream, ReadBounds { time: grace, idle: grace, bytes: max_bytes }, |_| false);
}

/// How long, and how much, is read from a peer whose bytes are thrown away.
#[derive(Debug, Clone, Copy)]
pub struct ReadBounds {
    /// The longest time in all.
    pub time: Duration,
    /// The longest time without a byte.
    pub idle: Duration,
    /// The most bytes.
    pub bytes: usize,
}

/// Reads what a peer still sends and throws it away, until it closes, `is_last` says so of what came
/// last, or a bound is reached. Whoever shuts the socket down ends it too.
// Not inlined: its buffer would be part of its caller's frame, and that a page of each idle client's
// stack.
#[inline(never)]
pub fn read_out(stream: &TcpStream, bounds: ReadBounds, mut is_last: impl FnMut(&[u8]) -> bool) {
    let deadline = Instant::now() + bounds.time;
    let mut left = bounds.bytes;
    let mut buffer = [0; 4096];
    while left > 0 {
        let idle_deadline = deadline.min(Instant::now() + bounds.idle);
        if !matches!(wait(stream, PollFlags::IN, idle_deadline), Ok(true)) {
            return;
        }
        // `poll` may be wrong: without this flag `recv` could block past the deadline.
        let flags = rustix::net::RecvFlags::DONTWAIT;
        match rustix::net::recv(stream, &mut buffer[..], flags) {
            Ok((read, _)) if read > 0 => {
                left = left.saturating_sub(read);
                if is_last(&buffer[..read]) {
                    return;
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn is_ready(stream: &impl AsFd, flags: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(stream, flags)], Some(&now)) == Ok(1)
}

/// Waits in `poll`; returns whether what was waited for is there (false at the deadline).
fn wait(stream: &impl AsFd, flags: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        // A signal ends `poll` early: then only what is left of the time is waited again.
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(stream, flags)], timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
