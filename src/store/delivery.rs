//! What comes out of a store, in the order of ids.

use std::sync::Arc;

use crate::event::{Event, EventId};

/// What a store delivers.
#[derive(Debug)]
pub enum Delivery {
    /// The next event.
    Event(Arc<Event>),
    /// Events before this id may be lost: whoever has seen less is told of a gap. The id is above all before
    /// it.
    Gap(EventId),
}

/// Takes what a store delivers. It may wait where a broadcaster is behind.
pub type Deliver = Arc<dyn Fn(Delivery) + Send + Sync>;
