//! The checks of single values. Their errors name the setting, the value, and what it should be.

use std::time::Duration;

use super::error::ConfigError;

/// The longest duration: longer ones would overflow times that are added up.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Checks that a setting's cargo feature is built in.
pub(super) fn built_in(
    setting: &'static str,
    feature: &str,
    is_built: bool,
) -> Result<(), ConfigError> {
    if is_built {
        return Ok(());
    }
    let problem = format!("not in this build: its cargo feature '{feature}' is off");
    Err(ConfigError::new(setting, problem))
}

pub(super) fn duration(setting: &'static str, value: Duration) -> Result<Duration, ConfigError> {
    if value <= MAX_DURATION {
        return Ok(value);
    }
    Err(ConfigError::with_value(setting, humantime::format_duration(value), "is over a year"))
}

/// A duration of at least `least`, or zero, which switches off.
pub(super) fn interval_of(
    setting: &'static str,
    value: Duration,
    least: Duration,
) -> Result<Duration, ConfigError> {
    if value.is_zero() || value >= least {
        return duration(setting, value);
    }
    let problem = format!("is too short; the least is {}", humantime::format_duration(least));
    Err(ConfigError::with_value(setting, humantime::format_duration(value), problem))
}

pub(super) fn at_least(
    setting: &'static str,
    least: usize,
    value: usize,
) -> Result<usize, ConfigError> {
    if value >= least {
        return Ok(value);
    }
    Err(ConfigError::with_value(setting, value, format!("is no whole number of at least {least}")))
}

pub(super) fn bytes_from(
    setting: &'static str,
    least: usize,
    most: usize,
    value: usize,
) -> Result<usize, ConfigError> {
    let problem = match value {
        _ if value < least => format!("is no number of bytes from {least} on"),
        _ if value > most => format!("is above {most} bytes"),
        _ => return Ok(value),
    };
    Err(ConfigError::with_value(setting, value, problem))
}

/// What can stand in `Authorization: Bearer` (RFC 6750 section 2.1, in effect). The message does not
/// repeat it: it is a secret, and may end in a log.
pub(super) fn checked_token(setting: &'static str, token: &str) -> Result<String, ConfigError> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = "must be printable ASCII without spaces, and not empty";
        return Err(ConfigError::new(setting, problem));
    }
    Ok(token.to_owned())
}
