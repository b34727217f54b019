//! Events that go out together.
//!
//! A broadcaster takes whatever has come for it since it last looked. Mostly that is one event; under
//! load it is many, and what a client wants of them goes to it as one run of bytes, in one system
//! call. Nobody waits for a batch to fill.

use std::sync::{Arc, OnceLock};

use super::Event;
use crate::http::coding::{Coding, Encoded};
use crate::ws::deflate::{WINDOWS, Window};

/// The most events in a batch: one bit each in [`EventMask`].
pub const MAX_EVENTS: usize = 64;

/// From how many bytes of data on a batch is not extended. It is encoded as a whole, once more
/// beside its events, for as long as somebody has not got it.
pub const MAX_BYTES: usize = 64 * 1024;

/// Which events of a batch: bit n is the nth.
pub type EventMask = u64;

/// Some events, in order, with their encodings one behind the other. Never empty.
#[derive(Debug)]
pub struct Batch {
    events: Box<[Arc<Event>]>,
    sse: OnceLock<Encoded>,
    websocket: OnceLock<Box<[u8]>>,
    /// By window.
    deflated: [OnceLock<Box<[u8]>>; WINDOWS],
}

impl Batch {
    /// These events.
    pub fn new(events: impl Into<Box<[Arc<Event>]>>) -> Batch {
        let deflated = [const { OnceLock::new() }; WINDOWS];
        Batch { events: events.into(), sse: OnceLock::new(), websocket: OnceLock::new(), deflated }
    }

    /// The events.
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// The batch of those at `mask`: the same one, where that is all.
    pub fn part(self: &Arc<Self>, mask: EventMask) -> Arc<Batch> {
        if mask.count_ones() as usize == self.events.len() {
            return Arc::clone(self);
        }
        let is_in = |place: &usize| mask & (1 << place) != 0;
        let mask = (0..self.events.len()).filter(is_in);
        let events: Vec<_> = mask.map(|place| Arc::clone(&self.events[place])).collect();
        Arc::new(Batch::new(events))
    }

    /// All of them in the form of an event stream. See [`Event::sse`].
    pub fn sse(&self, coding: Coding) -> &[u8] {
        match &*self.events {
            [event] => event.sse(coding),
            events => {
                // One payload for all of them.
                let encode = || Encoded::new(&join(events, |event| event.sse(Coding::Identity)));
                self.sse.get_or_init(encode).bytes(coding)
            }
        }
    }

    /// All of them as WebSocket frames. See [`Event::websocket`].
    pub fn websocket(&self) -> &[u8] {
        match &*self.events {
            [event] => event.websocket(),
            events => self.websocket.get_or_init(|| join(events, Event::websocket)),
        }
    }

    /// All of them as compressed WebSocket frames. See [`Event::deflated`].
    pub fn deflated(&self, window: Window) -> &[u8] {
        match &*self.events {
            [event] => event.deflated(window),
            events => self.deflated[window.index()]
                .get_or_init(|| join(events, |event| event.deflated(window))),
        }
    }
}

fn join(events: &[Arc<Event>], encode: impl Fn(&Event) -> &[u8]) -> Box<[u8]> {
    let encoded: Vec<&[u8]> = events.iter().map(|event| encode(event)).collect();
    encoded.concat().into()
}

/// Divides events into batches that are not larger than they may be.
pub fn batches(events: &[Arc<Event>]) -> impl Iterator<Item = Arc<Batch>> + '_ {
    let mut left = events;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |event: &&Arc<Event>| {
            let fits = bytes < MAX_BYTES;
            bytes += event.data().len();
            fits
        };
        let count = left.iter().take(MAX_EVENTS).take_while(fits).count();
        let (batch, rest) = left.split_at(count);
        left = rest;
        (!batch.is_empty()).then(|| Arc::new(Batch::new(batch)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, EventId};

    fn events(data: &[&str]) -> Vec<Arc<Event>> {
        let id = |n| format!("1-{n}").parse::<EventId>().unwrap();
        let event = |(n, data): (usize, &&str)| {
            Arc::new(Event::new(id(n), Draft::new("t", None, data).unwrap()))
        };
        data.iter().enumerate().map(event).collect()
    }

    #[test]
    fn a_batch_is_its_events_one_behind_the_other() {
        let events = events(&["a", "b\nc", "d"]);
        let batch = Arc::new(Batch::new(events.clone()));
        let texts = events.iter().flat_map(|event| event.sse(Coding::Identity).to_vec());
        let joined: Vec<u8> = texts.collect();
        assert_eq!(batch.sse(Coding::Identity), joined);
        assert_eq!(batch.sse(Coding::Chunked), &*Coding::Chunked.frame(&joined));
        let joined: Vec<u8> = events.iter().flat_map(|event| event.websocket().to_vec()).collect();
        assert_eq!(batch.websocket(), joined);
        let [first, second, third] =
            [0, 1, 2].map(|place: usize| events[place].sse(Coding::Identity));
        assert_eq!(batch.part(0b101).sse(Coding::Identity), [first, third].concat());
        assert_eq!(batch.part(0b010).sse(Coding::Identity).as_ptr(), second.as_ptr());
        assert!(Arc::ptr_eq(&batch.part(0b111), &batch));
    }

    #[test]
    fn batches_hold_everything_and_are_bounded() {
        let large = "x".repeat(MAX_BYTES);
        let mut data = vec!["small"; 3 * MAX_EVENTS + 5];
        data[10] = &large;
        data[11] = &large;
        let events = events(&data);
        let lengths: Vec<usize> = batches(&events).map(|batch| batch.events().len()).collect();
        assert_eq!(lengths, [11, 1, 64, 64, 57]);
        let ids =
            batches(&events).flat_map(|b| b.events().iter().map(|e| e.id).collect::<Vec<_>>());
        assert!(ids.eq(events.iter().map(|event| event.id)));
        assert_eq!(batches(&[]).count(), 0);
    }
}
