//! Which topics a client wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::ALL_TOPICS;

/// Which topics a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Every topic.
    All,
    /// These, in order and each once: made by [`Topics::named`].
    Some(Arc<[Arc<str>]>),
}

impl Topics {
    /// The topics of these names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Topics {
        let names: BTreeSet<&str> = names.into_iter().collect();
        Topics::Some(names.into_iter().map(Arc::from).collect())
    }

    /// The topics that a client names: all of them where [`ALL_TOPICS`] is among the names.
    pub fn asked_for(names: &BTreeSet<String>) -> Topics {
        match names.contains(ALL_TOPICS) {
            true => Topics::All,
            false => Topics::named(names.iter().map(String::as_str)),
        }
    }

    /// Whether an event on `topic` is wanted.
    pub fn match_topic(&self, topic: &str) -> bool {
        match self {
            Topics::All => true,
            // A replay asks for every event that is kept.
            Topics::Some(names) => names.binary_search_by(|name| (**name).cmp(topic)).is_ok(),
        }
    }

    /// What stands here and does not stand in `other`. `All` is one entry among others: it is not
    /// taken apart into names.
    pub(crate) fn without(&self, other: &Topics) -> Topics {
        match (self, other) {
            (Topics::All, Topics::All) => Topics::named([]),
            (Topics::Some(names), Topics::Some(_)) => {
                let left = names.iter().filter(|name| !other.match_topic(name));
                Topics::Some(left.cloned().collect())
            }
            _ => self.clone(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Topics::Some(names) if names.is_empty())
    }
}

/// Whether `pattern` stands for `topic`: it is the same, or `*`, or ends in `/*` and the topic begins with what
/// is before the `*`.
pub fn is_covered(topic: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.is_empty() || prefix.ends_with('/') => topic.starts_with(prefix),
        _ => topic == pattern,
    }
}
