//! What a client gets: events in its encoding, as bytes that all clients of that encoding share.
//!
//! An event is encoded once for each encoding, by whoever needs that first, and keeps it (see
//! [`Event::encoded`]). Several events that go out together are one run of bytes, so that a client costs
//! one system call.

use std::sync::Arc;

use super::Event;
use super::encoding::Encoding;
use crate::http::coding::Coding;

/// The most events that go out together.
pub const MAX_EVENTS: usize = 64;

/// From how many bytes of data on nothing more is added to what goes out together: it is encoded as a
/// whole, once more beside its events, for as long as a client has not taken it.
pub const MAX_BYTES: usize = 64 * 1024;

/// Bytes that a client gets whole and in one piece. To clone it copies nothing.
#[derive(Debug, Clone)]
pub struct Payload {
    bytes: Arc<[u8]>,
    events: usize,
}

impl Payload {
    /// Whole lines or frames that are no events.
    pub fn own(bytes: impl Into<Arc<[u8]>>) -> Payload {
        Payload { bytes: bytes.into(), events: 0 }
    }

    /// Events, of which there must be one at least, one behind the other.
    pub fn of(events: &[Arc<Event>], encoding: Encoding) -> Payload {
        let bytes = match (events, encoding) {
            ([event], _) => Arc::clone(event.encoded(encoding)),
            // One chunk for all of them.
            (_, Encoding::Sse(Coding::Chunked)) => {
                Coding::Chunked.frame(&concat(events, Encoding::Sse(Coding::Identity))).into()
            }
            _ => concat(events, encoding).into(),
        };
        Payload { bytes, events: events.len() }
    }

    /// The bytes as the client gets them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many events it is.
    pub fn events(&self) -> usize {
        self.events
    }

    /// For how many messages it counts in a queue.
    pub fn messages(&self) -> usize {
        self.events.max(1)
    }
}

fn concat(events: &[Arc<Event>], encoding: Encoding) -> Vec<u8> {
    let encoded: Vec<&[u8]> = events.iter().map(|event| &**event.encoded(encoding)).collect();
    encoded.concat()
}

/// Divides events into runs that may go out together.
pub fn batches(events: &[Arc<Event>]) -> impl Iterator<Item = &[Arc<Event>]> {
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
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, EventId};

    const BARE: Encoding = Encoding::Sse(Coding::Identity);

    fn events(data: &[&str]) -> Vec<Arc<Event>> {
        let id = |n| format!("1-{n}").parse::<EventId>().unwrap();
        let event = |(n, data): (usize, &&str)| {
            Arc::new(Event::new(id(n), Draft::new("t", None, data).unwrap()))
        };
        data.iter().enumerate().map(event).collect()
    }

    #[test]
    fn events_go_out_one_behind_the_other() {
        let events = events(&["a", "b\nc", "d"]);
        for encoding in [BARE, Encoding::WebSocket] {
            let joined: Vec<u8> =
                events.iter().flat_map(|event| event.encoded(encoding).to_vec()).collect();
            let payload = Payload::of(&events, encoding);
            assert_eq!((payload.bytes(), payload.events()), (&*joined, 3));
        }
        let chunk = Coding::Chunked.frame(Payload::of(&events, BARE).bytes());
        assert_eq!(Payload::of(&events, Encoding::Sse(Coding::Chunked)).bytes(), &*chunk);
    }

    #[test]
    fn what_all_clients_get_is_in_memory_once() {
        let events = events(&["a"]);
        for encoding in [BARE, Encoding::Sse(Coding::Chunked), Encoding::WebSocket] {
            let [one, other] = [0, 1].map(|_| Payload::of(&events, encoding));
            assert_eq!(one.bytes().as_ptr(), other.bytes().as_ptr());
            assert_eq!(one.clone().bytes().as_ptr(), one.bytes().as_ptr());
        }
    }

    #[test]
    fn batches_hold_everything_and_are_bounded() {
        let large = "x".repeat(MAX_BYTES);
        let mut data = vec!["small"; 3 * MAX_EVENTS + 5];
        data[10] = &large;
        data[11] = &large;
        let events = events(&data);
        let lengths: Vec<usize> = batches(&events).map(<[_]>::len).collect();
        assert_eq!(lengths, [11, 1, 64, 64, 57]);
        assert!(batches(&events).flatten().map(|event| event.id).eq(events.iter().map(|e| e.id)));
        assert_eq!(batches(&[]).count(), 0);
    }
}
