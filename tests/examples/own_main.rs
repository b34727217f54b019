//! A server inside a program that has a `main` of its own: with its own signals, settings, rules for who may
//! connect, and exit status.
//!
//! ```sh
//! cargo run --example own_main
//! curl -N 'http://127.0.0.1:3000/time?key=secret'
//! ```
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use std::{env, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use threadcast::{EventStream, HandlerResult, Request, Response, Server};

fn main() -> ExitCode {
    let problem = match run() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => "some clients did not leave in time".into(),
        Err(error) => error,
    };
    eprintln!("own_main: {problem}");
    ExitCode::FAILURE
}

/// Serves until a signal comes. Returns whether all clients left in time.
fn run() -> Result<bool, Box<dyn Error>> {
    // Before the server's threads are there: a signal must find its handler.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let server = Server::builder()
        .listen(&env::args().nth(1).unwrap_or("127.0.0.1:3000".into()))
        .configure(|config| config.set_drain(Duration::from_secs(2)))
        .check(may_connect)
        .stream("/time", send_time)
        .start()?;
    println!("listening on http://{}", server.address());
    thread::scope(|scope| {
        let stop = scope.spawn(|| {
            signals.forever().next();
            server.shutdown()
        });
        // Here is the program's own work. This one has none, and waits for the end.
        server.wait();
        stop.join().map_err(|_| "the shutdown failed".into())
    })
}

/// Asked for each event stream and each WebSocket, the built-in ones too.
fn may_connect(request: &Request) -> Result<(), Response> {
    match request.parameter("key").as_deref() {
        Some("secret") => Ok(()),
        _ => Err(Response::error(403, "forbidden", "add ?key= with the right key")),
    }
}

fn send_time(client: &mut EventStream) -> HandlerResult {
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        client.send("time", now.as_secs().to_string())?;
        // The shutdown ends this wait, where a `sleep` would go on.
        client.wait(Duration::from_secs(1))?;
    }
}
