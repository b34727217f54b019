//! The program: flags, logging, signals, start and stop.
//!
//! The main thread starts the [`Server`], whose threads do the work, and then blocks until SIGTERM or
//! SIGINT comes. It shuts the server down and waits for clients to leave, up to `--drain`. A second
//! signal ends the process at once.
#![deny(unsafe_code)]

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use log::{Log, Metadata, Record};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;
use simple_logger::SimpleLogger;
use threadcast::Server;
use threadcast::flags::{self, Command, HELP};
use threadcast::os::sys;

fn main() -> ExitCode {
    // Usage errors end with 2, as with most programs; what fails later with 1.
    let arguments = std::env::args_os().skip(1);
    let (config, log) = match flags::read(arguments, |name| std::env::var(name).ok()) {
        Ok(Command::Run { config, log }) => (*config, log),
        Ok(Command::Help) => return print(HELP),
        Ok(Command::Version) => {
            return print(concat!("threadcast ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(error) => {
            eprintln!("threadcast: {error}");
            return ExitCode::from(2);
        }
    };
    // Before any thread is started: a signal must find its handler.
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
    // A journal that reaches the limit of file sizes (ulimit -f) is a full disk: the signal for it would end
    // the process. With a handler, whatever it does, `write` returns the error.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        return fail(&format!("cannot wait for signals: {error}"));
    }
    // tiny_http logs the end of its accept thread as an error; that end is how its listening socket is
    // closed to others (see src/listener/pipe.rs).
    let logger = SimpleLogger::new()
        .with_level(log)
        .with_module_level("tiny_http", log::LevelFilter::Off)
        .with_utc_timestamps();
    if let Err(error) = log::set_boxed_logger(Box::new(Logger(logger))) {
        return fail(&format!("cannot log: {error}"));
    }
    log::set_max_level(log);
    // Both before the threads that they are for.
    sys::set_up_allocator();
    sys::enlarge_futex_hash();
    let server = match Server::start(config) {
        Ok(server) => server,
        Err(error) => return fail(&error.to_string()),
    };
    // On standard output, for scripts: with port 0 this is where the port is told.
    print(&format!("listening on http://{}\n", server.address()));

    let signal = signals.forever().next();
    log::info!("signal {}: shutting down", signal.unwrap_or_default());
    if !server.shutdown() {
        log::warn!("some clients did not leave in time; their connections were cut");
    }
    ExitCode::SUCCESS
}

/// Prints to standard output. That nobody reads it (`EPIPE`) is no reason to stop.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// The program's log. A line that cannot be written, as on a full disk, is lost: simple_logger panics then,
/// which would end the thread that has something to say.
struct Logger(SimpleLogger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
    }

    fn flush(&self) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.flush()));
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("threadcast: {message}");
    ExitCode::FAILURE
}
