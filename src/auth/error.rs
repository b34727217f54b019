//! Why the server does not do what somebody asks for: each reason with its status, its code and its
//! message.

use std::{error, fmt};

use crate::http::Response;

/// Why somebody may not do what they ask for. Displayed as the line that they are told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// The request comes from a web page of another origin, which is not allowed.
    ForbiddenOrigin {
        /// The page's origin.
        origin: String,
        /// The host that the request is addressed to.
        host: String,
    },
    /// Reading takes the subscribe token, or a ticket.
    ReadingNeedsToken,
    /// A ticket takes the subscribe token.
    TicketNeedsToken,
    /// Tickets stand for the subscribe token, and this server has none.
    NoTicketNeeded,
    /// The operating system gives no random numbers, so there can be no ticket.
    NoRandomNumbers,
    /// Publishing takes the server's token.
    PublishingNeedsToken,
    /// What the server's threads do is shown on its own machine, or to who has the subscribe token.
    OnlyThisMachine,
    /// Without a token, publishing is for a server that only its own machine can reach.
    OnlyFromLoopback,
}

impl AuthError {
    /// The status of the response (RFC 9110 section 15).
    pub fn status(&self) -> u16 {
        match self {
            AuthError::ReadingNeedsToken
            | AuthError::TicketNeedsToken
            | AuthError::PublishingNeedsToken => 401,
            AuthError::ForbiddenOrigin { .. }
            | AuthError::OnlyThisMachine
            | AuthError::OnlyFromLoopback => 403,
            AuthError::NoTicketNeeded => 404,
            AuthError::NoRandomNumbers => 500,
        }
    }

    /// The code for programs, `error.code` in the response's JSON.
    pub fn code(&self) -> &'static str {
        match self {
            AuthError::ReadingNeedsToken
            | AuthError::TicketNeedsToken
            | AuthError::PublishingNeedsToken => "unauthorized",
            AuthError::ForbiddenOrigin { .. } => "forbidden_origin",
            AuthError::OnlyThisMachine | AuthError::OnlyFromLoopback => "forbidden",
            AuthError::NoTicketNeeded => "not_protected",
            AuthError::NoRandomNumbers => "internal",
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthError::ForbiddenOrigin { origin, host } => {
                return write!(
                    f,
                    "origin {origin} is neither this request's host, {host}, nor allowed; see \
                     --allow-origin"
                );
            }
            AuthError::ReadingNeedsToken => {
                "reading needs the subscribe token: send 'Authorization: Bearer' with it, the cookie \
                 threadcast_token, or in the query a ticket from POST /ticket, which works once"
            }
            AuthError::TicketNeedsToken => {
                "a ticket needs the subscribe token: send 'Authorization: Bearer' with it, or the \
                 cookie threadcast_token"
            }
            AuthError::NoTicketNeeded => {
                "no ticket is needed: reading is public without --subscribe-token"
            }
            AuthError::NoRandomNumbers => "the system gives no random numbers",
            AuthError::PublishingNeedsToken => {
                "send 'Authorization: Bearer' with the server's token"
            }
            AuthError::OnlyThisMachine => {
                "this is for the server's own machine: ask from there, at localhost or an address, or \
                 start the server with --subscribe-token"
            }
            AuthError::OnlyFromLoopback => {
                "publishing needs --token unless the server listens on loopback only"
            }
        })
    }
}

impl error::Error for AuthError {}

impl From<AuthError> for Response {
    fn from(error: AuthError) -> Response {
        let response = Response::error(error.status(), error.code(), error.to_string());
        match error.status() {
            // A 401 names the scheme by which a client authenticates (RFC 9110 section 15.5.2).
            401 => response.with("WWW-Authenticate", "Bearer"),
            _ => response,
        }
    }
}
