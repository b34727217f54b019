//! What the entries of the stream say, and the proof that none was skipped.

use std::sync::Arc;

use crate::event::topics::ALL_TOPICS;
use crate::event::{Draft, Event, EventId};
use crate::store::delivery::Delivery;

/// What an entry holds: names and values in turn.
pub type Content = Vec<Vec<u8>>;

/// An entry of the stream.
pub type Entry = (EventId, Content);

/// Follows the stream from entry to entry. Each names the id of the one before it: where that is not the one
/// that was read last, something in between was trimmed or deleted, or another history took its place.
#[derive(Debug)]
pub struct Chain {
    /// The id of the entry that was read last.
    last: EventId,
    /// What that entry held, to notice that another one has taken its place.
    content: Content,
    /// Set where what was read last is not what the stream holds there.
    is_broken: bool,
    needs_marker: bool,
    has_warned: bool,
}

/// What an entry means.
enum Meaning {
    Event(Draft),
    /// Ids would have fallen without it.
    Marker,
    /// Something that others have written.
    Unknown,
}

impl Chain {
    /// Begins behind the entry `last`.
    pub fn after(last: EventId) -> Chain {
        Chain {
            last,
            content: Vec::new(),
            is_broken: false,
            needs_marker: false,
            has_warned: false,
        }
    }

    /// The id of the entry that was read last.
    pub fn last(&self) -> EventId {
        self.last
    }

    /// Compares the entry that was read last with what the stream holds at its place. After a failover it may be
    /// another one with the same id.
    pub fn compare(&mut self, content: &[Vec<u8>]) {
        self.is_broken |= !self.content.is_empty() && content != self.content;
    }

    /// Whether the stream has lost entries that others may not know of, and no marker has come that tells them.
    pub fn needs_marker(&self) -> bool {
        self.needs_marker
    }

    /// What the next entry delivers. `None` where its id is not above the last one. `lost` is the newest entry
    /// since the last one that is known to be missing.
    pub fn next(&mut self, (id, content): Entry, lost: Option<EventId>) -> Option<Vec<Delivery>> {
        if id <= self.last {
            return None;
        }
        // What others add with a plain XADD proves nothing, and is believed.
        let before = id_before(&content).unwrap_or(self.last);
        // Above all that was delivered, and below this entry's id, so that a client that reads no further than
        // the gap still gets the entry.
        let meaning = meaning_of(&content);
        let gap = match meaning {
            Meaning::Marker => Some(id),
            _ if before == self.last && !self.is_broken => None,
            _ if before > self.last && before < id => Some(before),
            // Of two ids without one in between: the entry itself is what is lost.
            _ => Some(self.last.successor().min(id)),
        }
        .max(lost);
        // What is missing before an entry that is far behind was only trimmed.
        let is_rewritten =
            before < self.last || self.is_broken || (before == self.last && lost.is_some());
        self.needs_marker =
            !matches!(meaning, Meaning::Marker) && (self.needs_marker || is_rewritten);
        let mut delivered: Vec<Delivery> = gap.map(Delivery::Gap).into_iter().collect();
        match meaning {
            Meaning::Event(draft) if gap != Some(id) => {
                delivered.push(Delivery::Event(Arc::new(Event::new(id, draft))));
            }
            Meaning::Unknown if !self.has_warned => {
                self.has_warned = true;
                log::warn!(
                    "entry {id} of the Redis stream is no event: it needs topic and data; such are skipped"
                );
            }
            _ => {}
        }
        (self.last, self.content, self.is_broken) = (id, content, false);
        Some(delivered)
    }
}

/// The id of the entry before this one, if it says so.
pub fn id_before(content: &[Vec<u8>]) -> Option<EventId> {
    field(content, &["p"])?.parse().ok()
}

fn meaning_of(content: &[Vec<u8>]) -> Meaning {
    if field(content, &["reset"]).is_some() {
        return Meaning::Marker;
    }
    let topic = field(content, &["t", "topic"]).filter(|topic| *topic != ALL_TOPICS);
    let (Some(topic), Some(data)) = (topic, field(content, &["d", "data"])) else {
        return Meaning::Unknown;
    };
    match Draft::new(topic, field(content, &["e", "event"]), data) {
        Ok(draft) => Meaning::Event(draft),
        Err(_) => Meaning::Unknown,
    }
}

