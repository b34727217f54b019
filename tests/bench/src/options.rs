//! Options that several subcommands share.

use clap::Args;

use crate::error::{Failure, Result};
use crate::fanout;
use crate::procfs::Server;
use crate::sys::run_on;
use crate::target::{Target, Transport};

/// Which server, and how to tell about it.
#[derive(Args)]
pub struct Common {
    /// The server under test.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    url: String,
    /// Its process, for figures from /proc.
    #[arg(long)]
    pid: Option<u32>,
    /// The server sends no greeting on /ws: the answer to the upgrade counts as one.
    #[arg(long)]
    no_greeting: bool,
    /// The server takes one event per publish request only.
    #[arg(long)]
    no_batches: bool,
    /// The generator itself.
    #[command(flatten)]
    pub own: Own,
}

/// The generator itself.
#[derive(Args)]
pub struct Own {
    /// One line of JSON per run on stdout; the table goes to stderr.
    #[arg(long)]
    pub json: bool,
    /// Keep the generator on this CPU; start the server with taskset on others. The scheduler
    /// likes to put a reader beside the writer that wakes it, and then both share one CPU.
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// The load of a fan-out run.
#[derive(Args)]
pub struct Load {
    /// Clients that receive every event.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Events per second, open loop.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Payload bytes per event, at least 33.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Length of the measured stretch in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before it that do not count.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
}

impl Own {
    /// Moves the generator to the CPU it is to have for itself, if any.
    pub fn pin(&self) -> Result<()> {
        let Some(own) = self.cpu else { return Ok(()) };
        run_on(|cpu| cpu == own).map_err(|e| {
            Failure::new(
                format!("cannot run on --cpu {own} ({e})"),
                "see `nproc` for what there is",
            )
        })
    }
}

impl Common {
    /// Pins the generator, then finds the server and its process.
    pub fn open(&self) -> Result<(Target, Option<Server>)> {
        self.own.pin()?;
        let mut target = Target::parse(&self.url)?;
        target.greets = !self.no_greeting;
        target.batches = !self.no_batches;
        Ok((target, Server::find(self.pid)?))
    }
}

impl Load {
    /// The plan of a fan-out run, checked.
    pub fn plan(
        &self,
        transport: Transport,
        topic: &str,
        batch: u64,
        cpu: Option<usize>,
    ) -> Result<fanout::Plan> {
        let plan = fanout::Plan {
            transport,
            clients: self.clients,
            rate: self.rate,
            size: self.size,
            seconds: self.seconds,
            warmup: self.warmup,
            topic: topic.to_owned(),
            batch,
            cpu,
            log: false,
        };
        plan.check()?;
        Ok(plan)
    }
}
