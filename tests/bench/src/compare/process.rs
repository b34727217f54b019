//! One peer as a running process: started, answered its first request, ended.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Failure, Result};
use crate::procfs::Switches;
use crate::sys;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one may take to end that was asked to.
const FAREWELL: Duration = Duration::from_secs(3);

/// How a program tells where it listens.
pub enum Port {
    /// It chooses one itself and prints `listening on http://…`.
    Printed,
    /// It was told this one.
    Given(u16),
}

/// A running server. Ends when it is dropped; if this process is killed, the kernel ends it.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its first answer.
    pub started_in: Duration,
    /// A master process must be asked to end, or it leaves its workers behind.
    asked: bool,
    reaped: bool,
}

impl Running {
    /// Starts `command` and waits until it answers. What it says goes into the file `log`.
    pub fn start(mut command: Command, port: &Port, log: &Path) -> Result<Self> {
        const HINT: &str = "see the log of that server in target/bench/logs";
        let io = |what: &str, e: std::io::Error| Failure::new(format!("{what}: {e}"), HINT);
        let program = command.get_program().to_string_lossy().into_owned();
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|e| io("cannot write a log", e))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        sys::die_with_parent(&mut command);
        let begun = Instant::now();
        let mut child = command.spawn().map_err(|e| io(&format!("cannot start {program}"), e))?;
        let stdout = child.stdout.take();
        let asked = matches!(port, Port::Given(_));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on, `drop` ends the child whatever happens.
        let mut running = Self { child, address, started_in: Duration::ZERO, asked, reaped: false };
        running.address = match port {
            Port::Given(port) => SocketAddr::from(([127, 0, 0, 1], *port)),
            Port::Printed => stdout.and_then(printed_address).ok_or_else(|| {
                Failure::new(format!("{program} did not say where it listens"), HINT)
            })?,
        };
        while !answers(running.address) {
            running.reaped = !matches!(running.child.try_wait(), Ok(None));
            if begun.elapsed() > PATIENCE || running.reaped {
                return Err(Failure::new(format!("{program} does not answer"), HINT));
            }
            thread::sleep(Duration::from_millis(1));
        }
        running.started_in = begun.elapsed();
        if asked {
            // A worker has answered; let its brothers start, too.
            thread::sleep(Duration::from_millis(100));
        }
        Ok(running)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it. The kernel's account of its whole life: all its threads, those that ended too, and
    /// all its processes.
    pub fn stop(mut self) -> Option<Switches> {
        self.end()
    }

    fn end(&mut self) -> Option<Switches> {
        if self.reaped {
            return None;
        }
        let pid = self.pid();
        // It is our own child and not waited for yet, so the pid cannot belong to anybody else.
        if self.asked {
            sys::signal(pid, libc::SIGTERM);
        } else {
            sys::signal(pid, libc::SIGKILL);
        }
        let deadline = Instant::now() + FAREWELL;
        loop {
            if let Some(switches) = sys::reap(pid) {
                self.reaped = true;
                return Some(switches);
            }
            if Instant::now() > deadline {
                // Its children first: nobody would be left to end them.
                for member in crate::procfs::tree(pid).into_iter().rev() {
                    sys::signal(member, libc::SIGKILL);
                }
            }
            if Instant::now() > deadline + FAREWELL {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port nobody listens on, for a program that cannot choose one itself.
pub fn free_port() -> Result<u16> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Failure::new(format!("no free port: {e}"), "close some programs"))
}

/// Reads until the line that says it. The rest is read and forgotten, or the pipe would fill up.
fn printed_address(stdout: impl Read + Send + 'static) -> Option<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            if let Some(address) = address_in(&line) {
                let _ = sender.send(address);
            }
        }
    });
    receiver.recv_timeout(PATIENCE).ok()
}

fn address_in(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("listening on http://")?.trim_end().trim_end_matches('/').parse().ok()
}

/// Whether there is an HTTP answer, any answer.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(start == *b"HTTP/")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_address() {
        let expected = Some("127.0.0.1:80".parse().expect("address"));
        assert_eq!(address_in("listening on http://127.0.0.1:80"), expected);
        assert_eq!(address_in("listening on http://127.0.0.1:80/\r"), expected);
        assert_eq!(address_in("Listening"), None);
    }

    #[test]
    fn a_process_that_ends_or_is_missing_is_an_error() {
        let log = std::env::temp_dir().join(format!("threadcast-bench-{}", std::process::id()));
        let error = Running::start(Command::new("true"), &Port::Printed, &log).err();
        assert!(error.expect("no server").to_string().contains("where it listens"));
        let error = Running::start(Command::new("/no/such"), &Port::Printed, &log).err();
        assert!(error.expect("no program").to_string().contains("/no/such"));
        let _ = std::fs::remove_file(log);
    }
}
