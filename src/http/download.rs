//! A file, or a part of it, as the body of a response.
//!
//! The client's thread reads the file piece by piece into one buffer and writes each piece to the
//! socket, so a large file takes no more memory than a small one. The thread blocks in `poll` until
//! the peer reads. The peer's progress or its end wakes it, another thread that shuts the socket down
//! (the server does at its own shutdown), and once in `PROGRESS_INTERVAL` the timeout. A download
//! may take as long as it needs, while it gets on: only a peer that takes nothing for `STALL_TIMEOUT`
//! is cut off.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use std::{cmp, fmt};

use crate::os::send::{send_now, wait_writable};
use crate::os::tcp;

/// Bytes read from the file at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// The longest time in which a peer may acknowledge nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a peer that makes `send` wait is checked for progress. The socket becomes writable
/// only when a third of its buffer is free, which takes a slow peer minutes.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The bytes of a file from `start` on, `length` of them.
#[derive(Debug)]
pub struct FilePart {
    /// The open file. Whoever replaces it by another one of its name changes nothing here.
    pub file: File,
    /// The position of the first byte.
    pub start: u64,
    /// How many bytes are sent.
    pub length: u64,
}

/// Why a file was not sent to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum CutShort {
    /// The peer took nothing for `STALL_TIMEOUT`.
    Stalled,
    /// The connection is over: the peer has closed it, or the server shuts down.
    Connection(io::Error),
    /// The file cannot be read.
    File(io::Error),
    /// The file has become shorter since its length was told.
    Shrunk,
}

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CutShort::Stalled => {
                write!(f, "the client took nothing for {} s", STALL_TIMEOUT.as_secs())
            }
            CutShort::Connection(error) => write!(f, "the connection is over: {error}"),
            CutShort::File(error) => write!(f, "the file cannot be read: {error}"),
            CutShort::Shrunk => f.write_str("the file has become shorter meanwhile"),
        }
    }
}

impl std::error::Error for CutShort {}

impl FilePart {
    /// Sends `head`, and the part behind it.
    ///
    /// # Errors
    /// How many bytes of the part went out, and why not all. The connection must then be closed:
    /// that is how the client learns that the body is not complete.
    pub fn send(&self, stream: &TcpStream, head: Vec<u8>) -> Result<(), (u64, CutShort)> {
        // The head and the beginning of the file go out in one piece.
        let mut buffer = head;
        let mut sent = 0;
        loop {
            // The buffer holds the head, or nothing: a piece of the file is put behind it.
            let room = BUFFER_BYTES.saturating_sub(buffer.len());
            let wanted = cmp::min(room as u64, self.length - sent) as usize;
            let begin = buffer.len();
            buffer.resize(begin + wanted, 0);
            let read = self.read_at(&mut buffer[begin..], self.start + sent);
            buffer.truncate(begin + *read.as_ref().unwrap_or(&0));
            // What could be read goes out even if the file failed, so that the client can resume there.
            send_steadily(stream, &buffer, STALL_TIMEOUT).map_err(|why| (sent, why))?;
            sent += (buffer.len() - begin) as u64;
            match read {
                Err(error) => return Err((sent, CutShort::File(error))),
                Ok(_) if sent == self.length => return Ok(()),
                Ok(0) if wanted > 0 => return Err((sent, CutShort::Shrunk)),
                Ok(_) => buffer.clear(),
            }
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Sends all of `bytes`, however long that takes, unless the peer takes nothing for `stall_timeout`.
fn send_steadily(
    stream: &TcpStream,
    mut bytes: &[u8],
    stall_timeout: Duration,
) -> Result<(), CutShort> {
    while !bytes.is_empty() {
        match send_now(stream, bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for_room(stream, stall_timeout)?;
            }
            Err(error) => return Err(CutShort::Connection(error)),
        }
    }
    Ok(())
}

/// Waits until the socket can be written. The timeout begins anew with every byte that the peer
/// acknowledges.
fn wait_for_room(stream: &TcpStream, stall_timeout: Duration) -> Result<(), CutShort> {
    let mut acknowledged = tcp::unacknowledged(stream).acknowledged;
    let mut deadline = Instant::now() + stall_timeout;
    loop {
        let next_check = cmp::min(deadline, Instant::now() + PROGRESS_INTERVAL);
        if wait_writable(stream, next_check).map_err(CutShort::Connection)? {
            return Ok(());
        }
        let told = tcp::unacknowledged(stream).acknowledged;
        if told > acknowledged {
            acknowledged = told;
            deadline = Instant::now() + stall_timeout;
        } else if Instant::now() >= deadline {
            return Err(CutShort::Stalled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;
    use crate::listener::connection::Link;

    #[test]
    fn a_peer_that_takes_nothing_is_cut_off() {
        let (link, _peer) = Link::pair();
        let result = send_steadily(link.stream(), &[0; 16 << 20], Duration::from_millis(300));
        assert!(matches!(result, Err(CutShort::Stalled)), "{result:?}");
    }

    /// The socket of such a peer does not become writable in time.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_peer_that_takes_a_little_is_waited_for() {
        let (link, mut peer) = Link::pair();
        let (bytes, stall_timeout) = (vec![0; 16 << 20], Duration::from_secs(3));
        let end = Instant::now() + 2 * stall_timeout;
        thread::scope(|scope| {
            let result = scope.spawn(|| {
                let result = send_steadily(link.stream(), &bytes, stall_timeout);
                let _ = link.stream().shutdown(std::net::Shutdown::Write);
                result
            });
            let mut piece = [0; 8192];
            while Instant::now() < end {
                peer.read_exact(&mut piece).unwrap();
                thread::sleep(Duration::from_millis(100));
            }
            io::copy(&mut peer, &mut io::sink()).unwrap();
            let result = result.join().unwrap();
            assert!(result.is_ok(), "{result:?}");
        });
    }

    #[test]
    fn whoever_shuts_the_socket_down_ends_the_wait() {
        let (link, _peer) = Link::pair();
        thread::scope(|scope| {
            let result =
                scope.spawn(|| send_steadily(link.stream(), &[0; 16 << 20], STALL_TIMEOUT));
            thread::sleep(Duration::from_millis(50));
            link.stream().shutdown(std::net::Shutdown::Both).unwrap();
            let result = result.join().unwrap();
            assert!(matches!(result, Err(CutShort::Connection(_))), "{result:?}");
        });
    }
}
