//! One kind of error: a line that says what was wrong and what to do about it.

use std::fmt;

/// What went wrong, and a hint, together one line on stderr.
#[derive(Debug)]
pub struct Failure {
    what: String,
    hint: &'static str,
}

impl Failure {
    /// An error with advice. `hint` completes the sentence "what to do: …".
    pub fn new(what: impl Into<String>, hint: &'static str) -> Self {
        Self { what: what.into(), hint }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some system messages and server answers contain line breaks; the promise is one line.
        write!(f, "{}; {}", self.what.replace(['\n', '\r'], " "), self.hint)
    }
}

/// The result of everything that can end a run.
pub type Result<T> = std::result::Result<T, Failure>;
