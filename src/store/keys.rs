//! Idempotency keys of the last minutes, for a store that this process alone writes.
//!
//! A publisher that did not get its answer publishes again with the same key, and gets the id of the first
//! time (draft-ietf-httpapi-idempotency-key-header).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::EventId;

/// How long a key is remembered.
pub const KEY_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The most keys. With more in five minutes, the oldest are forgotten earlier: about 40 MiB of keys that are as
/// long as a UUID.
const MAX_KEYS: usize = 1 << 18;

/// The keys, and the ids of the events that were published with them.
#[derive(Debug, Default)]
pub struct Keys {
    ids: HashMap<Arc<str>, EventId>,
    by_age: VecDeque<(Instant, Arc<str>)>,
}

impl Keys {
    /// The id of the event that was published with this key.
    pub fn get(&self, key: &str) -> Option<EventId> {
        self.ids.get(key).copied()
    }

    /// Remembers a key that was used at `time`, which is not before that of the key before it.
    pub fn insert(&mut self, key: &str, id: EventId, time: Instant) {
        let key: Arc<str> = key.into();
        self.ids.insert(Arc::clone(&key), id);
        self.by_age.push_back((time, key));
    }

    /// Forgets a key whose event was not stored: the one inserted last.
    pub fn take_back(&mut self) {
        if let Some((_, key)) = self.by_age.pop_back() {
            self.ids.remove(&key);
        }
    }

    /// Forgets the keys that are older than [`KEY_LIFETIME`], and the oldest of too many.
    pub fn expire(&mut self, now: Instant) {
        while let Some((time, _)) = self.by_age.front()
            && (now.duration_since(*time) >= KEY_LIFETIME || self.by_age.len() > MAX_KEYS)
            && let Some((_, key)) = self.by_age.pop_front()
        {
            self.ids.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EventId {
        EventId { millis, sequence: 0 }
    }

    #[test]
    fn a_key_is_known_for_five_minutes() {
        let (mut keys, start) = (Keys::default(), Instant::now());
        keys.insert("a", id(1), start);
        keys.insert("b", id(2), start + Duration::from_secs(1));
        keys.expire(start + KEY_LIFETIME - Duration::from_secs(1));
        assert_eq!((keys.get("a"), keys.get("b")), (Some(id(1)), Some(id(2))));
        keys.expire(start + KEY_LIFETIME);
        assert_eq!((keys.get("a"), keys.get("b")), (None, Some(id(2))));
        keys.take_back();
        assert_eq!(keys.get("b"), None);
    }

    #[test]
    fn the_oldest_of_too_many_keys_is_forgotten() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        for number in 0..=MAX_KEYS as u64 {
            keys.insert(&number.to_string(), id(number), now);
        }
        keys.expire(now);
        assert_eq!((keys.get("0"), keys.get("1")), (None, Some(id(1))));
    }
}
