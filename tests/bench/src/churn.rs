//! A fan-out while other clients come and go as fast as the server lets them.
//!
//! The fan-out is open loop, as always. The coming and going is a closed loop on a thread of its
//! own: some clients connect at once, and when all are greeted, all leave and the next come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::fanout::{self, Outcome as FanOutcome, Plan as FanPlan};
use crate::ledger::{Summary, Times};
use crate::procfs::Server;
use crate::publisher::Publisher;
use crate::report::Report;
use crate::swarm::Swarm;
use crate::target::{Endpoint, Target};

/// Rounds that failed one after another, after which a server is given up.
const MOST_FAILURES: u32 = 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The clients that stay, and what they are sent.
    pub fan: FanPlan,
    /// Those that come and go together.
    pub at_once: usize,
}

/// One client's visit.
struct Visit {
    greeted: u64,
    took: u64,
}

#[derive(Default)]
struct Visits {
    visits: Vec<Visit>,
    failed: u64,
    first_failure: Option<String>,
}

/// Connects those that stay, then runs both.
pub fn run(plan: &Plan, target: &Target, server: Option<&Server>) -> Result<Report> {
    if plan.at_once == 0 {
        return Err(Failure::new("--at-once 0 churns nobody", "use 1 or more"));
    }
    let endpoint = Endpoint::Events(plan.fan.transport);
    let before = server.map(Server::rss_kib);
    let mut swarm = Swarm::new(target.clone(), endpoint, Some(&plan.fan.topic))?;
    swarm.connect(plan.fan.clients, 32)?;
    let stop = AtomicBool::new(false);
    let (fan, visits) = thread::scope(|scope| {
        let churner = scope.spawn(|| come_and_go(plan, target, &stop));
        let mut publisher = Publisher::new(target.clone(), plan.fan.topic.clone());
        let fan = fanout::measure(&plan.fan, &mut swarm, &mut publisher, server, before);
        stop.store(true, Ordering::Relaxed);
        (fan, churner.join().unwrap_or_default())
    });
    Ok(report(plan, &fan?, &visits))
}

fn come_and_go(plan: &Plan, target: &Target, stop: &AtomicBool) -> Visits {
    let mut visits = Visits::default();
    let mut failures = 0;
    while !stop.load(Ordering::Relaxed) && failures < MOST_FAILURES {
        match visit(plan, target, &mut visits.visits) {
            Ok(()) => failures = 0,
            Err(failure) => {
                failures += 1;
                visits.failed += 1;
                visits.first_failure.get_or_insert(failure.to_string());
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    visits
}

fn visit(plan: &Plan, target: &Target, visits: &mut Vec<Visit>) -> Result<()> {
    let endpoint = Endpoint::Events(plan.fan.transport);
    let mut swarm = Swarm::new(target.clone(), endpoint, Some(&plan.fan.topic))?;
    swarm.connect(plan.at_once, plan.at_once)?;
    let visit = |w: &crate::swarm::Welcome| {
        let took = w.done.saturating_sub(w.started);
        Visit { greeted: w.done, took }
    };
    visits.extend(swarm.welcomes.iter().map(visit));
    Ok(())
}

/// How many visits lie in the stretch, and how long their greetings took.
fn within(visits: &[Visit], start: u64, end: u64) -> (u64, Summary) {
    let mut times = Times::new();
    let mut count = 0;
    for visit in visits.iter().filter(|visit| (start..end).contains(&visit.greeted)) {
        count += 1;
        times.record(visit.took);
    }
    (count, times.summary())
}

fn report(plan: &Plan, fan: &FanOutcome, visits: &Visits) -> Report {
    let end = fan.start + (fan.seconds * 1e9) as u64;
    let (count, greeting) = within(&visits.visits, fan.start, end);
    let mut report = Report::new(
        "churn",
        format!(
            "churn: {} {} clients stay at {} events/s, {} at once come and go, {} s",
            plan.fan.clients,
            plan.fan.transport.name(),
            plan.fan.rate,
            plan.at_once,
            plan.fan.seconds
        ),
    );
    report.hidden("transport", plan.fan.transport.name());
    report.hidden("clients", plan.fan.clients);
    report.hidden("rate", plan.fan.rate);
    report.hidden("at_once", plan.at_once);
    report.number("cycles_per_second", "came and went", count as f64 / fan.seconds, "/s");
    report.times("greeting", "connect to greeting", &greeting);
    report.count("failed", "rounds that failed", visits.failed);
    if let Some(failure) = &visits.first_failure {
        report.row("  the first", failure.clone());
    }
    report.count("lost", "deliveries lost by those that stayed", fan.lost());
    report.hidden("clients_lost", fan.closed.0);
    report.times("latency", "latency of those that stayed", &fan.ledger.latency.summary());
    if let Some(cpu) = fan.usage.server_cpu {
        let each = cpu as f64 / 1e3 / count.max(1) as f64;
        report.number(
            "server_cpu_us_per_cycle",
            "server CPU, all of it, per visit",
            each,
            "µs (the fan-out's share is in it)",
        );
    }
    report.usage(&fan.usage, None, "delivery", fan.ledger.delivered);
    let (mut objections, note) = fan.usage.closed_loop();
    report.hidden("note", note.as_deref());
    if let Some(note) = note {
        report.row("note", note);
    }
    if count == 0 {
        objections.push("nobody came and went".to_owned());
    }
    if fan.ledger.delivered == 0 {
        objections.push("nothing arrived".to_owned());
    }
    report.verdict(&objections);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visits_of_the_measured_stretch_count() {
        let visit = |greeted, took| Visit { greeted, took };
        let visits =
            [visit(99, 9_000_000), visit(100, 1_000_000), visit(150, 3_000_000), visit(200, 5)];
        let (count, times) = within(&visits, 100, 200);
        assert_eq!(count, 2);
        assert!(times.max > 2_900.0 && times.max < 3_100.0, "{times:?}");
    }
}
