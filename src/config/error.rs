//! Why a setting cannot have a value.

use std::fmt::{self, Display};

/// A value that a setting cannot have. Displayed as one line that names the setting, says what is wrong,
/// and what the value should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    setting: &'static str,
    /// The number or duration that `problem` is about; `None` where `problem` says it all.
    value: Option<String>,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(setting: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError { setting, value: None, problem: problem.into() }
    }

    /// A problem that is read behind the value.
    pub(super) fn with_value(
        setting: &'static str,
        value: impl Display,
        problem: impl Into<String>,
    ) -> ConfigError {
        ConfigError { setting, value: Some(value.to_string()), problem: problem.into() }
    }

    /// The name of the setting: `queue` for [`Config::set_queue`](super::Config::set_queue).
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// What is wrong, without the setting's name, with a value that was typed as `text`.
    #[cfg(feature = "cli")]
    pub(crate) fn describe(&self, text: &str) -> String {
        match self.value {
            Some(_) => format!("{text:?} {}", self.problem),
            None => self.problem.clone(),
        }
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.setting)?;
        if let Some(value) = &self.value {
            write!(f, "{value} ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}
