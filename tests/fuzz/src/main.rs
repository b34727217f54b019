//! Fuzz and property tests of threadcast.
//!
//! ```text
//! cargo run --release -- [--seconds 60] [--seed N] [TARGET…]
//! cargo run --release -- --list
//! ```
//!
//! Each target throws random input at the server, which runs inside this process, or at one of its
//! functions, for so many seconds, and compares what comes back with a reference that was written
//! from the standard and shares no code with the server. The first failure ends the run with exit
//! code 1; the printed seed repeats it, and the printed input is as small as could be found.

mod bystanders;
mod campaign;
mod chunks;
mod door;
mod door_chunks;
mod door_heads;
mod door_noise;
mod encoding;
mod eventstream;
mod exchange;
mod frames;
mod heads;
mod live;
mod model;
mod mutations;
mod panics;
mod queries;
mod reference;
mod refusals;
mod replay;
mod replay_cases;
mod replay_client;
mod requests;
mod requests_cases;
mod requests_parts;
mod responses;
mod rng;
mod websockets;
mod wsclient;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use campaign::{Outcome, Plan};

/// One thing that is tested.
struct Target {
    name: &'static str,
    about: &'static str,
    run: fn(&Plan) -> Outcome,
}

const TARGETS: &[Target] = &[
    Target { name: "http", about: "mutated requests against a live server", run: requests::run },
    Target { name: "query", about: "query, topic and id parsing", run: queries::run },
    Target { name: "sse", about: "encoding against an independent parser", run: encoding::run },
    Target { name: "websocket", about: "bytes against a reference parser", run: websockets::run },
    Target { name: "replay", about: "random histories against a model", run: replay::run },
    Target { name: "door", about: "heads through the pipe, noise, chunked bodies", run: door::run },
];

const USAGE: &str = "usage: threadcast-fuzz [--seconds N] [--seed N] [TARGET…], or --list";

/// What the command line asks for.
struct Options {
    time: Duration,
    seed: u64,
    targets: Vec<&'static Target>,
}

fn main() -> ExitCode {
    // For whoever runs several at once, each in a process of its own.
    if std::env::args().nth(1).as_deref() == Some("--list") {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            for target in TARGETS {
                eprintln!("  {:10} {}", target.name, target.about);
            }
            return ExitCode::from(2);
        }
    };
    panics::count();
    for target in options.targets {
        println!("{}: {:?} from seed {}", target.name, options.time, options.seed);
        let started = Instant::now();
        let plan = Plan { seed: options.seed, until: started + options.time };
        match (target.run)(&plan) {
            Ok(tally) => {
                let seconds = started.elapsed().as_secs_f64();
                println!(
                    "{}: {} cases in {seconds:.0} s. {}",
                    target.name, tally.cases, tally.note
                );
            }
            Err(failure) => {
                println!("{}: FAILED after {} cases", target.name, failure.cases);
                println!("{}", failure.text);
                println!("repeat with: --seed {} {}", failure.seed, target.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut options = Options {
        time: Duration::from_secs(60),
        seed: now.as_millis() as u64,
        targets: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
            value.ok_or_else(|| format!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--seconds" => options.time = Duration::from_secs(number()?),
            "--seed" => options.seed = number()?,
            name => match TARGETS.iter().find(|target| target.name == name) {
                Some(target) => options.targets.push(target),
                None => return Err(format!("there is no target {name:?}")),
            },
        }
    }
    if options.targets.is_empty() {
        options.targets = TARGETS.iter().collect();
    }
    Ok(options)
}
