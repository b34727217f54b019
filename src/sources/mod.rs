//! Where events come from besides publishers.

#[cfg(feature = "metrics")]
pub mod tick;
