//! The parent's side of the physical limit: starts the helper process and gives it its orders.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::feeder::{FeedReport, Feeder, Phase};
use crate::floor_child::{decode_report, encode_order};
use crate::target::Target;

const HINT: &str = "look for a message of the helper process above";

/// A running helper process. Ends when it is dropped.
pub struct Floor {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl Floor {
    /// Starts the helper; it will accept exactly `clients` connections, and keep off CPU
    /// `not_cpu`, the generator's.
    pub fn start(clients: usize, not_cpu: Option<usize>) -> Result<Self> {
        Self::spawn(&["--clients", &clients.to_string()], not_cpu)
    }

    /// Starts the helper as an echo server for as many as come.
    pub fn echo(not_cpu: Option<usize>) -> Result<Self> {
        Self::spawn(&["--echo"], not_cpu)
    }

    fn spawn(mode: &[&str], not_cpu: Option<usize>) -> Result<Self> {
        let failed = |e: std::io::Error| Failure::new(format!("no helper process: {e}"), HINT);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("floor-child").args(mode);
        if let Some(cpu) = not_cpu {
            command.args(["--not-cpu", &cpu.to_string()]);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let orders = child.stdin.take();
        let stdout = child.stdout.take();
        let answers = stdout.ok_or_else(|| Failure::new("the helper has no stdout", HINT))?;
        let mut floor = Self { child, orders, answers: BufReader::new(answers), port: 0 };
        let line = floor.line()?;
        floor.port = line
            .trim()
            .parse()
            .map_err(|_| Failure::new(format!("the helper said {line:?}, not its port"), HINT))?;
        Ok(floor)
    }

    /// Where it listens.
    pub fn target(&self) -> Target {
        Target::local(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }

    /// The process to read figures from.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(length) if length > 0 => Ok(line),
            Ok(_) => Err(Failure::new("the helper process ended early", HINT)),
            Err(e) => Err(Failure::new(format!("no word from the helper process: {e}"), HINT)),
        }
    }
}

impl Feeder for Floor {
    fn feed(&mut self, phase: &Phase) -> Result<FeedReport> {
        let order = encode_order(phase);
        let Some(orders) = &mut self.orders else {
            return Err(Failure::new("the helper process takes no orders", HINT));
        };
        writeln!(orders, "{order}")
            .map_err(|e| Failure::new(format!("the helper process is gone: {e}"), HINT))?;
        let line = self.line()?;
        decode_report(&line)
            .ok_or_else(|| Failure::new(format!("the helper said {line:?}, no report"), HINT))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The end of its stdin is its signal to go.
        drop(self.orders.take());
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Our own child, still unwaited, so the pid cannot have been reused.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
