//! The program: flags, logging, signals, start and stop.
#![deny(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;
use threadcast::flags::{Command, HELP};
use threadcast::os::sys;
use threadcast::{Config, Server};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let config = match Config::read(arguments, |name| std::env::var(name).ok()) {
        Ok(Command::Run(config)) => *config,
        Ok(Command::Help) => return print(HELP),
        Ok(Command::Version) => {
            return print(concat!("threadcast ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(error) => {
            eprintln!("threadcast: {error}");
            return ExitCode::from(2);
        }
    };
    // Before any thread: a signal must find its handler.
    let signalled = Arc::new(AtomicBool::new(false));
    let signals = [SIGTERM, SIGINT].iter().try_for_each(|signal| {
        // The second signal ends the process in its handler, with the shell's code for it.
        register_conditional_shutdown(*signal, 128 + signal, Arc::clone(&signalled)).map(drop)?;
        signal_hook::flag::register(*signal, Arc::clone(&signalled)).map(drop)
    });
    let signals = signals.and_then(|()| Signals::new([SIGTERM, SIGINT]));
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot wait for signals: {error}")),
    };
    // tiny_http calls the end of its accept thread an error; that is how a pipe is closed to others.
    let logger = simple_logger::SimpleLogger::new()
        .with_level(config.log)
        .with_module_level("tiny_http", log::LevelFilter::Off);
    if let Err(error) = logger.with_utc_timestamps().init() {
        return fail(&format!("cannot log: {error}"));
    }
    sys::set_up_allocator();
    sys::enlarge_futex_hash();
    let server = match Server::start(config) {
        Ok(server) => server,
        Err(error) => return fail(&error.to_string()),
    };
    print(&format!("listening on http://{}\n", server.address()));

    let signal = signals.forever().next();
    log::info!("signal {}: shutting down", signal.unwrap_or_default());
    if !server.shutdown() {
        log::warn!("some clients did not leave in time; their connections were cut");
    }
    ExitCode::SUCCESS
}

/// Prints to standard output; that nobody reads it is no reason to stop.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

fn fail(message: &str) -> ExitCode {
    eprintln!("threadcast: {message}");
    ExitCode::FAILURE
}
