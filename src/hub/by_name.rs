//! Something for each name that clients are subscribed to: a topic's, or a pattern's (see
//! [`topics`](crate::event::topics)).

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::topics::{prefix_of, prefixes};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct ByName<T> {
    to_topic: HashMap<Arc<str>, T>,
    /// By what is in front of the `*`: so a topic finds its patterns by parts of itself.
    to_prefix: HashMap<Arc<str>, T>,
}

impl<T: Default> ByName<T> {
    /// Changes what belongs to `name`, which is the default at first, and forgotten where it is `is_empty`.
    pub fn update(
        &mut self,
        name: &Arc<str>,
        change: impl FnOnce(&mut T),
        is_empty: impl FnOnce(&T) -> bool,
    ) {
        let (map, key) = match prefix_of(name) {
            Some(prefix) => (&mut self.to_prefix, Arc::from(prefix)),
            None => (&mut self.to_topic, Arc::clone(name)),
        };
        let value = map.entry(Arc::clone(&key)).or_default();
        change(value);
        if is_empty(value) {
            map.remove(&key);
        }
    }

    /// What belongs to a name.
    pub fn get(&self, name: &str) -> Option<&T> {
        match prefix_of(name) {
            Some(prefix) => self.to_prefix.get(prefix),
            None => self.to_topic.get(name),
        }
    }

    /// What belongs to the names that stand for `topic`. For a topic without a slash that is one look-up.
    pub fn matching(&self, topic: &str) -> impl Iterator<Item = &T> {
        let nested = if self.to_prefix.is_empty() { "" } else { topic };
        // `prefixes` borrows from the topic, what is found from here.
        let patterns = prefixes(nested).filter_map(|prefix| self.to_prefix.get(prefix));
        self.to_topic.get(topic).into_iter().chain(patterns)
    }

    /// All names, and what belongs to them.
    pub fn iter(&self) -> impl Iterator<Item = (String, &T)> {
        let topics = self.to_topic.iter().map(|(topic, value)| (topic.to_string(), value));
        let patterns = self.to_prefix.iter().map(|(prefix, value)| (format!("{prefix}*"), value));
        topics.chain(patterns)
    }

    /// What belongs to all names.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.to_topic.values().chain(self.to_prefix.values())
    }
}
