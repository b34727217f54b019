//! Events on the disk, so that a server that is started again knows them: `--journal`.
//!
//! A folder with files that are only appended to, the segments ([`frame`] has their form), a file of what must
//! be known besides ([`state`]), and a lock. The store appends with its own lock held, so one thread at a time
//! writes; another one makes the system write to the disk ([`sync`]). When the server starts, all is read
//! ([`recovery`]).
//!
//! - **A killed process** loses nothing: what was written is in the system's cache, and a frame that was not
//!   written to its end was acknowledged to nobody.
//! - **A machine that went down** may have lost what was written in the last second, unless every append is
//!   synced ([`JournalSync::Always`]). The two are told apart by what changes with every start of the machine.
//!   Then a gap is written behind what is left. The ids of lost events are not given again: the state holds a
//!   *ceiling*, on the disk before any id above it is given.
//! - **A full disk** refuses an append; nothing of it stays in the file, and the next one tries again. A server
//!   starts on one, too: its clients come back, and miss nothing.
//!
//! Why not `redb`, which is a whole database in one crate? It takes 15 s to compile ([`crc32fast`] 0.6 s) and
//! 9 to 11 µs of CPU for an append without sync (this: 1 µs); and what it has not synced is gone when the
//! process is killed: 10,000 of 10,000 events.

pub mod error;
pub mod frame;
pub mod recovery;
pub mod state;
pub mod sync;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::PublishError;
use super::keys::KEY_LIFETIME;
use crate::config::JournalSync;
use crate::event::EventId;
use error::JournalError;
use frame::{HEADER, Record};
use recovery::{Entry, Recovery, Segment, segment_path};
use state::{State, boot_id};
use sync::Syncer;

/// From how many bytes on a new segment is begun.
const SEGMENT_BYTES: u64 = 4 << 20;

/// The most bytes of all segments but the oldest one. (The window keeps fewer events than this holds.)
const MAX_BYTES: u64 = 64 << 20;

/// How far the ceiling is ahead of the id that reaches it. It costs an `fsync` each time; and after the machine
/// went down, ids may be ahead of the clock by this much, if it is up again that soon.
const CEILING_AHEAD_MS: u64 = 60_000;

/// How long a segment is kept for its idempotency keys.
const KEY_LIFETIME_MS: u64 = KEY_LIFETIME.as_millis() as u64;

/// See the module's documentation. Closed when dropped.
pub struct Journal {
    folder: PathBuf,
    lock: File,
    /// The thread that waits for the disk, where the publisher does not.
    syncer: Option<Syncer>,
    /// The segments that are full, oldest first.
    full: VecDeque<Segment>,
    /// The one that is written to, and its file.
    segment: Segment,
    file: Arc<File>,
    /// Something may stand behind the end of `file`, and must be cut off first.
    is_cut_needed: bool,
    /// The last id: of an event or of a gap.
    last: EventId,
    state: State,
    /// Why the disk does not say yet that the journal is open: it is full. Before that nothing is appended.
    unbegun: Option<String>,
    /// The gap that is to be written then.
    gap: Option<EventId>,
    is_closed: bool,
    /// The frame that is being written; kept for its memory.
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the journal in this folder, which is made if it does not exist. `entry` gets what it holds, which
    /// begins with a gap, and may end with one. Returns the id that every new one must be above, too. `clock`
    /// tells milliseconds since 1970.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(
        folder: &Path,
        sync: JournalSync,
        clock: fn() -> u64,
        entry: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(Journal, EventId), JournalError> {
        // The lock before anything is read: who has it may be writing.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(JournalError::io("make the folder", folder))?;
        let lock = lock(folder)?;
        let known = State::read(folder).map_err(JournalError::io("read the state in", folder))?;

        let mut recovery = Recovery { entry, last: None, segments: Vec::new(), end: None };
        recovery.read(folder)?;
        let Recovery { entry, last, segments, end } = recovery;

        // What must be above all ids that were given, and whether events may be lost.
        let boot = boot_id();
        let complete = last.filter(|last| is_complete(known.as_ref(), *last, end, &boot));
        let ceiling = known.map_or(0, |state| state.ceiling);
        let newest = complete.unwrap_or_else(|| after_loss(last, ceiling, clock()));

        // The last segment goes on behind its last whole frame; one without its header is begun again.
        let mut full = VecDeque::from(segments);
        let none = || Segment { bytes: 0, ..Segment::new(1, newest) };
        let mut segment = full.pop_back().unwrap_or_else(none);
        let path = segment_path(folder, segment.number);
        let file = match segment.bytes {
            0 => begin_segment(&path),
            _ => File::options().write(true).open(&path),
        };
        let file = file.map_err(JournalError::io("write", &path))?;
        segment.bytes = segment.bytes.max(HEADER.len() as u64);
        let mut journal = Journal {
            folder: folder.to_owned(),
            lock,
            syncer: None,
            full,
            segment,
            file: Arc::new(file),
            is_cut_needed: true,
            last: newest,
            state: State {
                ceiling: ceiling.max(newest.millis.saturating_add(1)),
                boot,
                closed_at: None,
            },
            unbegun: None,
            gap: Some(newest).filter(|_| complete.is_none()),
            is_closed: true,
            buffer: Vec::new(),
        };
        if let Some(gap) = journal.gap {
            entry(Entry::Gap(gap));
        }
        match journal.begin() {
            Err(error) if is_full(&error) => {
                let why = format!("cannot write to the journal in {folder:?}: {error}");
                log::warn!("journal: {why}; until there is room, nothing can be published");
                journal.unbegun = Some(why);
            }
            result => result.map_err(JournalError::io("write", &path))?,
        }
        journal.is_closed = false;
        if sync == JournalSync::Interval {
            let syncer = Syncer::start(folder.to_owned()).map_err(JournalError::Thread)?;
            journal.syncer = Some(syncer);
        }
        Ok((journal, newest))
    }