/// The first field of one of these names.
fn field<'a>(content: &'a [Vec<u8>], names: &[&str]) -> Option<&'a str> {
    let is_named = |pair: &&'a [Vec<u8>]| names.iter().any(|name| name.as_bytes() == pair[0]);
    let pair = content.chunks_exact(2).find(is_named)?;
    std::str::from_utf8(&pair[1]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> EventId {
        text.parse().unwrap()
    }

    fn entry(id: &str, fields: &[&str]) -> Entry {
        (id.parse().unwrap(), fields.iter().map(|field| field.as_bytes().to_vec()).collect())
    }

    fn next(chain: &mut Chain, entry: Entry) -> String {
        let found = chain.next(entry, None).unwrap();
        let text = found.iter().map(|one| match one {
            Delivery::Event(event) => format!("{} {}", event.id, event.data()),
            Delivery::Gap(id) => format!("gap {id}"),
        });
        text.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn an_entry_that_names_the_one_before_it_proves_that_nothing_is_missing() {
        let mut chain = Chain::after(id("5-0"));
        assert_eq!(next(&mut chain, entry("6-0", &["p", "5-0", "t", "a", "d", "x"])), "6-0 x");
        assert_eq!(next(&mut chain, entry("6-1", &["p", "6-0", "t", "a", "d", "y"])), "6-1 y");
        // Up to 7-0 something was trimmed.
        let behind = entry("8-0", &["p", "7-0", "t", "a", "d", "z"]);
        assert_eq!(next(&mut chain, behind), "gap 7-0, 8-0 z");
    }

    #[test]
    fn a_gap_is_above_all_before_and_below_the_entry_behind_it() {
        for (before, now, expected) in [
            // The stream was deleted, or lost its end.
            ("0-0", "8-0", "gap 5-8, 8-0 z"),
            ("5-6", "8-0", "gap 5-8, 8-0 z"),
            // Nothing is in between but the entry itself: whoever reads the gap knows that it is lost.
            ("5-6", "5-8", "gap 5-8"),
            // Nonsense.
            ("9-0", "8-0", "gap 5-8, 8-0 z"),
        ] {
            let mut chain = Chain::after(id("5-7"));
            let entry = entry(now, &["p", before, "t", "a", "d", "z"]);
            assert_eq!(next(&mut chain, entry), expected, "{before} before {now}");
            assert_eq!(chain.last(), id(now));
        }
    }

    #[test]
    fn a_marker_is_a_gap_whatever_it_follows() {
        for before in ["0-0", "5-7"] {
            let mut chain = Chain::after(id("5-7"));
            assert_eq!(next(&mut chain, entry("9-0", &["p", before, "reset", "5-7"])), "gap 9-0");
            let behind = entry("9-1", &["p", "9-0", "t", "a", "d", "x"]);
            assert_eq!(next(&mut chain, behind), "9-1 x");
        }
    }

    #[test]
    fn others_are_told_of_what_is_gone_but_not_of_what_was_trimmed() {
        let [none, before_6, at_5] = [None, Some(id("5-8")), Some(id("5-9"))];
        for (before, lost, gap, needs_marker) in [
            ("5-7", none, None, false),
            ("5-7", before_6, before_6, true),
            ("5-3", none, before_6, true),
            ("5-3", at_5, at_5, true),
            ("5-10", at_5, Some(id("5-10")), false),
        ] {
            let mut chain = Chain::after(id("5-7"));
            let found = chain.next(entry("6-0", &["p", before, "t", "a", "d", "x"]), lost).unwrap();
            let told = match found[0] {
                Delivery::Gap(id) => Some(id),
                Delivery::Event(_) => None,
            };
            assert_eq!((told, chain.needs_marker()), (gap, needs_marker), "{before} {lost:?}");
            next(&mut chain, entry("7-0", &["p", "6-0", "reset", "6-0"]));
            assert!(!chain.needs_marker());
        }
    }

    #[test]
    fn what_others_add_is_an_event_if_it_looks_like_one() {
        let mut chain = Chain::after(id("5-0"));
        let foreign = entry("6-0", &["event", "e", "data", "x", "topic", "a"]);
        assert_eq!(next(&mut chain, foreign), "6-0 x");
        for fields in
            [&["a", "b"][..], &["t", "*", "d", "x"], &["t", "", "d", "x"], &["t", "a\n", "d", "x"]]
        {
            let mut chain = Chain::after(id("6-0"));
            assert_eq!(next(&mut chain, entry("7-0", fields)), "");
            // It is the entry before, all the same.
            assert_eq!(chain.last(), id("7-0"));
        }
        assert!(chain.next(entry("6-0", &[]), None).is_none(), "ids only rise");
    }

    #[test]
    fn another_entry_with_the_same_id_is_a_gap_before_the_next_one() {
        let content = |data: &str| entry("6-0", &["p", "5-0", "t", "a", "d", data]);
        let behind = || entry("7-0", &["p", "6-0", "t", "a", "d", "z"]);
        for (there, expected) in [("x", "7-0 z"), ("other", "gap 6-1, 7-0 z")] {
            let mut chain = Chain::after(id("5-0"));
            chain.next(content("x"), None).unwrap();
            chain.compare(&content(there).1);
            assert_eq!(next(&mut chain, behind()), expected);
        }
    }
}
