//! `tail -f` for browsers: each line that is added to a file becomes an event on the topic `tail`.
//!
//! ```sh
//! cargo run --example tail -- /var/log/syslog
//! curl -N 'http://127.0.0.1:3000/events?topic=tail'
//! ```
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::time::Duration;
use std::{env, process, thread};

use threadcast::Server;

/// How often the file is asked for more. The standard library cannot wait for it.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

fn main() {
    if let Err(error) = run() {
        eprintln!("tail: {error}");
        process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("name a file, and if you like an address to listen on")?;
    let address = env::args().nth(2).unwrap_or("127.0.0.1:3000".into());
    let mut file = File::open(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    // From the end, and that before anybody can connect: what a client has seen added will come.
    file.seek(SeekFrom::End(0))?;
    let server = Server::builder().listen(&address).start()?;
    println!("listening on http://{}", server.address());
    // The server has its own threads, so this one is free to read.
    publish_lines(&server, BufReader::new(file))
}

fn publish_lines(server: &Server, mut file: BufReader<File>) -> Result<(), Box<dyn Error>> {
    let mut line = Vec::new();
    loop {
        file.read_until(b'\n', &mut line)?;
        // A line without its end stays, until the rest of it is there.
        if line.pop_if(|last| *last == b'\n').is_some() {
            server.publish("tail", String::from_utf8_lossy(&line))?;
            line.clear();
            continue;
        }
        // A file that has become shorter begins anew.
        if file.get_ref().metadata()?.len() < file.stream_position()? {
            file.rewind()?;
            line.clear();
        }
        thread::sleep(POLL_INTERVAL);
    }
}
