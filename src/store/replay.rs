//! What a client gets that comes back, read from the window a batch at a time.

use std::sync::Arc;

use super::window::{Batch, Beginning, Window};
use crate::event::encoding::Encoding;
use crate::event::last_seen::LastSeen;
use crate::event::payload::{Payload, batches};
use crate::event::topics::Topics;
use crate::event::{Event, EventId};

/// What a client gets that subscribes: an event `gap`, if something is missing, then what it missed, oldest
/// first.
#[derive(Debug)]
pub struct Replay {
    seen: Option<EventId>,
    /// What has been read, and not been taken.
    ready: Vec<Arc<Event>>,
    rest: Option<Rest>,
}

/// What has still to be read.
#[derive(Debug)]
struct Rest {
    window: Arc<Window>,
    topics: Topics,
    /// Topics whose events the client has.
    except: Topics,
    after: EventId,
    until: EventId,
    /// Up to which id the client knows of losses, or has not asked.
    told: EventId,
}

impl Replay {
    /// What a client with these topics missed that gets live events from behind the newest id on, but nothing on
    /// the topics of `except`. To be called while nothing is pushed.
    pub fn new(window: &Arc<Window>, last: LastSeen, topics: &Topics, except: Topics) -> Replay {
        match last {
            // Most clients: nothing is read.
            LastSeen::Nothing => Replay { seen: Some(window.newest()), ..Replay::nothing() },
            last => Replay::begin(window, last, topics, except),
        }
    }

    // Not inlined: the thread of a new client would touch a page more of its stack, which then stays resident.
    #[inline(never)]
    fn begin(window: &Arc<Window>, last: LastSeen, topics: &Topics, except: Topics) -> Replay {
        let Beginning { seen, first, until, told } = window.begin(last, topics);
        let (window, topics, after) = (Arc::clone(window), topics.clone(), until);
        let rest = Some(Rest { window, topics, except, after, until, told });
        let mut replay = Replay { seen, ready: Vec::new(), rest };
        replay.take_in(first);
        replay
    }

    /// No event, and no gap.
    pub fn nothing() -> Replay {
        Replay { seen: None, ready: Vec::new(), rest: None }
    }

    /// Up to where the client has seen everything before this replay: what it comes back with if the replay
    /// does not reach it. `None` where that is not known.
    pub fn seen(&self) -> Option<EventId> {
        self.seen
    }

    /// The next events, or an event `gap` and the next events. `None` at the end.
    pub fn next_batch(&mut self) -> Option<Vec<Arc<Event>>> {
        while self.ready.is_empty() {
            let Rest { window, topics, after, until, told, .. } = self.rest.as_ref()?;
            let batch = window.read(*after, *until, *told, topics);
            self.take_in(batch);
        }
        Some(std::mem::take(&mut self.ready))
    }

    fn take_in(&mut self, batch: Batch) {
        let Some(rest) = &mut self.rest else { return };
        // Also in the middle: the window may lose events while a slow client takes the first ones.
        if let Some(resumed) = batch.gap {
            rest.told = resumed;
            self.ready.push(Arc::new(Event::gap(resumed)));
        }
        let is_new = |event: &Arc<Event>| !rest.except.match_topic(&event.topic);
        self.ready.extend(batch.events.into_iter().filter(is_new));
        match batch.next {
            Some(next) => rest.after = next,
            None => self.rest = None,
        }
    }

    /// The replay as a client gets it.
    pub fn payloads(&mut self, encoding: Encoding) -> impl Iterator<Item = Payload> {
        std::iter::from_fn(|| self.next_batch()).flat_map(move |events| {
            let (gaps, events): (Vec<_>, Vec<_>) =
                events.into_iter().partition(|event| event.is_gap());
            // Not counted as an event: it was published by nobody.
            let gaps = gaps.into_iter().map(|gap| Payload::own(Arc::clone(gap.encoded(encoding))));
            let events: Vec<_> =
                batches(&events).map(|events| Payload::of(events, encoding)).collect();
            gaps.chain(events).collect::<Vec<_>>()
        })
    }
}
