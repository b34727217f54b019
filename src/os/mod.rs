//! What only the operating system can tell or do.

pub mod clock;
pub mod limits;
pub(crate) mod memory;
pub mod procfs;
pub mod send;
pub mod sys;
