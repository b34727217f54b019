//! Notices clients that hang up while their threads sleep: the watcher.
//!
//! An SSE client's thread sleeps until there is something to write, so it does not see that the
//! peer has closed. One thread watches all of these sockets. On Linux it is blocked in
//! `epoll_wait` for `EPOLLRDHUP` and wakes when one hangs up; to watch one more costs one system
//! call. A socket leaves the set by itself when it is closed, because its descriptor is the only
//! one. Elsewhere the thread asks `poll` about all of them every [`POLL_INTERVAL`].
//!
//! (The other way is a thread of each client that is blocked in `read`, and a second one that
//! writes. It needs no watcher, but in `handoff` mode two threads for every client.)

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

#[cfg(target_os = "linux")]
use epoll::Set;
#[cfg(not(target_os = "linux"))]
use polling::Set;

/// How late a hang-up may be noticed where there is no epoll.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The set of watched sockets and its thread. Dropping it ends the thread.
pub struct Watcher {
    set: Arc<Set>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts the thread. It calls `on_hangup` with the key of each socket whose peer has closed
    /// its side, or reset the connection: once for each, and it must not block.
    ///
    /// # Errors
    /// Where the system gives no descriptors, or no thread.
    pub fn start(on_hangup: impl Fn(u64) + Send + 'static) -> io::Result<Watcher> {
        // Shared, not locked: `epoll_ctl` may be called while another thread waits.
        let set = Arc::new(Set::new()?);
        let watched = Arc::clone(&set);
        let thread = std::thread::Builder::new()
            .name("hangups".into())
            .spawn(move || watched.run(&on_hangup))?;
        Ok(Watcher { set, thread: Some(thread) })
    }

    /// Watches `socket` until it hangs up or is closed. `key` is what the closure gets.
    ///
    /// # Errors
    /// Where the system has no room for one more.
    pub fn watch(&self, socket: &Arc<TcpStream>, key: u64) -> io::Result<()> {
        self.set.add(socket, key)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.set.stop();
        // Joined, so that `on_hangup` is never called after the drop.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(target_os = "linux")]
mod epoll {
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;

    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::event::{EventfdFlags, eventfd};

    use super::{Arc, TcpStream, io};

    /// The key of the descriptor that ends the wait.
    const STOP: u64 = u64::MAX;

    pub struct Set {
        epoll: OwnedFd,
        stop: OwnedFd,
    }

    impl Set {
        pub fn new() -> io::Result<Set> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
            epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
            Ok(Set { epoll, stop })
        }

        pub fn add(&self, socket: &Arc<TcpStream>, key: u64) -> io::Result<()> {
            // Once is enough: whoever has hung up does not come back on this connection.
            let flags = EventFlags::RDHUP | EventFlags::ONESHOT;
            Ok(epoll::add(&self.epoll, socket, EventData::new_u64(key), flags)?)
        }

        pub fn run(&self, on_hangup: &impl Fn(u64)) {
            let mut events = [MaybeUninit::uninit(); 256];
            loop {
                // No timeout: while nobody hangs up the watcher costs nothing.
                let (events, _) = match epoll::wait(&self.epoll, &mut events, None) {
                    Ok(found) => found,
                    Err(rustix::io::Errno::INTR) => continue,
                    // Clients still leave, when the next write to them fails.
                    Err(error) => return log::error!("hang-ups cannot be seen any more: {error}"),
                };
                for event in events {
                    match event.data.u64() {
                        STOP => return,
                        key => on_hangup(key),
                    }
                }
            }
        }

        pub fn stop(&self) {
            let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        }
    }
}

/// For systems without epoll; on Linux only its test uses it.
#[cfg(any(test, not(target_os = "linux")))]
mod polling {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError, Weak};

    use super::{Arc, POLL_INTERVAL, TcpStream, io};
    use crate::os::send::is_readable;

    #[derive(Default)]
    pub struct Set {
        sockets: Mutex<Vec<(Weak<TcpStream>, u64)>>,
        stop: AtomicBool,
    }

    impl Set {
        #[allow(clippy::unnecessary_wraps)] // the form of the other one
        pub fn new() -> io::Result<Set> {
            Ok(Set::default())
        }

        #[allow(clippy::unnecessary_wraps)]
        pub fn add(&self, socket: &Arc<TcpStream>, key: u64) -> io::Result<()> {
            let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            // Weak: the client's thread decides when the connection is closed.
            sockets.push((Arc::downgrade(socket), key));
            Ok(())
        }

        pub fn run(&self, on_hangup: &impl Fn(u64)) {
            while !self.stop.load(Ordering::SeqCst) {
                std::thread::sleep(POLL_INTERVAL);
                let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
                // A socket that its client's thread has closed is gone from here as well.
                sockets.retain(|(socket, key)| {
                    let Some(socket) = socket.upgrade() else { return false };
                    let is_open = !has_hung_up(&socket);
                    if !is_open {
                        on_hangup(*key);
                    }
                    is_open
                });
            }
        }

        pub fn stop(&self) {
            self.stop.store(true, Ordering::SeqCst);
        }
    }

    /// Whether reading would give the end of the stream, or an error.
    fn has_hung_up(socket: &TcpStream) -> bool {
        // `peek` alone would wait for a client that says nothing.
        is_readable(socket) && !matches!(socket.peek(&mut [0]), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::connection::Link;
    use std::sync::mpsc::{RecvTimeoutError, channel};

    const SOON: Duration = Duration::from_secs(20);

    /// A connection, and its peer's end of it.
    fn pair() -> (Arc<TcpStream>, TcpStream) {
        let (link, peer) = Link::pair();
        (Arc::clone(link.socket()), peer)
    }

    #[test]
    fn a_hangup_is_told_once_and_others_are_not() {
        let (tell, told) = channel();
        let watcher = Watcher::start(move |key| tell.send(key).unwrap()).unwrap();
        let (one, two) = (pair(), pair());
        watcher.watch(&one.0, 1).unwrap();
        watcher.watch(&two.0, 2).unwrap();
        // A half-close counts: nothing else shows that an event stream's client has left.
        two.1.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(told.recv_timeout(SOON), Ok(2));
        drop(one.1);
        assert_eq!(told.recv_timeout(SOON), Ok(1));
        assert_eq!(told.recv_timeout(POLL_INTERVAL), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn without_epoll_it_is_told_as_well() {
        let set = Arc::new(polling::Set::new().unwrap());
        let (open, closed, freed) = (pair(), pair(), pair());
        for (key, socket) in [&open.0, &closed.0, &freed.0].into_iter().enumerate() {
            set.add(socket, key as u64).unwrap();
        }
        drop(closed.1);
        drop(freed);
        let (tell, told) = channel();
        let watched = Arc::clone(&set);
        let thread = std::thread::spawn(move || watched.run(&|key| tell.send(key).unwrap()));
        assert_eq!(told.recv_timeout(SOON), Ok(1));
        set.stop();
        thread.join().unwrap();
        assert!(told.try_recv().is_err(), "only one has hung up");
    }
}
