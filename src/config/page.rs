//! What is served of files, and the page's experiments.

use std::path::{Path, PathBuf};

use super::Config;
use super::checks::built_in;
use super::error::ConfigError;

/// The setters of the page, which are like the others.
///
/// # Errors
/// See [`ConfigError`].
impl Config {
    /// The folder that is served instead of the page inside the binary. It must exist.
    pub fn set_www(&mut self, folder: impl AsRef<Path>) -> Result<(), ConfigError> {
        built_in("www", "page", cfg!(feature = "page"))?;
        // Canonical, since the paths of requests are compared with it.
        self.www = Some(found("www", folder.as_ref(), Path::is_dir, "folder")?);
        Ok(())
    }

    /// Whether the page may experiment with the server: open clients of its own, keep a thread busy, have one
    /// panic. For one's own machine: the server must listen on a loopback address. Off by default.
    pub fn set_demo(&mut self, is_on: bool) -> Result<(), ConfigError> {
        // Off is right in every build.
        built_in("demo", "page", cfg!(feature = "page") || !is_on)?;
        self.demo = is_on;
        Ok(())
    }

    /// The report of the benchmark that the page shows (`results.jsonl`, which `threadcast-bench compare`
    /// writes). It must exist; it is read anew for each client.
    pub fn set_report(&mut self, file: impl AsRef<Path>) -> Result<(), ConfigError> {
        built_in("report", "page", cfg!(feature = "page"))?;
        self.report = Some(found("report", file.as_ref(), Path::is_file, "file")?);
        Ok(())
    }

    /// Checks that experiments are for this machine alone: both settings are known only at the start.
    pub(crate) fn check_demo(&self) -> Result<(), ConfigError> {
        match self.demo && !self.listen.ip().to_canonical().is_loopback() {
            true => Err(ConfigError::new(
                "demo",
                "experiments are for this machine alone: listen on a loopback address, such as 127.0.0.1:3000",
            )),
            false => Ok(()),
        }
    }
}

/// The path, canonical, if there is something of this kind.
fn found(
    setting: &'static str,
    path: &Path,
    is_right: fn(&Path) -> bool,
    kind: &str,
) -> Result<PathBuf, ConfigError> {
    let name = path.to_string_lossy();
    let problem = match path.canonicalize() {
        Ok(path) if is_right(&path) => return Ok(path),
        Ok(_) => format!("{name:?} is not a {kind}"),
        Err(error) => format!("cannot open {name:?}: {error}"),
    };
    Err(ConfigError::new(setting, problem))
}
