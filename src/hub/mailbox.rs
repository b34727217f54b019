//! A channel with one reader thread, which sleeps while there is nothing to read.
//!
//! crossbeam's own blocking `recv` spins in `sched_yield` for a while before it sleeps. With a
//! thousand threads that wake for every event, that spinning was most of the server's CPU time.
//! Here the reader parks at once, and a sender unparks it after it has sent.

use std::thread::Thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError};

/// So many messages wake the reader, even if each was sent without a wake-up.
const MANY: usize = 32;

/// The sending side: puts a message into the channel and wakes its reader.
pub struct Mailbox<T> {
    sender: Sender<T>,
    reader: Thread,
}

impl<T> Mailbox<T> {
    /// A mailbox whose messages the thread `reader` takes from the other end of `sender`.
    pub fn new(sender: Sender<T>, reader: Thread) -> Mailbox<T> {
        Mailbox { sender, reader }
    }

    /// Sends, waiting for room where the channel is full: that is the back-pressure on publishers.
    /// A message to a reader that has ended is dropped.
    pub fn send(&self, message: T) {
        if self.sender.send(message).is_ok() {
            // Costs a system call only if the reader sleeps.
            self.reader.unpark();
        }
    }

    /// Sends without waking the reader, which finds the message when it wakes for something else. If
    /// many messages wait, it is woken.
    pub fn send_without_wake(&self, message: T) {
        if self.sender.len() >= MANY {
            return self.send(message);
        }
        let _ = self.sender.send(message);
    }
}

/// Waits for a message until `deadline`.
///
/// To be called by the thread that the senders wake. Returns `None` at the deadline, and when all
/// senders are gone.
pub fn receive<T>(receiver: &Receiver<T>, deadline: Instant) -> Option<T> {
    loop {
        match receiver.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // A message between `try_recv` and `park` is not missed: `unpark` leaves a token.
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_message_arrives_in_order_and_wakes_the_reader() {
        let (sender, receiver) = crossbeam_channel::bounded(4);
        let (started, start) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            started.send(std::thread::current()).unwrap();
            let mut got = Vec::new();
            let late = Instant::now() + Duration::from_secs(60);
            while got.len() < 1_000 {
                got.push(receive(&receiver, late).unwrap());
            }
            got
        });
        let mailbox = Mailbox::new(sender, start.recv().unwrap());
        for number in 0..1_000 {
            mailbox.send(number);
        }
        assert_eq!(reader.join().unwrap(), (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn what_has_time_does_not_wake_the_reader_until_it_is_much() {
        let (sender, receiver) = crossbeam_channel::bounded(2 * MANY);
        let mailbox = Mailbox::new(sender, std::thread::current());
        let is_woken = || {
            let start = Instant::now();
            std::thread::park_timeout(Duration::from_millis(20));
            start.elapsed() < Duration::from_millis(20)
        };
        for number in 0..MANY {
            mailbox.send_without_wake(number);
        }
        assert!(!is_woken());
        mailbox.send_without_wake(MANY);
        assert!(is_woken());
        assert!(receiver.try_iter().eq(0..=MANY));
    }

    #[test]
    fn the_deadline_ends_the_wait() {
        let (_sender, receiver) = crossbeam_channel::bounded::<()>(1);
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(receive(&receiver, soon), None);
        assert!(Instant::now() >= soon);
    }
}
