//! What stands in a segment: a line that says what the file is, and frames, one for each append. That a frame
//! is whole or worth nothing makes an append all or nothing, whenever the machine stops.
//!
//! ```text
//! frame    mark (4 bytes), length of the payload (4), CRC-32 of the payload (4), payload
//! payload  the id before the first record (16), records
//! record   id (16), then key, topic, name and data, each as its length (4) and its bytes
//! ```
//!
//! Numbers are little-endian. Key and name are empty where there is none. The id before is what shows that
//! frames are missing: it is not the last id of the frame before it. A frame without records is a gap.

use std::sync::Arc;

use crate::event::{Draft, Event, EventId};

/// The beginning of a segment, with the version of the format.
pub const HEADER: &[u8] = b"threadcast journal 1\n";

/// What the headers of all versions begin with.
pub const ANY_HEADER: &[u8] = b"threadcast journal ";

/// The beginning of a frame. The first and the last byte stand in no UTF-8 text, so texts hold no mark.
const MARK: [u8; 4] = [0xff, b't', b'c', 0xfe];

/// The length of what stands before the payload.
const FRAME_HEAD_BYTES: usize = 12;

/// An event, and the idempotency key that it was published with.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The event.
    pub event: &'a Event,
    /// The key, which is not empty.
    pub key: Option<&'a str>,
}

/// A frame that was read.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The id before the first record: of an event, or of a gap.
    pub before: EventId,
    /// The events with their keys; their ids rise.
    pub events: Vec<(Arc<Event>, Option<&'a str>)>,
    /// The frame's length.
    pub bytes: usize,
}

/// Why there is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are the beginning of a frame: it was not written to its end.
    Torn,
    /// They are not.
    Damaged,
}

/// Makes `buffer` a frame of these records. Returns whether it can: not with 4 GiB or more.
pub fn encode(before: EventId, records: &[Record<'_>], buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    buffer.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    put_id(before, buffer);
    for Record { event, key } in records {
        put_id(event.id, buffer);
        for text in
            [key.unwrap_or_default(), &event.topic, event.name().unwrap_or_default(), event.data()]
        {
            let Ok(length) = u32::try_from(text.len()) else { return false };
            buffer.extend_from_slice(&length.to_le_bytes());
            buffer.extend_from_slice(text.as_bytes());
        }
    }
    let payload = &buffer[FRAME_HEAD_BYTES..];
    let Ok(length) = u32::try_from(payload.len()) else { return false };
    let checksum = crc32fast::hash(payload);
    buffer[..4].copy_from_slice(&MARK);
    buffer[4..8].copy_from_slice(&length.to_le_bytes());
    buffer[8..12].copy_from_slice(&checksum.to_le_bytes());
    true
}

fn put_id(id: EventId, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&id.millis.to_le_bytes());
    buffer.extend_from_slice(&id.sequence.to_le_bytes());
}

/// Reads the frame at the beginning of `bytes`, which are not empty.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, Fault> {
    if !bytes.starts_with(&MARK) && !MARK.starts_with(bytes) {
        return Err(Fault::Damaged);
    }
    let head_and_rest = bytes.split_first_chunk::<FRAME_HEAD_BYTES>();
    let (head, mut rest) = head_and_rest.ok_or(Fault::Torn)?;
    let (mut length, mut checksum) = ([0; 4], [0; 4]);
    length.copy_from_slice(&head[4..8]);
    checksum.copy_from_slice(&head[8..]);
    let length = u32::from_le_bytes(length) as usize;
    let payload = take(&mut rest, length).ok_or(Fault::Torn)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(checksum) {
        return Err(Fault::Damaged);
    }
    decode_payload(payload).ok_or(Fault::Damaged)
}