    /// Makes the disk say that the journal is open, and where something is missing.
    fn begin(&mut self) -> io::Result<()> {
        self.cut()?;
        // The gap before the state: a crash in between must find the old state again, which asks for it.
        if let Some(gap) = self.gap {
            frame::encode(gap, &[], &mut self.buffer);
            self.write()?;
            self.gap = None;
        }
        self.file.sync_all()?;
        self.state.write(&self.folder)?;
        self.unbegun = None;
        Ok(())
    }

    /// Writes events, all or none. Their ids rise, and are above all before. `oldest` is the oldest event that
    /// is needed after a restart, besides these: segments before it are deleted. (Not before their idempotency
    /// keys have expired. Where there is no room for them, they are deleted anyway.)
    ///
    /// # Errors
    /// [`PublishError::Full`] where there is no room on the disk, [`PublishError::Unavailable`] for whatever else
    /// the system says; [`PublishError::Stopped`] once it is closed.
    pub fn append(
        &mut self,
        records: &[Record<'_>],
        oldest: Option<EventId>,
    ) -> Result<(), PublishError> {
        let Some(newest) = records.last().map(|record| record.event.id) else {
            return Ok(());
        };
        if self.is_closed {
            return Err(PublishError::Stopped);
        }
        self.try_append(records, newest).map_err(|error| {
            let why = format!("cannot write to the journal in {:?}: {error}", self.folder);
            match is_full(&error) {
                true => PublishError::Full(why),
                false => PublishError::Unavailable(why),
            }
        })?;
        self.last = newest;
        self.segment.newest = newest;
        if let Some(record) = records.iter().rfind(|record| record.key.is_some()) {
            self.segment.newest_key = Some(record.event.id);
        }
        self.delete_segments(oldest.unwrap_or(newest));
        Ok(())
    }

    fn try_append(&mut self, records: &[Record<'_>], newest: EventId) -> io::Result<()> {
        if self.unbegun.is_some() {
            self.begin()?;
        }
        if self.is_cut_needed {
            self.cut()?;
        }
        if newest.millis >= self.state.ceiling {
            let ceiling = newest.millis.saturating_add(CEILING_AHEAD_MS);
            let state = State { ceiling, ..self.state.clone() };
            state.write(&self.folder)?;
            self.state = state;
        }
        if self.segment.bytes >= SEGMENT_BYTES {
            self.begin_next_segment()?;
        }
        if !frame::encode(self.last, records, &mut self.buffer) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.write();
        // A large batch is not kept for the small ones that follow.
        self.buffer.shrink_to(1 << 16);
        written
    }

    /// Writes what is in the buffer. Where that fails, nothing of it stays.
    fn write(&mut self) -> io::Result<()> {
        let written = self.file.write_all_at(&self.buffer, self.segment.bytes);
        let result = written.and_then(|()| match &self.syncer {
            Some(syncer) => {
                syncer.add(&self.file);
                Ok(())
            }
            None => self.file.sync_data(),
        });
        match result {
            Ok(()) => self.segment.bytes += self.buffer.len() as u64,
            // A file may always be made shorter, also on a full disk; else the next append tries again.
            Err(_) => self.is_cut_needed = self.cut().is_err(),
        }
        result
    }

    /// Cuts off what stands behind the end of the last segment.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.segment.bytes)?;
        self.is_cut_needed = false;
        Ok(())
    }

    fn begin_next_segment(&mut self) -> io::Result<()> {
        let next = Segment::new(self.segment.number + 1, self.last);
        let path = segment_path(&self.folder, next.number);
        let file = begin_segment(&path).inspect_err(|_| {
            // It would be found empty, which is no damage.
            let _ = fs::remove_file(&path);
        })?;
        // The file's name, too, must be on the disk.
        let folder = File::open(&self.folder)?;
        match &self.syncer {
            Some(syncer) => syncer.add(&Arc::new(folder)),
            None => folder.sync_all()?,
        }
        self.file = Arc::new(file);
        self.full.push_back(std::mem::replace(&mut self.segment, next));
        Ok(())
    }

    /// Deletes the segments that are not needed, or for which there is no room.
    fn delete_segments(&mut self, oldest: EventId) {
        while let Some(first) = self.full.front() {
            let expired =
                |key: EventId| key.millis.saturating_add(KEY_LIFETIME_MS) < self.last.millis;
            let is_needed = first.newest >= oldest || !first.newest_key.is_none_or(expired);
            if is_needed && self.bytes() - first.bytes <= MAX_BYTES {
                return;
            }
            let path = segment_path(&self.folder, first.number);
            if let Err(error) = fs::remove_file(&path) {
                log::warn!("journal: cannot delete {path:?}: {error}");
            }
            self.full.pop_front();
        }
    }

    /// How many bytes the segments have.
    pub fn bytes(&self) -> u64 {
        self.full.iter().chain([&self.segment]).map(|segment| segment.bytes).sum()
    }

    /// Why nothing can be appended, or why events may not be on the disk though they were.
    pub fn problem(&self) -> Option<String> {
        self.unbegun.clone().or_else(|| self.syncer.as_ref().and_then(Syncer::problem))
    }

    /// Writes all to the disk, and that this is all; lets others open the folder. Nothing can be appended any
    /// more.
    pub fn close(&mut self) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        if let Some(syncer) = &mut self.syncer {
            syncer.stop();
        }
        // Otherwise the state stays as it is, which is the safe side.
        if self.problem().is_none() && !self.is_cut_needed {
            self.state.closed_at = Some(self.last);
            if let Err(error) = self.state.write(&self.folder) {
                log::warn!("journal: cannot write the state in {:?}: {error}", self.folder);
            }
        }
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }

