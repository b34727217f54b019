//! Why a journal cannot be opened.

use std::path::{Path, PathBuf};
use std::{error, fmt, io};

/// Why a journal cannot be opened. Displayed as one line that names the folder or file and says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// Another server has this folder open.
    InUse(PathBuf),
    /// This file is of another version of the program.
    Version(PathBuf),
    /// The system refuses to do this with this folder or file.
    Io(&'static str, PathBuf, io::Error),
    /// The thread that writes to the disk cannot be started.
    Thread(io::Error),
}

impl JournalError {
    /// For `map_err`: what could not be done, and with which file.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        let path = path.to_owned();
        move |error| JournalError::Io(what, path, error)
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::InUse(folder) => write!(
                f,
                "another server has the journal {folder:?} open; stop it or choose another --journal"
            ),
            JournalError::Version(path) => write!(
                f,
                "{path:?} is of another version; start that version, or choose another --journal"
            ),
            JournalError::Io(what, path, error) => {
                write!(f, "cannot {what} {path:?}: {error}; mend that or choose another --journal")
            }
            JournalError::Thread(error) => {
                write!(f, "cannot start a thread: {error}; raise the limits on threads and memory")
            }
        }
    }
}

impl error::Error for JournalError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            JournalError::InUse(_) | JournalError::Version(_) => None,
            JournalError::Io(_, _, error) | JournalError::Thread(error) => Some(error),
        }
    }
}
