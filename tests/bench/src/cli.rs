//! The command line.

use clap::{Parser, Subcommand};

use crate::error::{Failure, Result};
use crate::options::{Common, Load, Own};
use crate::procfs::Server;
use crate::target::Transport;
use crate::{
    churn, compare, compare_floor, echo, echo_report, fanout_report, floor_child, idle,
    publish_cost, ramp, replay, returning, saturate,
};

/// Open-loop load generator for push servers (SSE and WebSocket).
#[derive(Parser)]
#[command(name = "threadcast-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// This server, its peers and the floor, every workload in turn; a table and a page.
    Compare(compare::Options),
    /// One publisher, many clients: latency and cost per delivery.
    Fanout {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        load: Load,
        /// How the clients are connected.
        #[arg(long, value_enum, default_value = "sse")]
        transport: Transport,
        /// The topic published to and subscribed to.
        #[arg(long, default_value = "bench")]
        topic: String,
        /// Events per publish request; more than 1 goes out as lines of JSON.
        #[arg(long, default_value_t = 1)]
        batch: u64,
    },
    /// WebSocket echo, closed loop, or open loop with --rate.
    Echo {
        #[command(flatten)]
        common: Common,
        /// Connections.
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Payload bytes per message, at least 33.
        #[arg(long, default_value_t = 100)]
        size: usize,
        /// Length of the measured stretch in seconds.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Seconds of load before it that do not count.
        #[arg(long, default_value_t = 1.0)]
        warmup: f64,
        /// Closed loop: messages under way per connection.
        #[arg(long, default_value_t = 1, conflicts_with = "rate")]
        inflight: usize,
        /// Open loop: messages per second over all connections.
        #[arg(long)]
        rate: Option<f64>,
        /// Binary messages instead of text.
        #[arg(long)]
        binary: bool,
    },
    /// What a client costs that only listens: threads, descriptors, memory.
    Idle {
        #[command(flatten)]
        common: Common,
        /// Clients.
        #[arg(long, default_value_t = 1000)]
        clients: usize,
        /// How the clients are connected.
        #[arg(long, value_enum, default_value = "sse")]
        transport: Transport,
        /// Seconds they stay before the figures are read.
        #[arg(long, default_value_t = 3.0)]
        wait: f64,
        /// The topic they subscribe to.
        #[arg(long, default_value = "bench")]
        topic: String,
    },
    /// How long it takes to connect many clients, and whether that grows.
    Ramp {
        #[command(flatten)]
        common: Common,
        /// Clients.
        #[arg(long, default_value_t = 1000)]
        clients: usize,
        /// How the clients are connected.
        #[arg(long, value_enum, default_value = "sse")]
        transport: Transport,
        /// Connections under way at a time in the second pass; the first goes one by one.
        #[arg(long, default_value_t = 100)]
        concurrency: usize,
        /// The topic they subscribe to.
        #[arg(long, default_value = "bench")]
        topic: String,
    },
    /// Clients that come and go as fast as they can while a fan-out runs.
    Churn {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        load: Load,
        /// How the clients are connected.
        #[arg(long, value_enum, default_value = "sse")]
        transport: Transport,
        /// Clients that come and go together.
        #[arg(long, default_value_t = 16)]
        at_once: usize,
        /// The topic published to and subscribed to.
        #[arg(long, default_value = "bench")]
        topic: String,
    },
    /// The highest rate at which the p99 latency stays under a bound.
    Saturate {
        #[command(flatten)]
        common: Common,
        /// --rate is the first rate tried, --seconds and --warmup are those of a step.
        #[command(flatten)]
        load: Load,
        /// How the clients are connected.
        #[arg(long, value_enum, default_value = "sse")]
        transport: Transport,
        /// The bound of the p99 latency in milliseconds.
        #[arg(long, default_value_t = 100.0)]
        bound: f64,
        /// How many times the gap between the last rates is halved.
        #[arg(long, default_value_t = 3)]
        halvings: u32,
        /// The topic published to and subscribed to.
        #[arg(long, default_value = "bench")]
        topic: String,
    },
    /// Clients that come back at once with Last-Event-ID and want what they missed.
    Replay {
        #[command(flatten)]
        common: Common,
        /// Clients.
        #[arg(long, default_value_t = 500)]
        clients: usize,
        /// Events each has missed.
        #[arg(long, default_value_t = 500)]
        events: u64,
        /// Payload bytes per event, at least 33.
        #[arg(long, default_value_t = 100)]
        size: usize,
        /// Connections under way at a time.
        #[arg(long, default_value_t = 256)]
        at_once: usize,
        /// The topic.
        #[arg(long, default_value = "bench")]
        topic: String,
    },
    /// Live events while many clients return at once. The server must keep enough: with --history 4000,
    /// the defaults.
    Returning {
        #[command(flatten)]
        common: Common,
        /// --clients are those that stay.
        #[command(flatten)]
        load: Load,
        /// How those are connected that stay.
        #[arg(long, value_enum, default_value = "sse")]
        transport: Transport,
        /// Clients that return, a quarter of --seconds after the beginning.
        #[arg(long, default_value_t = 5000)]
        returning: usize,
        /// Events each of them has missed.
        #[arg(long, default_value_t = 1000)]
        events: u64,
        /// Connections of theirs under way at a time.
        #[arg(long, default_value_t = 256)]
        at_once: usize,
        /// The topic published to and subscribed to.
        #[arg(long, default_value = "bench")]
        topic: String,
    },
    /// Server CPU of a publish request on a kept connection, and on a new one each. Needs --pid.
    PublishCost {
        #[command(flatten)]
        common: Common,
        /// Requests of a stretch.
        #[arg(long, default_value_t = 2000)]
        requests: u64,
        /// Payload bytes per event.
        #[arg(long, default_value_t = 100)]
        size: usize,
        /// How many stretches of each kind.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// A topic that nobody subscribes to.
        #[arg(long, default_value = "publish-cost")]
        topic: String,
    },
    /// The physical limit: fanout from a process that only calls send(2). Uses no server.
    Floor {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        own: Own,
    },
    /// Floor and server in turn, and the ratio of their CPU per delivery. Needs --pid.
    CompareFloor {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        load: Load,
        /// How the server's clients are connected; the floor always sends SSE.
        #[arg(long, value_enum, default_value = "sse")]
        transport: Transport,
        /// The topic published to and subscribed to.
        #[arg(long, default_value = "bench")]
        topic: String,
        /// How many times each.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// The helper process of floor.
    #[command(hide = true)]
    FloorChild {
        #[arg(long, default_value_t = 0)]
        clients: usize,
        #[arg(long)]
        echo: bool,
        #[arg(long)]
        not_cpu: Option<usize>,
    },
}

