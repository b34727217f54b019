//! The log of refused clients: a line for each, up to a limit.
//!
//! An operator who wants to know why a page does not connect finds the reason here. A client can have
//! itself refused without end, so the lines are limited; the next line tells how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::http::Response;
use crate::http::forwarded::ClientAddress;
use crate::listener::connection::{Connection, Next};

/// The most lines in each [`WINDOW`].
const MAX_LINES: u32 = 20;

/// The time over which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// The longest message in a line, in characters: some messages repeat what the client has sent.
const MAX_MESSAGE: usize = 300;

/// The limit on the lines.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Counts>);

impl Refusals {
    /// Responds to a request for a WebSocket that is refused, and logs why.
    pub fn respond(&self, connection: Connection, response: &Response) -> Next {
        self.log("websocket", connection.peer(), response);
        connection.respond(response)
    }

    /// Logs why a client is refused, unless the limit is reached.
    pub fn log(&self, transport: &str, peer: ClientAddress, response: &Response) {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner).add(Instant::now());
        if let Some(left_out) = counted {
            let status = response.status;
            let message = response.error_message().unwrap_or_default();
            let printable = |letter: char| if letter.is_control() { '?' } else { letter };
            let message: String = message.chars().take(MAX_MESSAGE).map(printable).collect();
            let before = match left_out {
                0 => String::new(),
                count => format!(" ({count} more were refused before, without a line)"),
            };
            log::info!("{transport} {peer} refused with {status}: {message}{before}");
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// When the current window began.
    began: Option<Instant>,
    /// The lines in this window.
    lines: u32,
    /// The refusals without a line since the last line.
    left_out: u64,
}

impl Counts {
    /// Counts one more refusal. If it gets a line, returns how many were left out before it.
    fn add(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.lines) = (Some(now), 0);
        }
        if self.lines >= MAX_LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_with_the_next_line() {
        let (mut counts, start) = (Counts::default(), Instant::now());
        for _ in 0..MAX_LINES {
            assert_eq!(counts.add(start), Some(0));
        }
        assert_eq!(counts.add(start), None);
        assert_eq!(counts.add(start + WINDOW / 2), None);
        assert_eq!(counts.add(start + WINDOW), Some(2));
        assert_eq!(counts.add(start + WINDOW), Some(0));
    }
}
