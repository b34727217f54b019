//! What a journal holds when it is opened: its segments are read one after another, oldest first.
//!
//! **Damage** does not keep the server from starting. A bad byte costs the events in its frame, which clients
//! that come back are told as a gap; a server that does not start costs all of its clients. So reading goes on
//! at the next whole frame, and the log says which file and where. A frame that was not written to its end, at
//! the end of the last segment, is what a crash leaves: it is cut off, and nobody was told that it is stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::JournalError;
use super::frame::{self, ANY_HEADER, Fault, Frame, HEADER};
use crate::event::{Event, EventId};

/// What a journal held, from the oldest on. Their ids rise.
#[derive(Debug)]
pub enum Entry<'a> {
    /// An event, and the idempotency key that it was published with.
    Event(Arc<Event>, Option<&'a str>),
    /// Events before this id may be lost. The first entry is a gap.
    Gap(EventId),
}

/// A file of the journal.
#[derive(Debug)]
pub struct Segment {
    /// Its place among the others.
    pub number: u64,
    /// Its length, without a torn end.
    pub bytes: u64,
    /// Its newest id, or the one before it.
    pub newest: EventId,
    /// The newest id that has an idempotency key.
    pub newest_key: Option<EventId>,
}

impl Segment {
    /// A segment with nothing but its header.
    pub fn new(number: u64, before: EventId) -> Segment {
        Segment { number, bytes: HEADER.len() as u64, newest: before, newest_key: None }
    }
}

/// What was read so far.
pub struct Recovery<'a> {
    /// Takes what is found.
    pub entry: &'a mut dyn FnMut(Entry<'_>),
    /// The last id: of an event or of a gap. `None`: there is none yet.
    pub last: Option<EventId>,
    /// The segments, oldest first.
    pub segments: Vec<Segment>,
    /// What stands behind the last whole frame.
    pub end: Option<Fault>,
}

impl Recovery<'_> {
    /// Reads all segments of this folder.
    ///
    /// # Errors
    /// Where one cannot be read, or is of another version.
    pub fn read(&mut self, folder: &Path) -> Result<(), JournalError> {
        let listing = fs::read_dir(folder).and_then(|all| {
            let names = all.map(|one| one.map(|one| one.file_name()));
            names.collect::<Result<Vec<_>, _>>()
        });
        let names = listing.map_err(JournalError::io("list", folder))?;
        let mut numbers: Vec<u64> =
            names.iter().filter_map(|name| segment_number(name.to_str()?)).collect();
        numbers.sort_unstable();
        for number in numbers {
            let path = segment_path(folder, number);
            let bytes = fs::read(&path).map_err(JournalError::io("read", &path))?;
            self.read_segment(number, &path, &bytes)?;
        }
        Ok(())
    }

    fn read_segment(&mut self, number: u64, path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
        let mut place = match bytes.starts_with(HEADER) {
            true => HEADER.len(),
            false if bytes.starts_with(ANY_HEADER) && bytes.len() >= HEADER.len() => {
                return Err(JournalError::Version(path.to_owned()));
            }
            false => 0,
        };
        let mut segment = Segment::new(number, self.last.unwrap_or_default());
        segment.bytes = place as u64;
        self.end = None;
        while place < bytes.len() {
            let fault = match frame::decode(&bytes[place..]) {
                Ok(frame) => {
                    place += frame.bytes;
                    segment.bytes = place as u64;
                    self.take(frame, &mut segment, path);
                    continue;
                }
                Err(_) if HEADER.starts_with(bytes) => Fault::Torn,
                Err(fault) => fault,
            };
            // The length of a damaged frame may be wrong, too: the next one is searched for.
            let Some(next) = frame::find(bytes, place + 1) else {
                log::warn!("journal: {path:?} is {} from byte {place} on", describe(fault));
                self.end = Some(fault);
                break;
            };
            log::warn!("journal: {path:?} is damaged from byte {place} to {next}");
            place = next;
        }
        self.segments.push(segment);
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>, segment: &mut Segment, path: &Path) {
        if self.last.is_some_and(|last| frame.before < last) {
            // Somebody has put a file here. Ids that fall would break whoever reads on.
            log::warn!("journal: {path:?} holds older events than the file before it: ignored");
            return;
        }
        if self.last != Some(frame.before) {
            (self.entry)(Entry::Gap(frame.before));
        }
        let mut last = frame.before;
        for (event, key) in frame.events {
            last = event.id;
            if key.is_some() {
                segment.newest_key = Some(last);
            }
            (self.entry)(Entry::Event(event, key));
        }
        segment.newest = last;
        self.last = Some(last);
    }
}

fn describe(fault: Fault) -> &'static str {
    match fault {
        Fault::Torn => "torn",
        Fault::Damaged => "damaged",
    }
}

/// The file of this segment.
pub fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("events-{number:08}"))
}

fn segment_number(name: &str) -> Option<u64> {
    name.strip_prefix("events-")?.parse().ok()
}
