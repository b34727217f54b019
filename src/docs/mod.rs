//! The book: what the server promises, how it is run, and how it works.
//!
//! Read [the tour](tour) first to find your way through the source, [the contract](contract) to write a
//! client, [operation] and [proxies] to run it.

#[doc = include_str!("tour.md")]
pub mod tour {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("contract.md")]
pub mod contract {}

#[doc = include_str!("commands.md")]
pub mod commands {}

#[doc = include_str!("access.md")]
pub mod access {}

#[doc = include_str!("operation.md")]
pub mod operation {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("survives.md")]
pub mod survives {}

#[doc = include_str!("measured.md")]
pub mod measured {}
