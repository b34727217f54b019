//! The newest events, in memory, for clients that come back. Whatever keeps events beyond that (see
//! [`crate::store`]) fills the window when the server starts; every replay is read from here.
//!
//! One lock, held for a step at a time: to push an event, or to read a batch. A client that comes back after a
//! thousand events takes it several times, and live events get in between.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::last_seen::LastSeen;
use crate::event::topics::{Topics, is_covered, prefix_of};
use crate::event::{Event, EventId};
use crate::store::delivery::Delivery;

/// The most memory that the window keeps, whatever its length in events.
pub const MAX_BYTES: usize = 64 << 20;

/// Of how many topics it is known when they last lost an event. Beyond that the loss that is the longest
/// ago is taken for one on every topic, which is the safe side: a client that was away for longer may
/// be told of a gap that was none.
const MAX_TOPICS: usize = 16 * 1024;

/// How many events are looked at in one hold of the lock.
const BATCH: usize = 256;

/// The newest events.
#[derive(Debug)]
pub struct Window {
    kept: Mutex<Kept>,
}

/// How many events each topic keeps whose name `pattern` covers (see [`is_covered`]), apart from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLimit {
    /// A topic's name, or `prefix/*`.
    pub pattern: String,
    /// How many events.
    pub events: usize,
}

#[derive(Debug)]
struct Kept {
    events: BTreeMap<EventId, Entry>,
    bytes: usize,
    capacity: usize,
    limits: Vec<TopicLimit>,
    /// The ids of `events`, oldest first: those of topics without a limit of their own, which share `capacity`,
    /// and those of each topic that has one.
    shared: VecDeque<EventId>,
    own: HashMap<Arc<str>, VecDeque<EventId>>,
    /// The newest event of each topic that has one here.
    latest: HashMap<Arc<str>, EventId>,
    /// The newest id: of an event, or of a gap.
    newest: EventId,
    /// No event up to this id is certain to have been kept, on any topic.
    floor: EventId,
    /// The newest event that each topic has lost since `floor`; and the same by that event.
    lost: HashMap<Arc<str>, EventId>,
    topics_by_loss: BTreeMap<EventId, Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    /// The id before it, whether that is still kept or not. No event has an id in between.
    before: EventId,
}

/// How a client begins.
#[derive(Debug)]
pub(super) struct Beginning {
    /// It has seen everything up to here; `None` where that is not known.
    pub seen: Option<EventId>,
    /// What it missed, or the first part of that.
    pub first: Batch,
    /// Where what it missed ends.
    pub until: EventId,
    /// Of losses up to here it knows, or has not asked.
    pub told: EventId,
}

/// Some of the events that a client missed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Set where events after the place where the reader began are lost: from this id on nothing is missing.
    pub gap: Option<EventId>,
    /// Oldest first.
    pub events: Vec<Arc<Event>>,
    /// Where to read on, if there may be more.
    pub next: Option<EventId>,
}

