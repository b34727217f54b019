//! The thread that makes the system write to the disk what was written to files, in the background. It is
//! blocked until something was written, then for a second, and then in `fsync`. Nobody waits for it, but
//! for its end.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// From a write until its file is synced.
const INTERVAL: Duration = Duration::from_secs(1);

/// The thread, and what it shares with those who write.
pub struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    pending: Mutex<Pending>,
    /// Signalled when the first file comes, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    /// What was written since the last time, oldest first.
    files: Vec<Arc<File>>,
    is_stopped: bool,
    problem: Option<String>,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncer {
    /// Starts the thread for files of this folder.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn start(folder: PathBuf) -> io::Result<Syncer> {
        let shared =
            Arc::new(Shared { folder, pending: Mutex::default(), changed: Condvar::new() });
        let shown = Arc::clone(&shared);
        let thread = thread::Builder::new().name("journal".into()).spawn(move || run(&shown))?;
        Ok(Syncer { shared, thread: Some(thread) })
    }

    /// Has this file synced within about a second, and after those before it.
    pub fn add(&self, file: &Arc<File>) {
        let mut pending = self.shared.pending();
        if pending.files.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            return;
        }
        pending.files.push(Arc::clone(file));
        if pending.files.len() == 1 {
            self.shared.changed.notify_one();
        }
    }

    /// What went wrong the last time.
    pub fn problem(&self) -> Option<String> {
        self.shared.pending().problem.clone()
    }

    /// Syncs what is left, and ends the thread.
    pub fn stop(&mut self) {
        self.shared.pending().is_stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    loop {
        let idle = |pending: &mut Pending| pending.files.is_empty() && !pending.is_stopped;
        let pending = shared.changed.wait_while(shared.pending(), idle);
        let pending = pending.unwrap_or_else(PoisonError::into_inner);
        // More will be written: one call for all of it.
        let waited =
            shared.changed.wait_timeout_while(pending, INTERVAL, |pending| !pending.is_stopped);
        let (mut pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (files, is_last) = (std::mem::take(&mut pending.files), pending.is_stopped);
        // Without the lock: a publisher would wait for the disk.
        drop(pending);
        let result = files.iter().try_for_each(|file| file.sync_data());
        let problem = result
            .err()
            .map(|error| format!("events in {:?} may not be on the disk: {error}", shared.folder));
        if let Some(problem) = &problem {
            log::error!("journal: {problem}");
        }
        shared.pending().problem = problem;
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(syncer: &Syncer, condition: fn(&Option<String>) -> bool) {
        let holds = (0..2_000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            condition(&syncer.problem())
        });
        assert!(holds, "not within 20 s");
    }

    #[test]
    fn a_file_is_synced_without_further_writes_and_at_the_end() {
        let mut syncer = Syncer::start("folder".into()).unwrap();
        // Files that cannot be synced show when that is tried (fsync(2): `EINVAL`).
        let file = || Arc::new(File::open("/dev/null").unwrap());
        syncer.add(&file());
        wait(&syncer, Option::is_some);
        assert!(syncer.problem().unwrap().contains("\"folder\""));
        syncer.add(&Arc::new(File::open(".").unwrap()));
        wait(&syncer, Option::is_none);
        syncer.add(&file());
        syncer.stop();
        assert!(syncer.problem().is_some());
    }
}