/// Parses the command line and runs what it asks for.
pub fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Compare(options) => compare::run(&options)?,
        Command::Fanout { common, load, transport, topic, batch } => {
            let plan = load.plan(transport, &topic, batch, common.own.cpu)?;
            let (target, server) = common.open()?;
            let outcome = compare_floor::server_run(&plan, &target, server.as_ref())?;
            let clock = server.as_ref().map(Server::clock_name);
            fanout_report::report("fanout", &plan, &outcome, clock).print(common.own.json);
        }
        Command::Echo { common, connections, size, seconds, warmup, inflight, rate, binary } => {
            let plan = echo::Plan { connections, size, seconds, warmup, inflight, rate, binary };
            plan.check()?;
            let (target, server) = common.open()?;
            let outcome = echo::run(&plan, target, server.as_ref())?;
            let clock = server.as_ref().map(Server::clock_name);
            echo_report::report(&plan, &outcome, clock).print(common.own.json);
        }
        Command::Idle { common, clients, transport, wait, topic } => {
            let plan = idle::Plan { transport, clients, wait, topic };
            let (target, server) = common.open()?;
            let bare = idle::Bare::connect(clients)?;
            idle::run(&plan, target, server.as_ref(), &bare)?.print(common.own.json);
        }
        Command::Ramp { common, clients, transport, concurrency, topic } => {
            let plan = ramp::Plan { transport, clients, concurrency };
            let (target, server) = common.open()?;
            for report in ramp::run(&plan, &target, &topic, server.as_ref())? {
                report.print(common.own.json);
            }
        }
        Command::Floor { load, own } => {
            let plan = load.plan(Transport::Sse, "bench", 1, own.cpu)?;
            own.pin()?;
            let (outcome, clock) = compare_floor::floor_run(&plan)?;
            fanout_report::report("floor", &plan, &outcome, clock).print(own.json);
        }
        Command::CompareFloor { common, load, transport, topic, rounds } => {
            let plan = load.plan(transport, &topic, 1, common.own.cpu)?;
            let (target, server) = common.open()?;
            let Some(server) = server else {
                return Err(Failure::new("a ratio of CPU times needs --pid", "give the server's"));
            };
            if rounds == 0 || rounds > 1000 {
                return Err(Failure::new("--rounds is out of range", "use 1 to 1000"));
            }
            compare_floor::run(&plan, rounds, &target, &server, common.own.json)?
                .print(common.own.json);
        }
        Command::Churn { common, load, transport, at_once, topic } => {
            let fan = load.plan(transport, &topic, 1, common.own.cpu)?;
            let (target, server) = common.open()?;
            let plan = churn::Plan { fan, at_once };
            churn::run(&plan, &target, server.as_ref())?.print(common.own.json);
        }
        Command::Saturate { common, load, transport, bound, halvings, topic } => {
            let step = load.plan(transport, &topic, 1, common.own.cpu)?;
            let (target, server) = common.open()?;
            let plan =
                saturate::Plan { step, bound, doublings: saturate::MOST_DOUBLINGS, halvings };
            let mut one = |step: &_| compare_floor::server_run(step, &target, server.as_ref());
            saturate::run(&plan, &mut one)?.print(common.own.json);
        }
        Command::Replay { common, clients, events, size, at_once, topic } => {
            let plan = replay::Plan { clients, events, size, at_once, topic };
            let (target, server) = common.open()?;
            replay::run(&plan, &target, server.as_ref())?.print(common.own.json);
        }
        Command::Returning { common, load, transport, returning, events, at_once, topic } => {
            let fan = load.plan(transport, &topic, 1, common.own.cpu)?;
            let size = fan.size;
            let back = replay::Plan { clients: returning, events, size, at_once, topic };
            let (target, server) = common.open()?;
            returning::run(&returning::Plan { fan, back }, &target, server.as_ref())?
                .print(common.own.json);
        }
        Command::PublishCost { common, requests, size, rounds, topic } => {
            let plan = publish_cost::Plan { requests, size, rounds, topic };
            let (target, server) = common.open()?;
            let Some(server) = server else {
                return Err(Failure::new("CPU time needs --pid", "give the server's"));
            };
            publish_cost::run(&plan, &target, &server, common.own.json)?.print(common.own.json);
        }
        Command::FloorChild { clients, echo, not_cpu } => floor_child::run(clients, echo, not_cpu)?,
    }
    Ok(())
}
