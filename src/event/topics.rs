//! Which topics a client wants, and the names that stand for several: `sensors/*` for all topics that begin
//! with `sensors/`, `*` for all. Elsewhere than at the end, or behind another letter, `*` stands for itself.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Stands for all topics where one subscribes. Nothing is published on it.
pub const ALL_TOPICS: &str = "*";

/// Which topics a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Every topic.
    All,
    /// These names, some of which may be patterns: in order, each once, and none that a pattern among them
    /// covers. Made by [`Topics::named`].
    Some(Arc<[Arc<str>]>),
}

impl Topics {
    /// The topics of these names: all where [`ALL_TOPICS`] is among them. A name that another one covers is
    /// left out: nothing is to be delivered, or counted, twice.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Topics {
        let names: BTreeSet<&str> = names.into_iter().collect();
        if names.contains(ALL_TOPICS) {
            return Topics::All;
        }
        let patterns: BTreeSet<&str> = names.iter().filter_map(|name| prefix_of(name)).collect();
        let is_covered = |name: &str| {
            prefixes(name).any(|one| prefix_of(name) != Some(one) && patterns.contains(one))
        };
        let left = names.into_iter().filter(|name| !is_covered(name));
        Topics::Some(left.map(Arc::from).collect())
    }

    /// The same.
    // Not inlined: its frame would be below every idle client's.
    #[inline(never)]
    pub fn asked_for<'a>(names: impl IntoIterator<Item = &'a String>) -> Topics {
        Topics::named(names.into_iter().map(String::as_str))
    }

    /// Whether an event on `topic` is wanted.
    pub fn match_topic(&self, topic: &str) -> bool {
        match self {
            Topics::All => true,
            // A replay asks for every event that is kept.
            Topics::Some(names) => {
                names.binary_search_by(|name| (**name).cmp(topic)).is_ok()
                    || prefixes(topic).any(|prefix| is_there(names, prefix))
            }
        }
    }

    /// The names that stand here and not in `other`. They are names of a subscription, not sets of topics: `All`,
    /// or a pattern, is not taken apart into what it covers.
    pub(crate) fn without(&self, other: &Topics) -> Topics {
        match (self, other) {
            (Topics::All, Topics::All) => Topics::named([]),
            (Topics::Some(names), Topics::Some(others)) => {
                let left = names.iter().filter(|name| others.binary_search(name).is_err());
                Topics::Some(left.cloned().collect())
            }
            _ => self.clone(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Topics::Some(names) if names.is_empty())
    }
}

/// Whether the pattern of this prefix is among sorted names.
fn is_there(names: &[Arc<str>], prefix: &str) -> bool {
    let pattern = || prefix.bytes().chain([b'*']);
    names.binary_search_by(|name| name.bytes().cmp(pattern())).is_ok()
}

/// How all topics begin that `name` stands for, if it is a pattern: `sensors/` for `sensors/*`, nothing for
/// `*`.
pub fn prefix_of(name: &str) -> Option<&str> {
    name.strip_suffix('*').filter(|prefix| prefix.is_empty() || prefix.ends_with('/'))
}

/// The prefixes of patterns that cover `name`, but for `*`: `a/` and `a/b/` for `a/b/c`.
pub fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(place, _)| &name[..=place])
}

/// Whether `pattern` stands for `topic`: it is the same, or a pattern that covers it.
pub fn is_covered(topic: &str, pattern: &str) -> bool {
    prefix_of(pattern).map_or(topic == pattern, |prefix| topic.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(topics: &Topics) -> Vec<&str> {
        match topics {
            Topics::All => vec!["*"],
            Topics::Some(names) => names.iter().map(|name| &**name).collect(),
        }
    }

    #[test]
    fn a_pattern_ends_in_a_slash_and_a_star() {
        for (name, prefix) in [("*", ""), ("a/*", "a/"), ("/*", "/"), ("a/*/*", "a/*/")] {
            assert_eq!(prefix_of(name), Some(prefix), "{name}");
        }
        for name in ["", "a", "a*", "a/", "*/a", "a/*b", "**"] {
            assert_eq!(prefix_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_pattern_covers_what_begins_as_it_does() {
        let topics = Topics::named(["b", "sensors/*", "a/b"]);
        for wanted in ["b", "a/b", "sensors/", "sensors/1", "sensors/1/x", "sensors//"] {
            assert!(topics.match_topic(wanted), "{wanted}");
        }
        for other in ["", "a", "a/", "a/b/c", "sensors", "sensor/1", "/sensors/1", "b/"] {
            assert!(!topics.match_topic(other), "{other}");
        }
    }

    #[test]
    fn what_another_name_covers_is_left_out() {
        let topics = Topics::named(["a/*", "a/b", "a/b/*", "a", "ab", "a/*"]);
        assert_eq!(names(&topics), ["a", "a/*", "ab"]);
        assert_eq!(Topics::named(["a", "*", "b/*"]), Topics::All);
        let narrower = Topics::named(["a/b"]);
        assert_eq!(names(&topics.without(&narrower)), ["a", "a/*", "ab"]);
        assert_eq!(names(&narrower.without(&topics)), ["a/b"]);
        assert!(topics.without(&topics).is_empty());
    }

    fn name() -> impl Strategy<Value = String> {
        "[ab/]{1,5}(\\*|/\\*)?|\\*"
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn topics_match_what_one_of_their_names_covers_and_no_two_cover_the_same(
            all in proptest::collection::vec(name(), 0..6), topic in "[ab/]{1,6}",
        ) {
            let topics = Topics::named(all.iter().map(String::as_str));
            let is_wanted = all.iter().any(|name| is_covered(&topic, name));
            prop_assert_eq!(topics.match_topic(&topic), is_wanted);
            let covering = names(&topics).into_iter().filter(|name| is_covered(&topic, name));
            prop_assert_eq!(covering.count(), usize::from(is_wanted));
        }
    }
}
