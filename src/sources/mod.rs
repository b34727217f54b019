//! Where events come from besides publishers.

pub mod subscribers;
#[cfg(feature = "metrics")]
pub mod tick;
