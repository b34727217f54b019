//! Ids of events, and where they come from.

use std::fmt;
use std::str::FromStr;

use super::error::EventError;

/// Where an event stands in the order of all events: `<milliseconds>-<sequence>`, the form of
/// Redis stream ids. Ordered; never used twice by one server, even if the clock is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId {
    /// Milliseconds since 1970 when the event was published, or those of the event before it
    /// where the clock has gone back since.
    pub millis: u64,
    /// Counts the events of one millisecond.
    pub sequence: u64,
}

impl EventId {
    /// The least id above this one.
    pub(crate) fn successor(self) -> EventId {
        match self.sequence.checked_add(1) {
            Some(sequence) => EventId { sequence, ..self },
            None => EventId { millis: self.millis.saturating_add(1), sequence: 0 },
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = EventError;

    fn from_str(text: &str) -> Result<EventId, EventError> {
        let (millis, sequence) = text.split_once('-').ok_or(EventError::NotAnId)?;
        let number = |digits: &str| {
            // `parse` alone would also take a sign.
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten().ok_or(EventError::NotAnId)
        };
        Ok(EventId { millis: number(millis)?, sequence: number(sequence)? })
    }
}

/// Gives out ids that only ever rise.
#[derive(Debug)]
pub struct IdSource {
    last: EventId,
    clock: fn() -> u64,
}

impl IdSource {
    /// Starts at the present time. `clock` tells milliseconds since 1970; see
    /// [`wall_clock`](crate::os::clock::wall_clock).
    pub fn new(clock: fn() -> u64) -> IdSource {
        IdSource { last: EventId { millis: clock(), sequence: 0 }, clock }
    }

    /// The same, from behind `last` on.
    pub fn after(last: EventId, clock: fn() -> u64) -> IdSource {
        IdSource { last, clock }
    }

    /// The id given out last, or the one that stands for 'before the first event'.
    pub fn last(&self) -> EventId {
        self.last
    }

    /// The next id.
    pub fn next_id(&mut self) -> EventId {
        let now = (self.clock)();
        self.last = if now > self.last.millis {
            EventId { millis: now, sequence: 0 }
        } else {
            EventId { millis: self.last.millis, sequence: self.last.sequence + 1 }
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn ids_rise_though_the_clock_goes_back() {
        static CLOCK: AtomicU64 = AtomicU64::new(1_000);
        let mut ids = IdSource::new(|| CLOCK.load(Ordering::Relaxed));
        let mut last = ids.last();
        for now in [1_000, 1_001, 1_001, 400, 3, 1_001, 1_002] {
            CLOCK.store(now, Ordering::Relaxed);
            let id = ids.next_id();
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert_eq!(last, EventId { millis: 1_002, sequence: 0 });
    }

    #[test]
    fn ids_are_read_back_and_nothing_else_is() {
        let id = EventId { millis: 1_700_000_000_000, sequence: 7 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "-", "1", "1-", "-1", "+1-1", "1-+1", "1-1-1", "a-1", " 1-1"] {
            assert_eq!(bad.parse::<EventId>(), Err(EventError::NotAnId), "{bad:?}");
        }
    }
}
