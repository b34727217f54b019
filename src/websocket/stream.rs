//! A WebSocket's bytes on their way in: how its thread waits for them.
//!
//! To put a thread to sleep and to wake it again costs more than all the rest of a short message. A
//! client that answers at once is often heard from again while other threads have had their turn,
//! so a thread that has just served its client first lets the others run, and looks again, a few
//! times. Where that was in vain it sleeps at once for a while, longer each time: for a client that
//! rarely speaks, or among hundreds that are all busy, looking would only be more work.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::hub::outbox::Outbox;

/// How often a thread looks before it sleeps.
const LOOKS: u32 = 4;

/// For how many messages at the most nobody looks after it was in vain.
const MAX_SKIPPED: u32 = 63;

/// The socket of a client, for reading.
pub struct Stream {
    outbox: Arc<Outbox>,
    /// How many reads come before the next one that looks.
    skip: u32,
    /// How many were skipped the last time.
    skipped: u32,
}

impl Stream {
    /// Reads what comes for this outbox's client.
    pub fn new(outbox: Arc<Outbox>) -> Stream {
        // Nothing is expected at the beginning.
        Stream { outbox, skip: 1, skipped: 0 }
    }

    fn look(socket: &TcpStream, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        (0..LOOKS).find_map(|_| {
            std::thread::yield_now();
            match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => None,
                result => Some(result.map(|(read, _)| read).map_err(io::Error::from)),
            }
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.outbox.link().stream();
        if self.skip > 0 {
            self.skip -= 1;
            return socket.read(buffer);
        }
        if let Some(result) = Stream::look(socket, buffer) {
            self.skipped = 0;
            return result;
        }
        self.skipped = (2 * self.skipped + 1).min(MAX_SKIPPED);
        self.skip = self.skipped;
        socket.read(buffer)
    }
}
