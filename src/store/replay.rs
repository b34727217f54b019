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
    except: Option<Topics>,
    after: EventId,
    until: EventId,
    /// Up to which id the client knows of losses, or has not asked.
    told: EventId,
}

impl Replay {
    /// What a client with these topics missed that gets live events from behind `until` on.
    pub fn new(window: &Arc<Window>, last: LastSeen, until: EventId, topics: &Topics) -> Replay {
        match last {
            // It comes back with the newest id, and misses nothing in between.
            LastSeen::Nothing => Replay { seen: Some(until), ready: Vec::new(), rest: None },
            last => Replay::begin(window, last, until, topics),
        }
    }

    // Not inlined: a new client's thread does not touch so much of its stack.
    #[inline(never)]
    fn begin(window: &Arc<Window>, last: LastSeen, until: EventId, topics: &Topics) -> Replay {
        let rest = |after, told| {
            let (window, topics) = (Arc::clone(window), topics.clone());
            Some(Rest { window, topics, except: None, after, until, told })
        };
        match window.begin(last, until, topics) {
            Beginning::After(after) => {
                Replay { seen: Some(after), ready: Vec::new(), rest: rest(after, after) }
            }
            // A client that gets none of the events comes back as it came.
            Beginning::Kept(told) => {
                Replay { seen: None, ready: Vec::new(), rest: rest(EventId::default(), told) }
            }
            Beginning::Gap(resumed) => {
                Replay { seen: None, ready: vec![Arc::new(Event::gap(resumed))], rest: None }
            }
            // With an id above those of the events the client would come back as if it had seen them.
            Beginning::With(events) => Replay { seen: None, ready: events, rest: None },
        }
    }

    /// No event, and no gap.
    pub fn nothing() -> Replay {
        Replay { seen: None, ready: Vec::new(), rest: None }
    }

    /// Leaves out the events of these topics.
    pub fn without(mut self, topics: Topics) -> Replay {
        self.ready.retain(|event| event.is_gap() || !topics.match_topic(&event.topic));
        if let Some(rest) = &mut self.rest {
            rest.except = Some(topics);
        }
        self
    }

    /// Up to where the client has seen everything before this replay: what it comes back with if the replay
    /// does not reach it. `None` where that is not known.
    pub fn seen(&self) -> Option<EventId> {
        self.seen
    }

    /// The next events, or an event `gap` and the next events. `None` at the end.
    pub fn next_batch(&mut self) -> Option<Vec<Arc<Event>>> {
        loop {
            if !self.ready.is_empty() {
                return Some(std::mem::take(&mut self.ready));
            }
            let rest = self.rest.as_mut()?;
            let Batch { gap, events, next } =
                rest.window.read(rest.after, rest.until, rest.told, &rest.topics);
            // Also in the middle: the window may lose events while a slow client takes the first ones.
            rest.told = gap.unwrap_or(rest.told);
            self.ready.extend(gap.map(|resumed| Arc::new(Event::gap(resumed))));
            let is_new = |event: &Arc<Event>| {
                rest.except.as_ref().is_none_or(|except| !except.match_topic(&event.topic))
            };
            self.ready.extend(events.into_iter().filter(is_new));
            match next {
                Some(next) => rest.after = next,
                None => self.rest = None,
            }
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
