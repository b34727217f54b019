//! Who may read: `--subscribe-token`, and tickets, each of which replaces it for one request.
//!
//! A program sends the token as `Authorization: Bearer`. A browser cannot: `EventSource` and
//! `WebSocket` take a URL and nothing else. A browser sends one of two other things:
//!
//! - a cookie that holds the token, if a server in front of this one has set it (best `HttpOnly`,
//!   `Secure` and `SameSite=Strict`);
//! - a ticket in the URL. `POST /ticket` issues one to a client that sends the token. A ticket works
//!   once, and expires after [`TICKET_LIFETIME`].
//!
//! The token itself is not accepted in a URL: proxies log URLs, and browsers keep them in their history.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::AuthError;
use crate::listener::connection::Connection;

/// The cookie that may hold the token.
const COOKIE: &str = "threadcast_token";

/// How long a ticket is valid: long enough for a slow network, and so short that a ticket found in a
/// log is worthless.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(30);

/// The most tickets that are valid at a time. One more replaces the oldest, so that clients which know
/// the token always get one; the client of the replaced one asks again.
const MAX_TICKETS: usize = 10_000;

/// The subscribe token, if there is one, and the valid tickets. (No `Debug`: it would print them.)
pub struct Access {
    token: Option<String>,
    tickets: Mutex<Tickets>,
}

impl Access {
    /// `token` as in [`crate::Config::set_subscribe_token`].
    pub fn new(token: Option<String>) -> Access {
        Access { token, tickets: Mutex::default() }
    }

    /// Whether anybody may read.
    pub fn is_public(&self) -> bool {
        self.token.is_none()
    }

    /// Checks that a request may read. This uses `ticket` up, even if the request fails later on.
    ///
    /// # Errors
    /// [`AuthError::ReadingNeedsToken`].
    pub fn check(&self, connection: &Connection, ticket: Option<&str>) -> Result<(), AuthError> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let redeem = |ticket: &str| self.tickets().redeem(ticket, Instant::now());
        if sends_token(connection, token) || ticket.is_some_and(redeem) {
            return Ok(());
        }
        Err(AuthError::ReadingNeedsToken)
    }

    /// A new ticket for a client whose request holds the token. A ticket does not get another one.
    ///
    /// # Errors
    /// The token is missing, reading is public, or the system gives no random numbers.
    pub fn issue(&self, connection: &Connection) -> Result<String, AuthError> {
        let token = self.token.as_deref().ok_or(AuthError::NoTicketNeeded)?;
        if !sends_token(connection, token) {
            return Err(AuthError::TicketNeedsToken);
        }
        let ticket = new_ticket().map_err(|_| AuthError::NoRandomNumbers)?;
        self.tickets().add(ticket.clone(), Instant::now());
        Ok(ticket)
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tickets that are issued and not used, the oldest first.
#[derive(Default)]
struct Tickets(VecDeque<(Instant, String)>);

impl Tickets {
    fn add(&mut self, ticket: String, now: Instant) {
        self.forget_expired(now);
        if self.0.len() >= MAX_TICKETS {
            self.0.pop_front();
        }
        self.0.push_back((now, ticket));
    }

    /// Whether the ticket is valid. It is not valid a second time.
    fn redeem(&mut self, ticket: &str, now: Instant) -> bool {
        self.forget_expired(now);
        let found = self.0.iter().position(|(_, known)| constant_time_eq(known, ticket));
        found.is_some_and(|index| self.0.remove(index).is_some())
    }

    fn forget_expired(&mut self, now: Instant) {
        let expired = |issued: &Instant| now.duration_since(*issued) >= TICKET_LIFETIME;
        while self.0.front().is_some_and(|(issued, _)| expired(issued)) {
            self.0.pop_front();
        }
    }
}

/// 128 bits from the operating system, in hexadecimal.
fn new_ticket() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Whether the request holds the token, in `Authorization` or in a cookie.
fn sends_token(connection: &Connection, token: &str) -> bool {
    let cookies = connection.header("Cookie").unwrap_or_default();
    sends_bearer(connection, token) || has_cookie(cookies, token)
}

/// Whether the request sends this token as `Authorization: Bearer`.
pub fn sends_bearer(connection: &Connection, token: &str) -> bool {
    bearer_token(connection).is_some_and(|given| constant_time_eq(given, token))
}

/// The token that the request sends as `Authorization: Bearer` (RFC 6750 section 2.1).
pub fn bearer_token(connection: &Connection) -> Option<&str> {
    let (scheme, token) = connection.header("Authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a `Cookie` header field (RFC 6265 section 4.2.1) holds the token. A browser may send
/// several cookies of one name; then one of them must hold it.
fn has_cookie(cookies: &str, token: &str) -> bool {
    let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    values.any(|value| constant_time_eq(value, token))
}

/// Whether two texts are equal. Compares every byte, also behind the first difference, so that the time
/// this takes does not tell how much of a guess was right. (The length is no secret.)
pub(super) fn constant_time_eq(left: &str, right: &str) -> bool {
    let differences = left.bytes().zip(right.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    left.len() == right.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(constant_time_eq("secret", "secret"));
        for other in ["", "secre", "secrets", "Secret", "secreT"] {
            assert!(!constant_time_eq(other, "secret"));
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let has = |cookies: &str| has_cookie(&cookies.replace('T', COOKIE), "t=1");
        for good in ["T=t=1", "a=b; T=t=1; c", "T=x; T=t=1"] {
            assert!(has(good), "{good}");
        }
        for bad in
            ["", "t=1", "T", "T=", "xT=t=1", "T=\"t=1\"", "T=t", "a=T=t=1", "T =t=1", "T= t=1"]
        {
            assert!(!has(bad), "{bad}");
        }
        assert!(!has_cookie("Threadcast_Token=t=1", "t=1"));
    }

    #[test]
    fn a_ticket_works_once_and_not_for_long() {
        let (mut tickets, start) = (Tickets::default(), Instant::now());
        let almost = start + TICKET_LIFETIME - Duration::from_millis(1);
        for name in ["a", "b", "c"] {
            tickets.add(name.into(), start);
        }
        assert!(!tickets.redeem("d", start) && !tickets.redeem("", start));
        assert!(tickets.redeem("b", start) && !tickets.redeem("b", start));
        assert!(tickets.redeem("c", almost));
        assert!(!tickets.redeem("a", start + TICKET_LIFETIME) && tickets.0.is_empty());
    }

    #[test]
    fn the_oldest_tickets_make_room() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        for number in 0..=MAX_TICKETS {
            tickets.add(number.to_string(), now);
        }
        assert_eq!(tickets.0.len(), MAX_TICKETS);
        assert!(!tickets.redeem("0", now) && tickets.redeem("1", now));
    }
}
