//! What must be known of a journal besides its events. A file of one line of JSON, replaced as a whole, so it is
//! never half of one and half of the other.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::event::EventId;

const NAME: &str = "state";

/// What must be known besides the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// No id that was given has these milliseconds or more.
    pub ceiling: u64,
    /// When the machine was started that has written this; `None` where it does not tell.
    pub boot: Option<String>,
    /// The last id, where the journal was closed; `None` while it is open, and after a crash.
    pub closed_at: Option<EventId>,
}

impl State {
    /// Reads the file; `None` where there is none, or something else in it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(folder: &Path) -> io::Result<Option<State>> {
        match fs::read(folder.join(NAME)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok().as_ref().and_then(State::parse)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(value: &Value) -> Option<State> {
        let text = |name| value[name].as_str();
        Some(State {
            ceiling: value["ceiling"].as_u64()?,
            boot: text("boot").map(str::to_owned),
            closed_at: text("closed_at").and_then(|id| id.parse().ok()),
        })
    }

    /// Replaces the file. When this returns, it is on the disk.
    ///
    /// # Errors
    /// What the system says. Then the file is as it was.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let closed_at = self.closed_at.map(|id| id.to_string());
        let line = json!({ "ceiling": self.ceiling, "boot": self.boot, "closed_at": closed_at });
        let new = folder.join("state.new");
        let mut file = File::create(&new)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, folder.join(NAME))?;
        File::open(folder)?.sync_all()
    }
}

/// What changes with every start of the machine (random(4)); `None` where the system does not tell.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