impl Window {
    /// A window of at most `capacity` events, besides those of topics with a limit of their own. With
    /// [`Window::gap`] it begins after an id.
    pub fn new(capacity: usize, limits: Vec<TopicLimit>) -> Window {
        let kept = Kept {
            events: BTreeMap::new(),
            bytes: 0,
            capacity,
            limits,
            shared: VecDeque::new(),
            own: HashMap::new(),
            latest: HashMap::new(),
            newest: EventId::default(),
            floor: EventId::default(),
            lost: HashMap::new(),
            topics_by_loss: BTreeMap::new(),
        };
        Window { kept: Mutex::new(kept) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a store delivers.
    pub fn take_in(&self, delivery: &Delivery) {
        match delivery {
            Delivery::Event(event) => self.push(Arc::clone(event)),
            Delivery::Gap(id) => self.gap(*id),
        }
    }

    /// Appends an event, whose id must be above all others.
    pub fn push(&self, event: Arc<Event>) {
        self.kept().push(event);
    }

    /// Events before `id`, which must be above all others, may be lost: whoever has seen less than `id` is told
    /// of a gap.
    pub fn gap(&self, id: EventId) {
        let mut kept = self.kept();
        (kept.newest, kept.floor) = (id, id);
        kept.lost.clear();
        kept.topics_by_loss.clear();
    }

    /// The newest id: that of an event or of a gap, or the one that stands for 'before the first event'.
    pub fn newest(&self) -> EventId {
        self.kept().newest
    }

    /// The oldest event that is kept.
    pub fn oldest(&self) -> Option<EventId> {
        self.kept().events.keys().next().copied()
    }

    /// How a client with these topics begins that gets live events from behind the newest id on. To be called
    /// while nothing is pushed: else an event that comes meanwhile would count as one that it missed. For the same
    /// reason it includes the first batch: what is kept when a client comes, it gets.
    pub(super) fn begin(&self, last: LastSeen, topics: &Topics) -> Beginning {
        let kept = self.kept();
        let newest = kept.newest;
        let after = match last {
            // It comes back with the newest id, and misses nothing in between.
            LastSeen::Nothing => newest,
            LastSeen::Event(id) if id <= newest && !kept.is_hole(id) => id,
            LastSeen::Earliest => {
                // With limits of their own, topics may have lost events that are newer than what others keep. A
                // client that gets none of the events comes back as it came.
                let told = kept.complete_after(EventId::default(), topics);
                let first = kept.read(EventId::default(), newest, told, topics);
                return Beginning { seen: None, first, until: newest, told };
            }
            LastSeen::Event(_) | LastSeen::Unknown => {
                // A stranger's id says nothing about what was seen: the gap is all that can be told.
                let first = Batch { gap: Some(newest), ..Batch::default() };
                return Beginning { seen: None, first, until: newest, told: newest };
            }
            LastSeen::Latest => match kept.latest(topics) {
                events if events.is_empty() => newest,
                events => {
                    // With an id above those of the events it would come back as if it had seen them.
                    let first = Batch { events, ..Batch::default() };
                    return Beginning { seen: None, first, until: newest, told: newest };
                }
            },
        };
        let first = kept.read(after, newest, after, topics);
        Beginning { seen: Some(after), first, until: newest, told: after }
    }

    /// The next events behind `after` and up to `until` on these topics. The reader knows of losses up to
    /// `told`.
    pub(super) fn read(
        &self,
        after: EventId,
        until: EventId,
        told: EventId,
        topics: &Topics,
    ) -> Batch {
        self.kept().read(after, until, told, topics)
    }
}

impl Kept {
    fn push(&mut self, event: Arc<Event>) {
        let (id, topic) = (event.id, Arc::clone(&event.topic));
        self.bytes += event.weight();
        let before = std::mem::replace(&mut self.newest, id);
        self.events.insert(id, Entry { event, before });
        self.latest.insert(Arc::clone(&topic), id);
        // The longest pattern is the most exact one.
        let limits = self.limits.iter().filter(|limit| is_covered(&topic, &limit.pattern));
        let limit = limits.max_by_key(|limit| limit.pattern.len()).map(|limit| limit.events);
        let (group, capacity) = match limit {
            Some(limit) => (self.own.entry(topic).or_default(), limit),
            None => (&mut self.shared, self.capacity),
        };
        group.push_back(id);
        if group.len() > capacity
            && let Some(oldest) = group.pop_front()
        {
            self.evict(oldest);
        }
        while self.bytes > MAX_BYTES
            && let Some((&oldest, entry)) = self.events.first_key_value()
        {
            // The oldest of all is the oldest of its group.
            match self.own.get_mut(&entry.event.topic) {
                Some(group) if group.front() == Some(&oldest) => group.pop_front(),
                _ => self.shared.pop_front(),
            };
            self.evict(oldest);
        }
    }

    fn evict(&mut self, id: EventId) {
        let Some(Entry { event, .. }) = self.events.remove(&id) else { return };
        let topic = &event.topic;
        self.bytes -= event.weight();
        if self.latest.get(topic) == Some(&id) {
            self.latest.remove(topic);
        }
        if self.own.get(topic).is_some_and(VecDeque::is_empty) {
            self.own.remove(topic);
        }
        if let Some(before) = self.lost.insert(Arc::clone(topic), id) {
            self.topics_by_loss.remove(&before);
        }
        self.topics_by_loss.insert(id, Arc::clone(topic));
        if self.lost.len() > MAX_TOPICS
            && let Some((id, topic)) = self.topics_by_loss.pop_first()
        {
            self.lost.remove(&topic);
            self.floor = self.floor.max(id);
        }
    }

    fn read(&self, after: EventId, until: EventId, told: EventId, topics: &Topics) -> Batch {
        // What was lost beyond `until` was not meant for this reader, but then all before it is lost as well.
        let known = told.max(after);
        let lost = self.complete_after(known, topics).min(until);
        let gap = (lost > known).then_some(lost);
        let Some(lost) = gap else { return self.range(after, until, topics) };
        // What is kept from before the loss comes before the gap: the ids that a client gets only rise.
        let before = self.range(after, lost, topics);
        match before.next.or(before.events.last().map(|event| event.id)) {
            Some(next) => Batch { next: Some(next), ..before },
            None => Batch { gap, ..self.range(lost, until, topics) },
        }
    }

    /// The first events after `after` and up to `until` on these topics.
    fn range(&self, after: EventId, until: EventId, topics: &Topics) -> Batch {
        let (mut events, mut looked_at) = (Vec::new(), 0);
        // An empty range of a map would panic.
        let range = (after < until).then(|| self.events.range((Excluded(after), Included(until))));
        for (id, entry) in range.into_iter().flatten() {
            if topics.match_topic(&entry.event.topic) {
                events.push(Arc::clone(&entry.event));
            }
            looked_at += 1;
            if looked_at == BATCH {
                return Batch { gap: None, events, next: Some(*id) };
            }
        }
        Batch { gap: None, events, next: None }
    }

    /// The newest loss on these topics after `after`: all their later events are kept. Without one, an id up to
    /// `after`, or the floor.
    fn complete_after(&self, after: EventId, topics: &Topics) -> EventId {
        let lost = match topics {
            Topics::All => self.topics_by_loss.keys().next_back().copied(),
            Topics::Some(names) if names.iter().any(|name| prefix_of(name).is_some()) => {
                // From the newest loss on: a client that comes back has mostly seen what is lost.
                let mut lost = self.topics_by_loss.iter().rev().take_while(|(id, _)| **id > after);
                lost.find(|(_, topic)| topics.match_topic(topic)).map(|(id, _)| *id)
            }
            Topics::Some(names) => {
                names.iter().filter_map(|name| self.lost.get(name).copied()).max()
            }
        };
        lost.unwrap_or(self.floor).max(self.floor)
    }

    /// Whether `id`, which is not above the newest, was never given to an event as far as can be told here.
    fn is_hole(&self, id: EventId) -> bool {
        let behind = self.events.range((Excluded(id), Unbounded)).next();
        behind.is_some_and(|(_, entry)| entry.before < id)
    }

    /// The newest event of each of these topics, oldest first.
    fn latest(&self, topics: &Topics) -> Vec<Arc<Event>> {
        let matching = self.latest.iter().filter(|(topic, _)| topics.match_topic(topic));
        let mut ids: Vec<EventId> = matching.map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.events.get(id)).map(|e| Arc::clone(&e.event)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Draft;
    use crate::store::replay::Replay;

    fn id(millis: u64) -> EventId {
        EventId { millis, sequence: 0 }
    }

    fn push(window: &Window, millis: u64, topic: &str) {
        let draft = Draft::new(topic, None, "x").unwrap();
        window.push(Arc::new(Event::new(id(millis), draft)));
    }

    fn window(capacity: usize, topics: &[&str]) -> Arc<Window> {
        let window = Arc::new(Window::new(capacity, Vec::new()));
        window.gap(id(100));
        for (number, topic) in topics.iter().enumerate() {
            push(&window, 101 + number as u64, topic);
        }
        window
    }

    /// The id of the gap, if there is one, and those of the events.
    fn replay(window: &Arc<Window>, last: LastSeen, topics: &Topics) -> (Option<u64>, Vec<u64>) {
        let mut replay = Replay::new(window, last, topics, Topics::named([]));
        let all: Vec<_> = std::iter::from_fn(|| replay.next_batch()).flatten().collect();
        assert!(all.is_sorted_by_key(|event| event.id), "a client's ids rise: {all:?}");
        let (gaps, events): (Vec<_>, Vec<_>) = all.into_iter().partition(|event| event.is_gap());
        assert!(gaps.len() <= 1);
        (gaps.first().map(|gap| gap.id.millis), events.iter().map(|e| e.id.millis).collect())
    }

    fn after(window: &Arc<Window>, last: u64, topics: &Topics) -> (Option<u64>, Vec<u64>) {
        replay(window, LastSeen::Event(id(last)), topics)
    }

    #[test]
    fn replays_exactly_what_came_after() {
        let window = window(10, &["a", "b", "a"]);
        assert_eq!(after(&window, 101, &Topics::All), (None, vec![102, 103]));
        assert_eq!(after(&window, 103, &Topics::All), (None, vec![]));
        assert_eq!(after(&window, 100, &Topics::named(["a"])), (None, vec![101, 103]));
        assert_eq!(replay(&window, LastSeen::Nothing, &Topics::All), (None, vec![]));
    }

    #[test]
    fn a_replay_of_many_events_is_read_in_batches_and_ends_where_the_live_events_begin() {
        let window = window(10_000, &["a"; 2 * BATCH + 1]);
        let mut replay =
            Replay::new(&window, LastSeen::Event(id(100)), &Topics::All, Topics::named([]));
        push(&window, 10_000, "a");
        let batches: Vec<usize> =
            std::iter::from_fn(|| replay.next_batch()).map(|batch| batch.len()).collect();
        assert_eq!(batches, [BATCH, BATCH, 1]);
    }

    #[test]
    fn what_is_kept_when_a_client_comes_it_gets_and_what_comes_later_is_no_gap() {
        let window = window(1, &["b", "a"]);
        let topics = Topics::named(["a"]);
        let begin =
            |last| Replay::new(&window, LastSeen::Event(id(last)), &topics, Topics::named([]));
        let (mut missed, mut nothing) = (begin(101), begin(102));
        push(&window, 200, "a");
        push(&window, 201, "a");
        assert_eq!(missed.next_batch().unwrap()[0].id, id(102));
        assert!(missed.next_batch().is_none() && nothing.next_batch().is_none());
    }

    #[test]
    fn what_is_lost_while_a_replay_is_read_is_a_gap() {
        let window = window(2 * BATCH, &["a"; 2 * BATCH]);
        let last = LastSeen::Event(id(100));
        let mut replay = Replay::new(&window, last, &Topics::All, Topics::named([]));
        assert_eq!(replay.next_batch().unwrap().len(), BATCH);
        for number in 0..BATCH as u64 + 10 {
            push(&window, 10_000 + number, "a");
        }
        let rest = replay.next_batch().unwrap();
        let lost = 100 + BATCH as u64 + 10;
        assert!(rest[0].is_gap());
        assert_eq!((rest[0].id, rest[1].id, rest.len()), (id(lost), id(lost + 1), BATCH - 9));
    }

    #[test]
    fn tells_of_a_gap_and_replays_the_rest() {
        let window = window(2, &["a", "a", "a", "a"]);
        assert_eq!(after(&window, 101, &Topics::All), (Some(102), vec![103, 104]));
        // 102 is lost, but was seen.
        assert_eq!(after(&window, 102, &Topics::All), (None, vec![103, 104]));
    }

    #[test]
    fn an_id_that_exists_nowhere_is_a_gap() {
        let window = window(10, &["a"]);
        assert_eq!(after(&window, 50, &Topics::All), (Some(100), vec![101]), "an earlier run");
        assert_eq!(after(&window, 900, &Topics::All), (Some(101), vec![]), "the future");
        push(&window, 110, "a");
        assert_eq!(after(&window, 105, &Topics::All), (Some(110), vec![]), "between two events");
        assert_eq!(replay(&window, LastSeen::Unknown, &Topics::All), (Some(110), vec![]));
    }

    #[test]
    fn a_gap_concerns_whoever_has_seen_less() {
        let window = window(10, &["a"]);
        window.gap(id(200));
        push(&window, 201, "b");
        for topics in [Topics::All, Topics::named(["b"])] {
            assert_eq!(after(&window, 101, &topics), (Some(200), vec![201]));
            assert_eq!(after(&window, 200, &topics), (None, vec![201]));
        }
        assert_eq!(after(&window, 100, &Topics::named(["a"])), (Some(200), vec![101]));
    }

    #[test]
    fn losses_of_other_topics_are_no_gap() {
        let window = window(2, &["noise", "chat", "noise", "noise", "noise"]);
        assert_eq!(after(&window, 101, &Topics::named(["noise"])), (Some(103), vec![104, 105]));
        assert_eq!(after(&window, 102, &Topics::named(["chat"])), (None, vec![]));
        assert_eq!(after(&window, 101, &Topics::named(["chat"])), (Some(102), vec![]));
    }

    #[test]
    fn the_oldest_losses_are_forgotten_on_the_safe_side() {
        let names: Vec<String> = (0..2 * MAX_TOPICS).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let window = window(1, &names);
        {
            let kept = window.kept();
            assert_eq!((kept.lost.len(), kept.topics_by_loss.len()), (MAX_TOPICS, MAX_TOPICS));
        }
        let gap = |last, topic| after(&window, last, &Topics::named([topic])).0;
        // All are lost but the last, and it is known of the later half.
        let forgotten = 100 + names.len() as u64 - 1 - MAX_TOPICS as u64;
        assert_eq!(gap(101, "0"), Some(forgotten));
        assert_eq!(gap(forgotten - 1, "quiet"), Some(forgotten), "it may have been one of those");
        assert_eq!(gap(forgotten, "quiet"), None);
        assert_eq!(gap(forgotten, names[MAX_TOPICS]), Some(101 + MAX_TOPICS as u64));
    }

    #[test]
    fn a_topic_with_a_limit_keeps_its_events_whatever_the_others_publish() {
        let limit = |pattern: &str, events| TopicLimit { pattern: pattern.to_owned(), events };
        let limits = vec![limit("gauge/*", 1), limit("gauge/fine", 2)];
        let window = Arc::new(Window::new(3, limits));
        window.gap(id(100));
        let topics = ["gauge/a", "gauge/b", "gauge/a", "gauge/fine", "gauge/fine", "gauge/fine"];
        for (number, topic) in topics.into_iter().chain(["noise"; 10]).enumerate() {
            push(&window, 101 + number as u64, topic);
        }
        let earliest = |name| replay(&window, LastSeen::Earliest, &Topics::named([name]));
        assert_eq!(earliest("gauge/a"), (None, vec![103]));
        assert_eq!(earliest("gauge/b"), (None, vec![102]));
        assert_eq!(earliest("gauge/fine"), (None, vec![105, 106]));
        assert_eq!(earliest("noise"), (None, vec![114, 115, 116]));
        assert_eq!(earliest("gauge/*"), (None, vec![102, 103, 105, 106]), "all that is kept");
        assert_eq!(
            after(&window, 102, &Topics::named(["gauge/*"])),
            (Some(104), vec![103, 105, 106])
        );
        assert_eq!(after(&window, 104, &Topics::named(["gauge/*"])), (None, vec![105, 106]));
        assert_eq!(after(&window, 101, &Topics::named(["gauge/a"])), (None, vec![103]));
        assert_eq!(after(&window, 100, &Topics::named(["gauge/a"])), (Some(101), vec![103]));
        let latest = replay(&window, LastSeen::Latest, &Topics::All);
        assert_eq!(latest, (None, vec![102, 103, 106, 116]));
    }

    #[test]
    fn a_gap_is_told_once_though_older_events_follow() {
        let limits = vec![TopicLimit { pattern: "gauge".to_owned(), events: 1 }];
        let window = Arc::new(Window::new(10_000, limits));
        window.gap(id(100));
        for number in 0..3 * BATCH as u64 {
            push(&window, 101 + number, "log");
        }
        push(&window, 10_001, "gauge");
        push(&window, 10_002, "gauge");
        // The function fails where there is more than one.
        let (gap, events) = after(&window, 101, &Topics::All);
        assert_eq!((gap, events.len()), (Some(10_001), 3 * BATCH));
        let (gap, events) = replay(&window, LastSeen::Earliest, &Topics::All);
        assert_eq!((gap, events.len()), (None, 3 * BATCH + 1));
    }

    #[test]
    fn the_windows_memory_is_bounded() {
        let limits = vec![TopicLimit { pattern: "*".to_owned(), events: 100 }];
        let window = Arc::new(Window::new(1_000, limits));
        window.gap(id(100));
        let large = "x".repeat(MAX_BYTES / 16);
        for number in 0..20 {
            let draft = Draft::new(&format!("topic {number}"), None, &large).unwrap();
            window.push(Arc::new(Event::new(id(101 + number), draft)));
        }
        let kept = window.kept();
        assert!(kept.bytes <= MAX_BYTES && kept.events.len() >= 4, "{} bytes", kept.bytes);
        let counts = (kept.latest.len(), kept.own.values().map(VecDeque::len).sum::<usize>());
        assert_eq!(counts, (kept.events.len(), kept.events.len()));
    }
}
