//! What only the operating system can tell or do.

pub(crate) mod memory;
pub mod sys;