    /// Ends as a killed process does.
    #[cfg(test)]
    fn kill(mut self) {
        self.is_closed = true;
        if let Some(syncer) = &mut self.syncer {
            syncer.stop();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(JournalError::io("write", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(JournalError::InUse(folder.to_owned())),
        Err(error) => Err(JournalError::io("lock", &path)(error.into())),
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

fn begin_segment(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    file.write_all_at(HEADER, 0)?;
    Ok(file)
}

/// Whether every event that was acknowledged is there: the journal was closed at the last one; or its process
/// was killed on a machine that has run since, and nothing is there but what it was writing.
fn is_complete(
    known: Option<&State>,
    last: EventId,
    end: Option<frame::Fault>,
    boot: &Option<String>,
) -> bool {
    let Some(state) = known else {
        return false;
    };
    match state.closed_at {
        Some(closed_at) => closed_at == last && end.is_none(),
        None => boot.is_some() && *boot == state.boot && end != Some(frame::Fault::Damaged),
    }
}

/// The id of the gap where events may be lost: above all that were given.
fn after_loss(last: Option<EventId>, ceiling: u64, clock: u64) -> EventId {
    let millis = match (last, ceiling) {
        // A new journal: the id stands for 'before the first event'.
        (None, 0) => clock,
        // No state: what is lost is younger than the last event that is left, by a second.
        (Some(last), 0) => clock.max(last.millis.saturating_add(CEILING_AHEAD_MS)),
        (last, ceiling) => ceiling.max(last.map_or(0, |last| last.millis.saturating_add(1))),
    };
    EventId { millis, sequence: 0 }
}

#[cfg(test)]
mod tests;
