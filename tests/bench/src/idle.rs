//! What a client costs that does nothing: threads, descriptors, memory, and the kernel's share.

use std::time::Duration;

use crate::connection::Discard;
use crate::error::{Failure, Result};
use crate::floor::Floor;
use crate::machine::KernelMemory;
use crate::procfs::Server;
use crate::report::{Report, round};
use crate::swarm::Swarm;
use crate::sys::monotonic_ns;
use crate::target::{Endpoint, Target, Transport};

const AT_ONCE: usize = 32;
/// Bare connections are all alike, so a sample of them is enough.
const SAMPLE: usize = 500;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the clients are connected.
    pub transport: Transport,
    /// How many clients.
    pub clients: usize,
    /// How long they stay idle before the figures are read.
    pub wait: f64,
    /// The topic they subscribe to.
    pub topic: String,
}

/// The kernel's memory before and with the clients, and what the server's process has.
struct Held {
    kernel: KernelMemory,
    rss: u64,
    threads: u64,
    descriptors: Option<u64>,
}

impl Held {
    fn now(server: Option<&Server>) -> Self {
        Self {
            kernel: KernelMemory::now(),
            rss: server.map_or(0, Server::rss_kib),
            threads: server.map_or(0, |server| server.tasks().count()),
            descriptors: server.and_then(Server::descriptors),
        }
    }
}

/// Connects all clients, waits, and reads.
pub fn run(plan: &Plan, target: Target, server: Option<&Server>, bare: &Bare) -> Result<Report> {
    if plan.clients == 0 || !(0.0..=600.0).contains(&plan.wait) {
        return Err(Failure::new("--clients 0 or --wait out of range", "use 1 and up, 0 to 600"));
    }
    wait_for_calm();
    let before = Held::now(server);
    let mut swarm = Swarm::new(target, Endpoint::Events(plan.transport), Some(&plan.topic))?;
    swarm.connect(plan.clients, AT_ONCE)?;
    rest(&mut swarm, plan.wait / 2.0)?;
    let cpu = server.and_then(Server::cpu_ns);
    rest(&mut swarm, plan.wait / 2.0)?;
    let spent = server.and_then(Server::cpu_ns).zip(cpu).map(|(now, before)| now - before);
    let with = Held::now(server);
    let lost = (swarm.closed, swarm.first_loss.take());

    let mut report = Report::new(
        "idle",
        format!("idle: {} {} clients for {} s", plan.clients, plan.transport.name(), plan.wait),
    );
    report.hidden("transport", plan.transport.name());
    report.hidden("clients", plan.clients);
    report.hidden("clients_lost", lost.0);
    if let (count @ 1.., Some(reason)) = &lost {
        report.row("clients lost", format!("{count}, the first: {reason}"));
    }
    let kernel = kernel(&mut report, plan.clients, &before.kernel, &with.kernel, bare.slab);
    match server {
        Some(_) => process(&mut report, plan, &before, &with, spent),
        None => report.row("server", "no figures: give --pid".to_owned()),
    }
    if server.is_some() {
        let rss = (with.rss as f64 - before.rss as f64) / plan.clients as f64;
        report.number("memory_kib_per_client", "RSS and kernel's share", rss + kernel, "KiB");
    }
    let objections = match lost.0 {
        0 => Vec::new(),
        count => vec![format!("{count} clients did not stay")],
    };
    report.verdict(&objections);
    Ok(report)
}

fn rest(swarm: &mut Swarm, seconds: f64) -> Result<()> {
    let until = monotonic_ns() + (seconds * 1e9) as u64;
    while monotonic_ns() < until {
        swarm.pump(Duration::from_millis(50), &mut Discard)?;
    }
    Ok(())
}

/// Connections to a process that only accepts them, and the slab they took in KiB each.
///
/// Both ends of a loopback connection live in this machine, so this is what a client costs
/// whatever the server. They stay open until the run is over: what they would give back would be
/// taken by the server's clients and missing from their figure.
pub struct Bare {
    slab: f64,
    _clients: Swarm,
    _floor: Floor,
}

impl Bare {
    /// Connects a sample, for a run of `clients` clients.
    pub fn connect(clients: usize) -> Result<Self> {
        let clients = clients.clamp(1, SAMPLE);
        let floor = Floor::start(clients, None)?;
        wait_for_calm();
        let before = KernelMemory::now().slab;
        let mut swarm = Swarm::new(floor.target(), Endpoint::Events(Transport::Sse), None)?;
        swarm.connect(clients, AT_ONCE)?;
        rest(&mut swarm, 0.5)?;
        let slab = (KernelMemory::now().slab as f64 - before as f64) / clients as f64;
        Ok(Self { slab, _clients: swarm, _floor: floor })
    }
}

/// Waits until the slab is at rest: an earlier run's sockets may still be on their way back (a
/// server may need seconds to notice that an SSE client has gone), and would hide as much of ours.
fn wait_for_calm() {
    let mut before = KernelMemory::now().slab;
    // Where others are at work it never is, and waiting longer would not help.
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(200));
        let now = KernelMemory::now().slab;
        if now.abs_diff(before) < 128 {
            return;
        }
        before = now;
    }
}

fn process(report: &mut Report, plan: &Plan, before: &Held, with: &Held, spent: Option<u64>) {
    let clients = plan.clients as f64;
    let threads = with.threads as f64 - before.threads as f64;
    report.add(
        "threads_per_client",
        "threads per client",
        round(threads / clients),
        format!("{:.3} ({} to {})", threads / clients, before.threads, with.threads),
    );
    if let Some((before, with)) = before.descriptors.zip(with.descriptors) {
        let each = (with as f64 - before as f64) / clients;
        report.add(
            "descriptors_per_client",
            "descriptors per client",
            round(each),
            format!("{each:.3} ({before} to {with})"),
        );
    }
    let rss = (with.rss as f64 - before.rss as f64) / clients;
    report.add(
        "rss_kib_per_client",
        "server RSS per client",
        round(rss),
        format!("{rss:.1} KiB ({} to {} KiB; best fresh)", before.rss, with.rss),
    );
    if let Some(spent) = spent {
        let share = spent as f64 / 1e7 / (plan.wait / 2.0).max(1e-3);
        report.number("idle_cpu_percent", "server CPU while idle", share, "% of one CPU");
    }
}

fn kernel(
    report: &mut Report,
    clients: usize,
    before: &KernelMemory,
    with: &KernelMemory,
    bare: f64,
) -> f64 {
    let each = |with: u64, before: u64| (with as f64 - before as f64) / clients as f64;
    let stacks = each(with.stacks, before.stacks);
    let tables = each(with.page_tables, before.page_tables);
    let slab = each(with.slab, before.slab);
    report.number("kernel_stack_kib_per_client", "kernel stacks per client", stacks, "KiB");
    report.number("page_tables_kib_per_client", "page tables per client", tables, "KiB");
    report.number("slab_kib_per_client", "slab per client", slab, "KiB, both ends");
    report.number("bare_slab_kib_per_client", "  of it, the bare connection", bare, "KiB");
    let share = stacks + tables + slab - bare;
    report.hidden("slab_own_kib_per_client", round(slab - bare));
    report.add(
        "kernel_kib_per_client",
        "kernel's share per client",
        round(share),
        format!("{share:.1} KiB beyond the bare connection (machine-wide differences)"),
    );
    share
}
