//! The progress of a long job. Each client has a job of its own, in the client's thread: it begins when the
//! client connects, and is given up when the client leaves.
//!
//! ```sh
//! cargo run --example progress
//! curl -N http://127.0.0.1:3000/progress
//! ```
use std::time::Duration;
use std::{env, process, thread};

use threadcast::{EventStream, HandlerResult, Response, Server};

const STEPS: u32 = 20;

/// An `EventSource` reconnects when its stream ends, and that would be another job: so it is closed.
const PAGE: &str = r#"<!doctype html><title>Progress</title>
<progress id="bar" value="0"></progress>
<script>
  const job = new EventSource("/progress");
  job.addEventListener("step", (event) => {
    [bar.value, bar.max] = event.data.split("/");
  });
  job.addEventListener("done", () => job.close());
</script>"#;

fn main() {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let server = Server::builder()
        .listen(&address)
        // Of the built-in paths none is wanted.
        .bare()
        .route("GET", "/", |_| Response::html(PAGE))
        .stream("/progress", run_job)
        .start()
        .unwrap_or_else(|error| {
            eprintln!("progress: {error}");
            process::exit(1)
        });
    println!("listening on http://{}", server.address());
    server.wait();
}

/// Runs the job and tells its client of each step.
fn run_job(client: &mut EventStream) -> HandlerResult {
    for step in 1..=STEPS {
        do_step();
        // The error of a client that is gone ends the job: nobody waits for its result.
        client.send("step", format!("{step}/{STEPS}"))?;
    }
    client.send("done", "")?;
    Ok(())
}

/// A step of the job. It blocks its client's thread, and nobody else's.
fn do_step() {
    thread::sleep(Duration::from_millis(100));
}
