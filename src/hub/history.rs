//! The last events, for clients that come back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::topics::Topics;
use crate::event::encoding::Encoding;
use crate::event::payload::{Payload, batches};
use crate::event::{Event, EventId};

/// The most memory that the history keeps, whatever its length in events.
const MAX_BYTES: usize = 64 << 20;

/// Of how many topics it is known when they last lost an event. Beyond that the loss that is the longest
/// ago is taken for one on every topic, which is the safe side: a client that was away for longer may
/// be told of a gap that was none.
const MAX_TOPICS: usize = 16 * 1024;

/// A bounded log of events.
#[derive(Debug)]
pub struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    capacity: usize,
    /// No event up to this id is certain to have been kept, on any topic.
    floor: EventId,
    /// The newest event that each topic has lost since `floor`; and the same by that event.
    lost: HashMap<Arc<str>, EventId>,
    topics_by_loss: BTreeMap<EventId, Arc<str>>,
}

/// What a client gets that subscribes.
#[derive(Debug)]
pub struct Replay {
    /// Up to where it has seen everything before this replay: what it comes back with if the replay
    /// does not reach it. `None` where that is not known: behind it comes a gap.
    pub seen: Option<EventId>,
    /// Set where events it missed are no longer kept: the id from which on nothing is missing.
    pub gap: Option<EventId>,
    /// The events it missed, or those of them that are kept, oldest first.
    pub events: Vec<Arc<Event>>,
}

impl Replay {
    /// The replay as a client gets it: a `gap` event, if something is missing, then what it missed.
    pub fn payloads(&self, encoding: Encoding) -> impl Iterator<Item = Payload> {
        // Not counted as an event: it was published by nobody.
        let gap = |resumed| Payload::own(Arc::clone(Event::gap(resumed).encoded(encoding)));
        let events = batches(&self.events).map(move |events| Payload::of(events, encoding));
        self.gap.map(gap).into_iter().chain(events)
    }
}

impl History {
    /// A history of at most `capacity` events, beginning after `birth`.
    pub fn new(capacity: usize, birth: EventId) -> History {
        History {
            events: VecDeque::new(),
            bytes: 0,
            capacity,
            floor: birth,
            lost: HashMap::new(),
            topics_by_loss: BTreeMap::new(),
        }
    }

