//! Who may do what: readers by a token or a ticket ([`access`]), publishers by theirs
//! ([`permission`]), web pages by their origin ([`origin`]); and the log of those who may not
//! ([`refusals`]).
//!
//! The thread of each connection asks, once its request is there. Nothing in here waits for a client;
//! the locks are held for the length of a look-up.

pub mod access;
pub mod error;
pub mod origin;
pub mod permission;
pub mod refusals;
