//! Who may publish: with `--token` those who send it, without it those on this machine.
//!
//! What counts is the address that the server listens on. The address that a client comes from, or
//! that a proxy names for it, decides nothing: neither can be relied on.

use super::access::constant_time_eq;
use super::error::AuthError;

/// Whether a client may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishPermission {
    /// It may.
    Granted,
    /// The server has a token, and the client did not send it.
    TokenMissing,
    /// The server has no token, and other machines can reach it: nobody may.
    OnlyFromLoopback,
}

impl PublishPermission {
    /// The permission of a client that sent the token `given`, if it sent one, to a server that is
    /// configured with `token`, and that only its own machine can reach if `is_loopback`.
    pub(crate) fn new(
        token: Option<&str>,
        is_loopback: bool,
        given: Option<&str>,
    ) -> PublishPermission {
        match (token, given) {
            (Some(token), Some(given)) if constant_time_eq(given, token) => {
                PublishPermission::Granted
            }
            (Some(_), _) => PublishPermission::TokenMissing,
            (None, _) if is_loopback => PublishPermission::Granted,
            (None, _) => PublishPermission::OnlyFromLoopback,
        }
    }

    /// # Errors
    /// Why the client may not publish.
    pub(crate) fn check(self) -> Result<(), AuthError> {
        match self {
            PublishPermission::Granted => Ok(()),
            PublishPermission::TokenMissing => Err(AuthError::PublishingNeedsToken),
            PublishPermission::OnlyFromLoopback => Err(AuthError::OnlyFromLoopback),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PublishPermission::{Granted, OnlyFromLoopback, TokenMissing};
    use super::*;

    #[test]
    fn a_token_decides_and_without_one_the_address() {
        for (token, is_loopback, given, permission) in [
            (Some("t"), false, Some("t"), Granted),
            (Some("t"), true, Some("u"), TokenMissing),
            (Some("t"), true, None, TokenMissing),
            (None, true, None, Granted),
            (None, true, Some("t"), Granted),
            (None, false, Some("t"), OnlyFromLoopback),
        ] {
            let found = PublishPermission::new(token, is_loopback, given);
            assert_eq!(found, permission, "{token:?} {is_loopback} {given:?}");
        }
    }
}
