//! Where events come from besides publishers.

pub mod tick;
