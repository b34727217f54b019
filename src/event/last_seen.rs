//! What a client has seen of the events before it connects.

use super::EventId;

/// What a client says it has seen last, or what it wants to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastSeen {
    /// It is new: nothing is replayed.
    Nothing,
    /// Everything up to this id.
    Event(EventId),
    /// Something that is no id of ours: a gap.
    Unknown,
    /// It is new, and wants everything that is kept.
    Earliest,
    /// It is new, and wants the newest event of each of its topics at once: a gauge shows its value.
    Latest,
}

impl LastSeen {
    /// What a client means by `text`: the id of the last event it has seen, `earliest`, `latest`, or
    /// nothing.
    pub fn parse(text: Option<&str>) -> LastSeen {
        match text {
            None | Some("") => LastSeen::Nothing,
            Some("earliest") => LastSeen::Earliest,
            Some("latest") => LastSeen::Latest,
            Some(text) => text.parse().map_or(LastSeen::Unknown, LastSeen::Event),
        }
    }
}
