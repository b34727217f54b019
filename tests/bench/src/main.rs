//! Load generator for push servers: Server-Sent Events, WebSockets, and the floor under both.
//!
//! It drives any server that speaks this contract, threadcast or another:
//!
//! - `GET /events?topic=T`: a stream of Server-Sent Events.
//! - `POST /publish?topic=T`: the body becomes one event; answers `{"id":…,"subscribers":N}`.
//!   With `application/x-ndjson`, each line `{"topic":…,"data":…}` becomes one.
//! - upgrade on `/ws?topic=T`: a first message of greeting, then each event as JSON text.
//! - upgrade on `/echo`: every message comes straight back.
//!
//! How it measures, and where to read on:
//!
//! - **Open loop.** Times are planned before the run; latency counts from the plan, so that a
//!   server which stalls pays for all that should have happened meanwhile (`feeder.rs`).
//! - **The generator is measured too.** One thread reads all clients (`swarm.rs`); a run in which
//!   that thread was short of CPU is marked invalid (`window.rs`).
//! - **Server CPU** is the kernel's nanosecond clock of the whole process, read at rest before and
//!   after (`sys.rs`, `window.rs`).
//! - **A floor.** `floor` and `compare-floor` measure a process that does nothing but `send(2)`
//!   the same bytes (`floor_child.rs`): no server can be cheaper per delivery one `send` at a time.
#![deny(unsafe_code)]

mod churn;
mod cli;
mod compare;
mod compare_floor;
mod connection;
mod echo;
mod echo_report;
mod error;
mod fanout;
mod fanout_report;
mod feeder;
mod floor;
mod floor_child;
mod floor_echo;
mod http;
mod idle;
mod ledger;
mod machine;
mod options;
mod post;
mod procfs;
mod publish_cost;
mod publisher;
mod ramp;
mod replay;
mod report;
mod returning;
mod saturate;
mod sse;
mod stamp;
mod swarm;
mod sys;
mod target;
mod websocket;
mod window;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("threadcast-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
