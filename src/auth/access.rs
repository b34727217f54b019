//! Who may read: `--subscribe-token`, and tickets that stand for it once.
//!
//! A program sends the token as `Authorization: Bearer`. A browser cannot: `EventSource` and
//! `WebSocket` take a URL and nothing else. It sends a cookie, if somebody in front of this server
//! has set one (best `HttpOnly`, `Secure` and `SameSite=Strict`), or a ticket: got for the token by
//! `POST /ticket`, it goes into the URL, works for one request, and ends soon. The token itself is
//! never taken from a URL, which proxies log and histories keep.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::Response;
use crate::listener::connection::Connection;

/// The cookie that may hold the token.
const COOKIE: &str = "threadcast_token";

/// How long a ticket waits for its request: long enough for a slow network, too short for a log.
const TICKET_LIFETIME: Duration = Duration::from_secs(30);

/// How many tickets may wait. Beyond that the oldest go first, so that nobody who knows the token
/// is turned away; whoever held one asks again.
const MAX_TICKETS: usize = 10_000;

/// What readers must know, and the tickets that are out. (No `Debug`: it would print them.)
pub struct Access {
    token: Option<String>,
    tickets: Mutex<Tickets>,
}

impl Access {
    /// `token` as in [`crate::Config::subscribe_token`].
    pub fn new(token: Option<String>) -> Access {
        Access { token, tickets: Mutex::default() }
    }

    /// Whether anybody may read.
    pub fn is_public(&self) -> bool {
        self.token.is_none()
    }

    /// Checks that a request may read. This uses its ticket up, whatever becomes of it then.
    ///
    /// # Errors
    /// The 401 that says what to send.
    pub fn check(&self, connection: &Connection, ticket: Option<&str>) -> Result<(), Response> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let redeem = |ticket: &str| self.tickets().redeem(ticket, Instant::now());
        if sends_token(connection, token) || ticket.is_some_and(redeem) {
            return Ok(());
        }
        Err(unauthorized(
            "reading needs the subscribe token: send 'Authorization: Bearer' with it, the cookie \
             threadcast_token, or in the query a ticket from POST /ticket, which works once",
        ))
    }

    /// Issues a ticket to who holds the token.
    ///
    /// # Errors
    /// The 401 that says what to send; 404 where reading is public.
    pub fn issue(&self, connection: &Connection) -> Result<Response, Response> {
        let Some(token) = &self.token else {
            let message = "no ticket is needed: reading is public without --subscribe-token";
            return Err(Response::error(404, "not_protected", message));
        };
        if !sends_token(connection, token) {
            return Err(unauthorized(
                "a ticket needs the subscribe token: send 'Authorization: Bearer' with it, or the \
                 cookie threadcast_token",
            ));
        }
        let ticket = new_ticket()
            .map_err(|_| Response::error(500, "internal", "the system gives no random numbers"))?;
        self.tickets().add(ticket.clone(), Instant::now());
        let answer = json!({"ticket": ticket, "expiresInSeconds": TICKET_LIFETIME.as_secs()});
        Ok(Response::json(200, &answer))
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unauthorized(message: &str) -> Response {
    Response::error(401, "unauthorized", message).with("WWW-Authenticate", "Bearer")
}

/// The tickets that wait for their requests, the oldest first.
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

    /// Whether there is such a ticket; there is none afterwards.
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

/// Whether the request holds the token, in one of the two ways that last.
fn sends_token(connection: &Connection, token: &str) -> bool {
    let cookies = connection.header("Cookie").unwrap_or_default();
    sends_bearer(connection, token) || has_cookie(cookies, token)
}

/// Whether the request says `Authorization: Bearer` with this token (RFC 6750 section 2.1).
pub fn sends_bearer(connection: &Connection, token: &str) -> bool {
    match connection.header("Authorization").unwrap_or_default().split_once(' ') {
        Some((scheme, given)) => {
            scheme.eq_ignore_ascii_case("bearer") && constant_time_eq(given.trim(), token)
        }
        None => false,
    }
}

/// Whether a `Cookie` header field (RFC 6265 section 4.2.1) holds the token. A browser may send
/// several cookies of one name; then one must be right.
fn has_cookie(cookies: &str, token: &str) -> bool {
    let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    values.any(|value| constant_time_eq(value, token))
}

/// Compares every byte whatever the first ones are, so that the time taken tells nothing about
/// how much of a guess was right. (The length is no secret.)
pub fn constant_time_eq(left: &str, right: &str) -> bool {
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
