//! What clients of the hub must get, in a few dozen lines that know nothing of how it is done: a
//! list of everything published, and for each client the list of what it is still to be told.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use threadcast::event::EventId;

/// The topics that are used.
pub const TOPICS: [&str; 3] = ["red", "green", "blue"];

/// An event, as it was published.
#[derive(Debug)]
pub struct Published {
    /// The id in the publisher's receipt.
    pub id: EventId,
    /// Its topic, by number.
    pub topic: usize,
    /// Its name.
    pub name: Option<String>,
    /// Its data.
    pub data: String,
}

/// What a client says when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Last {
    /// It is new.
    Nothing,
    /// It has seen everything up to here.
    Id(EventId),
    /// Something that is no id of this server's, or one from the future.
    Strange(String),
}

impl Last {
    /// As it goes over the wire.
    pub fn text(&self) -> Option<String> {
        match self {
            Last::Nothing => None,
            Last::Id(id) => Some(id.to_string()),
            Last::Strange(text) => Some(text.clone()),
        }
    }
}

/// What a client is to be told next.
#[derive(Debug, Clone)]
pub enum Due {
    /// That events are missing: all up to the id, which is at least `lost` where that is known,
    /// and below that of whatever follows.
    Gap { lost: Option<EventId> },
    /// An event.
    Event(Arc<Published>),
}

/// All that was published since the server started.
#[derive(Debug, Default)]
pub struct World {
    events: Vec<Arc<Published>>,
    /// Every id that this server has told anyone.
    told: BTreeSet<EventId>,
    history: usize,
}

impl World {
    /// Nothing yet; so many events are kept.
    pub fn new(history: usize) -> World {
        World { history, ..World::default() }
    }

    /// Adds an event.
    ///
    /// # Errors
    /// Where its id is not above all others.
    pub fn publish(&mut self, event: Published) -> Result<Arc<Published>, String> {
        if self.events.last().is_some_and(|last| last.id >= event.id) {
            return Err(format!("the id {} is not above those before", event.id));
        }
        let event = Arc::new(event);
        self.told.insert(event.id);
        self.events.push(Arc::clone(&event));
        Ok(event)
    }

    /// The server has told this id to a client, in a greeting or a `gap`.
    pub fn tell(&mut self, id: EventId) {
        self.told.insert(id);
    }

    /// What a client that wants these topics gets at first.
    pub fn due(&self, last: &Last, wanted: &BTreeSet<usize>) -> VecDeque<Due> {
        let mut due = VecDeque::new();
        let newest = self.events.last().map(|event| event.id);
        let kept = self.events.len().saturating_sub(self.history);
        let is_wanted = |event: &&Arc<Published>| wanted.contains(&event.topic);
        match last {
            Last::Nothing => {}
            // Nothing can be said about what it missed; it gets what comes from now on.
            Last::Strange(_) => due.push_back(Due::Gap { lost: newest }),
            Last::Id(last) => {
                let missed = |event: &&Arc<Published>| event.id > *last && is_wanted(event);
                let lost = self.events[..kept].iter().rfind(missed).map(|event| event.id);
                // An id that was told by no one here is from a server before: what that one
                // published afterwards is lost for certain.
                if lost.is_some() || !self.told.contains(last) {
                    due.push_back(Due::Gap { lost });
                }
                let missed = self.events[kept..].iter().filter(missed);
                due.extend(missed.map(|event| Due::Event(Arc::clone(event))));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(topics: &[usize]) -> World {
        let mut world = World::new(2);
        for (number, &topic) in topics.iter().enumerate() {
            let id = EventId { millis: number as u64, sequence: 0 };
            world.publish(Published { id, topic, name: None, data: String::new() }).unwrap();
        }
        world
    }

    fn shape(due: &VecDeque<Due>) -> String {
        let one = |due: &Due| match due {
            Due::Gap { lost } => format!("gap {:?} ", lost.map(|id| id.millis)),
            Due::Event(event) => format!("{} ", event.id.millis),
        };
        due.iter().map(one).collect()
    }

    #[test]
    fn what_is_missed_is_replayed_or_a_gap() {
        let world = world(&[0, 1, 0, 1, 0]);
        let all = BTreeSet::from([0, 1]);
        let last = |millis| Last::Id(EventId { millis, sequence: 0 });
        assert_eq!(shape(&world.due(&Last::Nothing, &all)), "");
        assert_eq!(shape(&world.due(&last(2), &all)), "3 4 ");
        assert_eq!(shape(&world.due(&last(1), &all)), "gap Some(2) 3 4 ");
        assert_eq!(shape(&world.due(&last(1), &BTreeSet::from([1]))), "3 ");
        assert_eq!(shape(&world.due(&last(9), &all)), "gap None ");
        assert_eq!(shape(&world.due(&Last::Strange("x".into()), &all)), "gap Some(4) ");
    }
}
