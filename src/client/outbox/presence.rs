//! Whether the client of an event stream is still there: heartbeats, and what the kernel knows of its
//! peer. Its broadcaster asks every second or so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Outbox;
use crate::client::reason::Reason;
use crate::event::payload::Payload;
use crate::os::tcp;

impl Outbox {
    /// What the broadcaster does now and then for a client that only listens: sends `beat` when
    /// nothing was written for `idle`, and ends the connection of a client that has vanished.
    pub fn tick(self: &Arc<Self>, beat: &'static [u8], idle: Duration, now: Instant) {
        if idle.is_zero() {
            return;
        }
        if self.has_vanished(idle, now) {
            self.close(Reason::Lost, None);
            return;
        }
        let due = {
            let state = self.lock();
            let asleep = state.waiting == 0 && state.close_reason.is_none();
            asleep && now.saturating_duration_since(state.last_write) >= idle
        };
        if due {
            self.offer(&Payload::Fixed(beat), now);
            // A heartbeat is acknowledged within a round trip: ask about that one soon.
            self.lock().next_check = now + Duration::from_secs(1);
        }
    }

    /// Whether sent data has gone unacknowledged for `patience`. The kernel is asked once in so
    /// long, and every time while data is overdue. (`TCP_USER_TIMEOUT` would find the same, and cut
    /// a reader that only pauses, too.)
    fn has_vanished(&self, patience: Duration, now: Instant) -> bool {
        let mut state = self.lock();
        if state.close_reason.is_some() || (now < state.next_check && state.silent_since.is_none())
        {
            return false;
        }
        state.next_check = now + patience;
        let told = tcp::unacknowledged(self.link.stream());
        state.silent_since = match state.silent_since {
            _ if !told.is_overdue => None,
            Some((since, acknowledged)) if acknowledged == told.acknowledged => {
                Some((since, acknowledged))
            }
            _ => Some((now, told.acknowledged)),
        };
        state
            .silent_since
            .is_some_and(|(since, _)| now.saturating_duration_since(since) >= patience)
    }
}
