//! How long it takes to get N clients in, and whether the last thousand takes longer than the
//! first: a cost per connection that grows with N is quadratic in all.

use std::thread;
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::ledger::Times;
use crate::procfs::Server;
use crate::report::{Report, duration, round};
use crate::swarm::{Swarm, Welcome};
use crate::sys::monotonic_ns;
use crate::target::{Endpoint, Target, Transport};

/// A greeting later than this was most likely a lost SYN, sent again after a second.
const RESENT: u64 = 950_000_000;
/// How long a server may take to let go of the clients of the first pass.
const RELEASE: u64 = 10_000_000_000;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How the clients are connected.
    pub transport: Transport,
    /// How many clients.
    pub clients: usize,
    /// Connections under way at a time in the second pass.
    pub concurrency: usize,
}

/// Both passes, and a report of each.
pub fn run(
    plan: &Plan,
    target: &Target,
    topic: &str,
    server: Option<&Server>,
) -> Result<Vec<Report>> {
    let idle = server.map(|server| server.tasks().count());
    let mut reports = Vec::new();
    for at_once in [1, plan.concurrency] {
        reports.push(pass(plan, at_once, target, topic, server)?);
        wait_for_release(server, idle);
    }
    Ok(reports)
}

/// One pass, with so many connections under way at a time.
pub fn pass(
    plan: &Plan,
    at_once: usize,
    target: &Target,
    topic: &str,
    server: Option<&Server>,
) -> Result<Report> {
    if plan.clients == 0 || at_once == 0 {
        return Err(Failure::new("nobody to connect", "use --clients and --concurrency above 0"));
    }
    let mut swarm = Swarm::new(target.clone(), Endpoint::Events(plan.transport), Some(topic))?;
    let mut cpu = vec![server.and_then(Server::cpu_ns)];
    let start = monotonic_ns();
    let group = group_size(plan.clients);
    for count in (group..=plan.clients).step_by(group) {
        swarm.connect(count, at_once)?;
        cpu.push(server.and_then(Server::cpu_ns));
    }
    swarm.connect(plan.clients, at_once)?;
    thread::sleep(Duration::from_millis(20));
    cpu.push(server.and_then(Server::cpu_ns));
    let cpu: Option<Vec<u64>> = cpu.into_iter().collect();
    Ok(report(plan, at_once, start, &swarm.welcomes, cpu.as_deref()))
}

/// Until the server is down to the threads it had before, or long enough has passed. Without a
/// pid there is nothing to look at but the clock.
fn wait_for_release(server: Option<&Server>, idle: Option<u64>) {
    let patience = monotonic_ns() + RELEASE;
    thread::sleep(Duration::from_millis(500));
    let Some((server, idle)) = server.zip(idle) else {
        return;
    };
    while server.tasks().count() > idle + idle / 2 + 16 && monotonic_ns() < patience {
        thread::sleep(Duration::from_millis(200));
    }
}

fn report(
    plan: &Plan,
    at_once: usize,
    start: u64,
    welcomes: &[Welcome],
    cpu: Option<&[u64]>,
) -> Report {
    let way = match at_once {
        1 => "one after another".to_owned(),
        n => format!("{n} at once"),
    };
    let mut report = Report::new(
        "ramp",
        format!("ramp: {} {} clients, {way}", plan.clients, plan.transport.name()),
    );
    report.hidden("transport", plan.transport.name());
    report.hidden("clients", plan.clients);
    report.hidden("concurrency", at_once);
    let all = welcomes.last().map_or(0, |w| w.done.saturating_sub(start));
    report.number("total_ms", "all greeted after", all as f64 / 1e6, "ms");
    let each = all as f64 / 1e3 / plan.clients as f64;
    report.number("us_per_client", "  that is, per client", each, "µs");
    let mut times = Times::new();
    let mut resent = 0u64;
    for welcome in welcomes {
        let took = welcome.done.saturating_sub(welcome.started);
        times.record(took);
        resent += u64::from(took > RESENT);
    }
    report.times("greeting", "connect to greeting", &times.summary());
    report.count("over_950_ms", "  over 950 ms (SYN sent again?)", resent);
    if let Some([first, .., last]) = cpu {
        let each = (last - first) as f64 / 1e3 / plan.clients as f64;
        report.number("server_cpu_us_per_client", "server CPU per client", each, "µs");
    }
    growth(&mut report, start, welcomes, cpu);
    report.verdict(&[]);
    report
}

/// The time each group took, and the server's CPU time in it, which other work on the machine
/// disturbs less. Groups of 1,000; tenths where there are fewer than 2,000 clients.
///
/// `cpu` is the server's clock before the first group, after each group, and at the end.
fn growth(report: &mut Report, start: u64, welcomes: &[Welcome], cpu: Option<&[u64]>) {
    let group = group_size(welcomes.len());
    let times = group_times(start, welcomes, group);
    let spent: Vec<f64> = cpu
        .unwrap_or_default()
        .windows(2)
        .take(times.len())
        .map(|pair| (pair[1] - pair[0]) as f64 / 1e3)
        .collect();
    report.hidden("group", group);
    for (key, values) in [("group_ms", &times), ("group_server_cpu_ms", &spent)] {
        let ms: Vec<f64> = values.iter().map(|us| round(us / 1e3)).collect();
        report.hidden(key, ms);
    }
    for (index, us) in times.iter().enumerate() {
        let (from, to) = (index * group + 1, (index + 1) * group);
        let cpu = spent.get(index).map(|us| format!(", server CPU {}", duration(*us)));
        let text = duration(*us) + &cpu.unwrap_or_default();
        report.row(&format!("clients {from} to {to}"), text);
    }
    let pairs = [
        ("last_to_first", "last group to first, time", &times),
        ("last_to_first_cpu", "last group to first, server CPU", &spent),
    ];
    for (key, label, values) in pairs {
        if let (Some(first), Some(last)) = (values.first(), values.last()) {
            report.number(key, label, last / first.max(1e-3), "x");
        }
    }
}

fn group_size(clients: usize) -> usize {
    if clients >= 2000 { 1000 } else { clients.div_ceil(10).max(1) }
}

/// Microseconds from the last greeting of one group to the last of the next; whole groups only.
fn group_times(start: u64, welcomes: &[Welcome], group: usize) -> Vec<f64> {
    let mut before = start;
    let mut times = Vec::new();
    for chunk in welcomes.chunks_exact(group) {
        let done = chunk.iter().map(|w| w.done).max().unwrap_or(before);
        times.push(done.saturating_sub(before) as f64 / 1e3);
        before = before.max(done);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        assert_eq!(group_size(10_000), 1000);
        assert_eq!(group_size(1000), 100);
        assert_eq!(group_size(3), 1);
        let welcomes: Vec<Welcome> = [10, 30, 50, 90, 95]
            .map(|us| Welcome { started: 0, done: us * 1000 })
            .into_iter()
            .collect();
        assert_eq!(group_times(0, &welcomes, 2), [30.0, 60.0]);
    }
}
