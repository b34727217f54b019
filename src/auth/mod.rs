//! Who may do what: readers by token and ticket, pages by their origin; and the log of those who may
//! not.

pub mod access;
pub mod origin;
pub mod refusals;
