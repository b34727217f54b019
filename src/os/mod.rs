//! What only the operating system can tell or do: time, limits, memory, and the state of a socket.
//! It starts no threads; only [`send`] waits.

pub mod clock;
pub mod limits;
pub(crate) mod memory;
pub mod procfs;
pub mod send;
pub mod sys;
pub mod task;
pub mod tcp;
