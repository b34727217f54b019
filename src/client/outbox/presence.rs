//! Whether the peer of an event stream is still there: what the kernel knows of it. The client's broadcaster
//! asks once in each heartbeat's interval, a second after a heartbeat, and every second while sent data is
//! overdue.

use std::time::{Duration, Instant};

use crate::os::tcp::Unacknowledged;

/// What is known of the peer.
pub(super) struct Presence {
    /// When the kernel is asked next whether it acknowledges what was sent.
    pub next_check: Instant,
    /// Since when it has not, and how many bytes it had acknowledged then.
    silent_since: Option<(Instant, u64)>,
}

impl Presence {
    pub fn new(now: Instant) -> Presence {
        Presence { next_check: now, silent_since: None }
    }

    /// Whether to ask the kernel: once in so long, and every time while data is overdue.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.next_check || self.silent_since.is_some()
    }

    /// Whether sent data has gone unacknowledged for `interval`. (`TCP_USER_TIMEOUT` would find the same, and
    /// cut a reader that only pauses, too.)
    pub fn has_vanished(&mut self, told: Unacknowledged, interval: Duration, now: Instant) -> bool {
        self.next_check = now + interval;
        self.silent_since = match self.silent_since {
            _ if !told.is_overdue => None,
            Some((since, acknowledged)) if acknowledged == told.acknowledged => {
                Some((since, acknowledged))
            }
            _ => Some((now, told.acknowledged)),
        };
        self.silent_since.is_some_and(|(since, _)| now.saturating_duration_since(since) >= interval)
    }
}