    /// Appends an event, whose id must be above all others.
    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.weight();
        self.events.push_back(event);
        while self.events.len() > self.capacity || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.weight();
            self.lose(&oldest);
        }
    }

    fn lose(&mut self, event: &Event) {
        if let Some(before) = self.lost.insert(Arc::clone(&event.topic), event.id) {
            self.topics_by_loss.remove(&before);
        }
        self.topics_by_loss.insert(event.id, Arc::clone(&event.topic));
        if self.lost.len() > MAX_TOPICS
            && let Some((id, topic)) = self.topics_by_loss.pop_first()
        {
            self.lost.remove(&topic);
            self.floor = id;
        }
    }

    /// What a client with these topics missed that has seen everything up to `last`. `newest` is
    /// the id given out last; an id above it was not given out by this server.
    pub fn after(&self, last: EventId, newest: EventId, topics: &Topics) -> Replay {
        let complete_after = match topics {
            Topics::All => self.topics_by_loss.keys().next_back().copied().unwrap_or(self.floor),
            Topics::Some(names) => {
                let lost = names.iter().filter_map(|name| self.lost.get(name).copied());
                lost.max().unwrap_or(self.floor)
            }
        }
        .max(self.floor);
        let known = last <= newest;
        let gap = (!known || last < complete_after).then_some(complete_after);
        let from = match known {
            true => self.events.partition_point(|event| event.id <= last),
            // A stranger's id says nothing about what was seen: the gap is all that can be told.
            false => self.events.len(),
        };
        let gap = gap.map(|resumed| if known { resumed } else { newest });
        let seen = known.then_some(last);
        let missed = self.events.range(from..).filter(|event| topics.match_topic(&event.topic));
        Replay { seen, gap, events: missed.cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Draft;

    fn id(millis: u64) -> EventId {
        EventId { millis, sequence: 0 }
    }

    fn history(capacity: usize, topics: &[&str]) -> History {
        let mut history = History::new(capacity, id(100));
        for (number, topic) in topics.iter().enumerate() {
            let draft = Draft::new(topic, None, "x").unwrap();
            history.push(Arc::new(Event::new(id(101 + number as u64), draft)));
        }
        history
    }

    fn ids(replay: &Replay) -> Vec<u64> {
        replay.events.iter().map(|event| event.id.millis).collect()
    }

    #[test]
    fn replays_exactly_what_came_after() {
        let history = history(10, &["a", "b", "a"]);
        let replay = history.after(id(101), id(103), &Topics::All);
        assert_eq!((replay.gap, ids(&replay)), (None, vec![102, 103]));
        let replay = history.after(id(103), id(103), &Topics::All);
        assert_eq!((replay.gap, ids(&replay)), (None, vec![]));
        let replay = history.after(id(100), id(103), &Topics::named(["a"]));
        assert_eq!((replay.gap, ids(&replay)), (None, vec![101, 103]));
    }

    #[test]
    fn tells_of_a_gap_and_replays_the_rest() {
        let history = history(2, &["a", "a", "a", "a"]);
        let replay = history.after(id(101), id(104), &Topics::All);
        assert_eq!((replay.gap, ids(&replay)), (Some(id(102)), vec![103, 104]));
        // 102 is lost, but was seen.
        let replay = history.after(id(102), id(104), &Topics::All);
        assert_eq!((replay.gap, ids(&replay)), (None, vec![103, 104]));
    }

    #[test]
    fn an_id_from_another_time_is_a_gap() {
        let history = history(10, &["a"]);
        let earlier_run = history.after(id(50), id(101), &Topics::All);
        assert_eq!((earlier_run.gap, ids(&earlier_run)), (Some(id(100)), vec![101]));
        let future = history.after(id(900), id(101), &Topics::All);
        assert_eq!((future.gap, ids(&future)), (Some(id(101)), vec![]));
    }

    #[test]
    fn losses_of_other_topics_are_no_gap() {
        let history = history(2, &["noise", "chat", "noise", "noise", "noise"]);
        let noise = history.after(id(101), id(105), &Topics::named(["noise"]));
        assert_eq!((noise.gap, ids(&noise)), (Some(id(103)), vec![104, 105]));
        let chat = history.after(id(102), id(105), &Topics::named(["chat"]));
        assert_eq!((chat.gap, ids(&chat)), (None, vec![]));
        let chat = history.after(id(101), id(105), &Topics::named(["chat"]));
        assert_eq!(chat.gap, Some(id(102)));
    }

    #[test]
    fn the_oldest_losses_are_forgotten_on_the_safe_side() {
        let names: Vec<String> = (0..2 * MAX_TOPICS).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let history = history(1, &names);
        assert_eq!((history.lost.len(), history.topics_by_loss.len()), (MAX_TOPICS, MAX_TOPICS));
        let newest = 100 + names.len() as u64;
        let gap = |last, topic| history.after(id(last), id(newest), &Topics::named([topic])).gap;
        // All are lost but the last, and it is known of the later half.
        let forgotten = newest - 1 - MAX_TOPICS as u64;
        assert_eq!(gap(101, "0"), Some(id(forgotten)));
        assert_eq!(
            gap(forgotten - 1, "quiet"),
            Some(id(forgotten)),
            "it may have been one of those"
        );
        assert_eq!(gap(forgotten, "quiet"), None);
        assert_eq!(gap(forgotten, names[MAX_TOPICS]), Some(id(101 + MAX_TOPICS as u64)));
    }
}