fn decode_payload(payload: &[u8]) -> Option<Frame<'_>> {
    let mut bytes = payload;
    let before = take_id(&mut bytes)?;
    let (mut last, mut events) = (before, Vec::new());
    while !bytes.is_empty() {
        let id = take_id(&mut bytes).filter(|id| *id > last)?;
        let key = Some(take_text(&mut bytes)?).filter(|key| !key.is_empty());
        let topic = take_text(&mut bytes)?;
        let name = Some(take_text(&mut bytes)?).filter(|name| !name.is_empty());
        let draft = Draft::new(topic, name, take_text(&mut bytes)?).ok()?;
        events.push((Arc::new(Event::new(id, draft)), key));
        last = id;
    }
    Some(Frame { before, events, bytes: FRAME_HEAD_BYTES + payload.len() })
}

/// Takes so many bytes from the beginning of `bytes`.
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn take_id(bytes: &mut &[u8]) -> Option<EventId> {
    Some(EventId { millis: take_number(bytes)?, sequence: take_number(bytes)? })
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    std::str::from_utf8(take(bytes, u32::from_le_bytes(*length) as usize)?).ok()
}

/// Where the next whole frame begins, from `start` on.
pub fn find(bytes: &[u8], start: usize) -> Option<usize> {
    let marks = bytes.get(start..)?.windows(MARK.len()).enumerate();
    let mut places = marks.filter(|(_, window)| *window == MARK).map(|(place, _)| start + place);
    places.find(|place| decode(&bytes[*place..]).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EventId {
        EventId { millis, sequence: 3 }
    }

    fn event(millis: u64, name: Option<&str>, data: &str) -> Event {
        Event::new(id(millis), Draft::new("tópic", name, data).unwrap())
    }

    fn frame(events: &[(Event, Option<&str>)]) -> Vec<u8> {
        let records: Vec<_> =
            events.iter().map(|(event, key)| Record { event, key: *key }).collect();
        let mut bytes = Vec::new();
        assert!(encode(id(1), &records, &mut bytes));
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let events = [
            (event(5, None, ""), None),
            (event(6, Some("näme"), "two\nlines\n"), Some("a key")),
            (event(6_000_000_000_000, None, &"x".repeat(100_000)), None),
        ];
        let mut bytes = frame(&events);
        let length = bytes.len();
        bytes.extend_from_slice(b"more");
        let read = decode(&bytes).unwrap();
        assert_eq!((read.before, read.bytes, read.events.len()), (id(1), length, 3));
        for ((event, key), (read, read_key)) in events.iter().zip(&read.events) {
            assert_eq!((event.id, &event.topic, event.name()), (read.id, &read.topic, read.name()));
            assert_eq!((event.data(), key), (read.data(), read_key));
        }
        let gap = frame(&[]);
        let read = decode(&gap).unwrap();
        assert_eq!((read.before, read.events.len()), (id(1), 0));
    }

    #[test]
    fn a_frame_without_its_end_is_torn_wherever_it_was_cut() {
        let bytes = frame(&[(event(5, Some("e"), "data"), Some("key"))]);
        for end in 1..bytes.len() {
            assert_eq!(decode(&bytes[..end]).unwrap_err(), Fault::Torn, "{end}");
        }
    }

    #[test]
    fn no_byte_can_change_unseen() {
        let bytes = frame(&[(event(5, Some("e"), "data"), Some("key"))]);
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x11;
            assert!(decode(&damaged).is_err(), "{place}");
        }
    }

    #[test]
    fn ids_that_do_not_rise_are_damage() {
        let twice = frame(&[(event(5, None, "a"), None), (event(5, None, "b"), None)]);
        assert_eq!(decode(&twice).unwrap_err(), Fault::Damaged);
    }

    #[test]
    fn the_next_frame_is_found_behind_anything() {
        let good = frame(&[(event(5, None, "data"), None)]);
        let bytes = [&MARK[..], b"noise", &MARK, &MARK, &good].concat();
        assert_eq!(find(&bytes, 1), Some(bytes.len() - good.len()));
        assert_eq!(find(&bytes[..bytes.len() - 1], 0), None);
    }
}
