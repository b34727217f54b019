//! A WebSocket's bytes on their way in: how its thread waits for them.
//!
//! To put a thread to sleep and to wake it again costs more than all the rest of a short message. A
//! client that answers at once is often heard from again while other threads have had their turn,
//! so a thread that has just served its client first lets the others run, and looks again, a few
//! times. Where that was in vain it sleeps at once for a few messages: for a client that rarely
//! speaks, looking would only be more work.
//!
//! Who looks is runnable, and a turn of all who are takes time from those that have something to do,
//! the clients' own programs among them where they share the processors. Hundreds may be; where it
//! would be more, nearly everybody sleeps for a while. (Not everybody: the few that look take the
//! work of sleeping and waking off the rest.)

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::client::outbox::Outbox;

/// How often a thread looks before it sleeps.
const LOOKS: u32 = 4;

/// For how many messages at the most nobody looks after it was in vain.
const MAX_SKIPPED: u32 = 3;

/// How many threads may look at once, for each processor; and how many where that was not enough.
const MANY: usize = 256;
const FEW: usize = 16;

/// For how many messages there are then few.
const CROWDED: usize = 50 * MANY;

static LOOKING: LazyLock<Looking> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Looking::new(processors)
});

/// How many threads look, in the whole process: they share its processors.
struct Looking {
    now: AtomicUsize,
    /// For how many messages there may only be few.
    crowded: AtomicUsize,
    processors: usize,
}

impl Looking {
    fn new(processors: usize) -> Looking {
        Looking { now: AtomicUsize::new(0), crowded: AtomicUsize::new(0), processors }
    }

    /// What `look` returns, if there is room for one more to look.
    fn one_more<T>(&self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let crowded = self.crowded.load(Relaxed);
        if crowded > 0 {
            // Where two do so at once it is a message more.
            self.crowded.store(crowded - 1, Relaxed);
        }
        let most = self.processors * if crowded > 0 { FEW } else { MANY };
        let has_room = self.now.fetch_add(1, Relaxed) < most;
        let result = if has_room { look() } else { None };
        self.now.fetch_sub(1, Relaxed);
        if !has_room && crowded == 0 {
            self.crowded.store(self.processors * CROWDED, Relaxed);
        }
        result
    }
}

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
        if let Some(result) = LOOKING.one_more(|| Stream::look(socket, buffer)) {
            self.skipped = 0;
            return result;
        }
        self.skipped = (2 * self.skipped + 1).min(MAX_SKIPPED);
        self.skip = self.skipped;
        socket.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many at once, each behind the other, get to look.
    fn nested(looking: &Looking, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        let mut inner = 0;
        let looked = looking.one_more(|| {
            inner = nested(looking, depth - 1);
            Some(())
        });
        inner + usize::from(looked.is_some())
    }

    #[test]
    fn many_look_or_few() {
        let looking = Looking::new(2);
        assert_eq!(nested(&looking, 2 * MANY), 2 * MANY, "there is room for so many");
        assert_eq!(nested(&looking, 2 * MANY + 1), 2 * MANY, "and no more");
        assert_eq!(nested(&looking, 2 * MANY), 2 * FEW, "then there are few");
        (0..2 * CROWDED).for_each(|_| assert!(nested(&looking, 1) == 1, "one always looks"));
        assert_eq!(nested(&looking, 2 * MANY), 2 * MANY, "for a while");
        assert_eq!(looking.now.load(Relaxed), 0);
    }
}
