//! The pieces of the server that are at work for every event, every delivery and every request,
//! each measured on its own, from inside a process that uses the server as a library.
//!
//! `cargo bench -p threadcast-bench`; what the lines mean stands in the README beside.
#![deny(unsafe_code)]

mod encode;
mod heads;
mod hub;
mod room;

fn main() {
    room::raise();
    room::tell_shortage();
    divan::main();
}
