//! A fan-out while many clients return at once and want what they have missed: do those that stay
//! have to wait?
//!
//! Both are on one topic. The fan-out is open loop, as always. A quarter of its time after the
//! beginning the others connect, on a thread of their own, with the id of an event many back, and
//! stay. What was planned until all of these have everything is told apart from what was before and
//! after. The server must keep all that they have missed, and what is published meanwhile.

use std::thread;
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::fanout::{self, Outcome, Plan as FanPlan};
use crate::ledger::{Summary, Times};
use crate::procfs::Server;
use crate::publisher::Publisher;
use crate::replay::{self, CatchUp, Plan as BackPlan};
use crate::report::Report;
use crate::stamp::new_run;
use crate::swarm::Swarm;
use crate::target::{Endpoint, Target};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The clients that stay, and what they are sent.
    pub fan: FanPlan,
    /// Those that return, and what they have missed.
    pub back: BackPlan,
}

/// Publishes what will be missed, connects those that stay, then runs both.
pub fn run(plan: &Plan, target: &Target, server: Option<&Server>) -> Result<Report> {
    replay::check(&plan.back)?;
    let run = new_run();
    let id = replay::publish(&plan.back, target, run)?;
    let fan_plan = FanPlan { log: true, ..plan.fan.clone() };
    let endpoint = Endpoint::Events(fan_plan.transport);
    let before = server.map(Server::rss_kib);
    let mut swarm = Swarm::new(target.clone(), endpoint, Some(&fan_plan.topic))?;
    swarm.connect(fan_plan.clients, 32)?;
    let pause = Duration::from_secs_f64(fan_plan.warmup + fan_plan.seconds / 4.0);
    let (fan, back) = thread::scope(|scope| {
        let returning = scope.spawn(move || {
            thread::sleep(pause);
            replay::come_back(&plan.back, target, run, id)
        });
        let mut publisher = Publisher::new(target.clone(), fan_plan.topic.clone());
        let fan = fanout::measure(&fan_plan, &mut swarm, &mut publisher, server, before);
        (fan, returning.join())
    });
    let panicked = |_| Failure::new("the clients that return panicked", "report this as a bug");
    // They stay connected until here: from their return on, live events are theirs as well.
    let (books, returned) = back.map_err(panicked)??;
    Ok(report(plan, &fan?, &books, &returned))
}

/// The latencies of events that were planned before, within, and after a stretch.
fn split(log: &[(u64, u64)], start: u64, end: u64) -> [Summary; 3] {
    let mut times = [Times::new(), Times::new(), Times::new()];
    for &(planned, late) in log {
        let place = usize::from(planned >= start) + usize::from(planned > end);
        times[place].record(late);
    }
    times.map(|times| times.summary())
}

fn report(plan: &Plan, fan: &Outcome, books: &CatchUp, returned: &Swarm) -> Report {
    let (fan_plan, back) = (&plan.fan, &plan.back);
    let mut report = Report::new(
        "returning",
        format!(
            "returning: {} {} clients stay at {} events/s, {} come back for {} events each",
            fan_plan.clients,
            fan_plan.transport.name(),
            fan_plan.rate,
            back.clients,
            back.events
        ),
    );
    report.hidden("transport", fan_plan.transport.name());
    report.hidden("clients", fan_plan.clients);
    report.hidden("rate", fan_plan.rate);
    report.hidden("size", fan_plan.size);
    report.hidden("returning", back.clients);
    report.hidden("events", back.events);
    report.hidden("at_once", back.at_once);
    let log = fan.ledger.log.as_deref().unwrap_or_default();
    let end = books.ledger.last;
    let [before, during, after] = split(log, books.start, end);
    report.times("before", "live latency before", &before);
    report.times("during", "  while they return", &during);
    report.times("after", "  after that, they are live too", &after);
    report.times("reader_lag", "  of it, the reader's lag", &fan.lag);
    let took = end.saturating_sub(books.start).max(1) as f64;
    report.number("total_ms", "all had everything after", took / 1e6, "ms");
    report.times("caught_up", "a client had everything after", &books.done.summary());
    let per_second = books.ledger.delivered as f64 * 1e9 / took;
    report.number("deliveries_per_second", "deliveries of what was missed", per_second, "/s");
    let expected = back.events * back.clients as u64;
    let missing = expected.saturating_sub(books.ledger.delivered);
    report.count("missing", "not delivered of it", missing);
    report.count("lost", "deliveries lost by those that stayed", fan.lost());
    report.hidden("clients_lost", fan.closed.0 + returned.closed);
    let delivered = fan.ledger.delivered + books.ledger.delivered;
    report.usage(&fan.usage, None, "delivery", delivered);
    let (mut objections, note) = fan.usage.closed_loop();
    report.hidden("note", note.as_deref());
    if let Some(note) = note {
        report.row("note", note);
    }
    if missing + books.ledger.duplicates + books.ledger.out_of_order > 0 {
        objections.push(
            "not everybody who returned got everything once and in order: does the server keep \
             enough, --history?"
                .to_owned(),
        );
    }
    if fan.lost() > 0 {
        objections.push("those that stayed have lost events".to_owned());
    }
    if end > fan.start + (fan.seconds * 1e9) as u64 {
        objections.push("they were not done in time: ask for more --seconds".to_owned());
    }
    report.verdict(&objections);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_planned_during_the_return_is_told_apart() {
        let log = [(10, 1_000), (99, 2_000), (100, 30_000), (200, 40_000), (201, 5_000)];
        let longest = split(&log, 100, 200).map(|times| times.max.round());
        assert_eq!(longest, [2.0, 40.0, 5.0]);
    }
}
