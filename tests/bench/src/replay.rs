//! Clients that come back all at once and want what they have missed.
//!
//! One client watches while events are published, and notes the id of the first. Then all connect
//! with that id as `Last-Event-ID`; each must get all the later events once and in order. The time
//! counts from the moment the first of them began to connect.

use std::time::Duration;

use crate::connection::Sink;
use crate::error::{Failure, Result};
use crate::feeder::{Feeder, Phase};
use crate::ledger::{Ledger, Times};
use crate::procfs::Server;
use crate::publisher::Publisher;
use crate::report::Report;
use crate::stamp::{Stamp, new_run};
use crate::swarm::Swarm;
use crate::sys::monotonic_ns;
use crate::target::{Endpoint, Target, Transport};
use crate::window::Window;

/// How long without any arrival until what is missing is lost.
const STRAGGLERS: u64 = 3_000_000_000;
/// The events are published this fast, so many in one request where the server takes that.
const RATE: f64 = 2_000.0;
const BATCH: u64 = 50;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients that come back.
    pub clients: usize,
    /// Events each has missed.
    pub events: u64,
    /// Payload bytes.
    pub size: usize,
    /// Connections under way at a time.
    pub at_once: usize,
    /// The topic.
    pub topic: String,
}

/// Notes the id of the run's first event, and when all have come.
struct Watch {
    run: u32,
    id: Option<String>,
    seen: u64,
}

impl Sink for Watch {
    fn message(&mut self, _: usize, payload: &[u8], _: u64, _: &mut Vec<u8>) {
        let Some(stamp) = Stamp::find(payload).filter(|stamp| stamp.run == self.run) else {
            return;
        };
        self.seen += 1;
        if stamp.sequence == 0 {
            self.id = event_id(payload);
        }
    }
}

/// The `id` of an event given as its lines.
fn event_id(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let value = text.lines().find_map(|line| line.strip_prefix("id:"))?;
    Some(value.strip_prefix(' ').unwrap_or(value).to_owned()).filter(|id| !id.is_empty())
}

/// The books, and when each client had everything.
pub struct CatchUp {
    /// Who got what.
    pub ledger: Ledger,
    missing: Vec<u64>,
    /// When the first began to connect.
    pub start: u64,
    /// From then until each client had everything.
    pub done: Times,
    /// How many have everything.
    pub complete: usize,
}

impl Sink for CatchUp {
    fn message(&mut self, client: usize, payload: &[u8], at: u64, _: &mut Vec<u8>) {
        let Some(stamp) = Stamp::find(payload) else {
            return;
        };
        let before = self.ledger.delivered;
        self.ledger.arrived(client, stamp, at);
        if self.ledger.delivered > before && self.missing[client] > 0 {
            self.missing[client] -= 1;
            if self.missing[client] == 0 {
                self.complete += 1;
                self.done.record(at.saturating_sub(self.start));
            }
        }
    }
}

/// Refuses what cannot be run.
pub fn check(plan: &Plan) -> Result<()> {
    crate::fanout::check_size(plan.size)?;
    if plan.clients == 0 || plan.events == 0 || plan.events > 100_000 || plan.at_once == 0 {
        return Err(Failure::new(
            "the clients that return, their events, or --at-once are out of range",
            "use at least 1 each and at most 100000 events",
        ));
    }
    Ok(())
}

/// Publishes, then lets everybody come back.
pub fn run(plan: &Plan, target: &Target, server: Option<&Server>) -> Result<Report> {
    check(plan)?;
    let run = new_run();
    let id = publish(plan, target, run)?;
    let window = Window::open(server);
    let (books, swarm) = come_back(plan, target, run, id)?;
    let active = books.ledger.last.saturating_sub(books.start).max(1_000_000);
    let usage = window.close(active);

    let mut report = Report::new(
        "replay",
        format!("replay: {} clients come back and have missed {}", plan.clients, plan.events),
    );
    report.hidden("clients", plan.clients);
    report.hidden("events", plan.events);
    report.hidden("size", plan.size);
    report.hidden("at_once", plan.at_once);
    let delivered = books.ledger.delivered;
    let expected = plan.events * plan.clients as u64;
    let lost = expected.saturating_sub(delivered);
    report.number("total_ms", "all had everything after", active as f64 / 1e6, "ms");
    report.times("caught_up", "a client had everything after", &books.done.summary());
    let per_second = delivered as f64 * 1e9 / active as f64;
    report.number("deliveries_per_second", "deliveries", per_second, "/s");
    report.count("lost", "lost", lost);
    report.count("duplicates", "duplicates", books.ledger.duplicates);
    report.count("out_of_order", "out of order", books.ledger.out_of_order);
    report.hidden("clients_lost", swarm.closed);
    report.usage(&usage, server.map(Server::clock_name), "delivery", delivered);
    let (mut objections, note) = usage.closed_loop();
    if lost + books.ledger.duplicates + books.ledger.out_of_order > 0 || delivered > expected {
        objections.push("not everybody got everything once and in order".to_owned());
    }
    report.hidden("note", note);
    report.verdict(&objections);
    Ok(report)
}

/// Lets everybody come back who has seen the event `id` of this run, and waits until all have the rest.
pub fn come_back(plan: &Plan, target: &Target, run: u32, id: String) -> Result<(CatchUp, Swarm)> {
    let endpoint = Endpoint::Events(Transport::Sse);
    let mut swarm = Swarm::new(target.clone(), endpoint, Some(&plan.topic))?;
    swarm.seen = Some(id);
    let mut books = CatchUp {
        // The first event is the one they have seen: if it comes again, that is one too many.
        ledger: Ledger::new(run, plan.clients, plan.events + 1),
        missing: vec![plan.events; plan.clients],
        start: monotonic_ns(),
        done: Times::new(),
        complete: 0,
    };
    swarm.connect_with(plan.clients, plan.at_once, &mut books)?;
    while books.complete < plan.clients && swarm.connected() > 0 {
        if monotonic_ns().saturating_sub(books.ledger.last.max(books.start)) > STRAGGLERS {
            break;
        }
        swarm.pump(Duration::from_millis(100), &mut books)?;
    }
    Ok((books, swarm))
}

/// Publishes one event and then those that will be missed; the id of the first.
pub fn publish(plan: &Plan, target: &Target, run: u32) -> Result<String> {
    let endpoint = Endpoint::Events(Transport::Sse);
    let mut swarm = Swarm::new(target.clone(), endpoint, Some(&plan.topic))?;
    swarm.connect(1, 1)?;
    let mut publisher = Publisher::new(target.clone(), plan.topic.clone());
    let start = monotonic_ns();
    let count = plan.events + 1;
    let phase = Phase { run, start, count, rate: RATE, size: plan.size, batch: BATCH };
    let feed = publisher.feed(&phase)?;
    if feed.accepted < count {
        let reason = feed.first_error.unwrap_or_else(|| "too slow".to_owned());
        return Err(Failure::new(
            format!("only {} of {count} events were taken: {reason}", feed.accepted),
            "ask for fewer --events",
        ));
    }
    let mut watch = Watch { run, id: None, seen: 0 };
    let patience = monotonic_ns() + STRAGGLERS;
    while watch.seen < count && monotonic_ns() < patience {
        swarm.pump(Duration::from_millis(50), &mut watch)?;
    }
    watch.id.ok_or_else(|| {
        Failure::new("the server's events carry no id", "leave this workload out: it has no replay")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_id_of_an_event() {
        assert_eq!(event_id(b"id: 17-2\nevent: message\ndata: id: 5\n").as_deref(), Some("17-2"));
        assert_eq!(event_id(b"data: id: 5\nid:9\n").as_deref(), Some("9"));
        assert_eq!(event_id(b"data: x\n"), None);
        assert_eq!(event_id(b"id:\ndata: x\n"), None);
    }

    #[test]
    fn a_client_is_done_with_its_last_event_and_only_once() {
        let ledger = Ledger::new(3, 2, 3);
        let mut books =
            CatchUp { ledger, missing: vec![2, 2], start: 0, done: Times::new(), complete: 0 };
        let mut arrive = |client, sequence| {
            let mut event = Vec::new();
            Stamp { planned: 0, sequence, run: 3 }.write(40, &mut event);
            books.message(client, &event, 1_000, &mut Vec::new());
            books.complete
        };
        assert_eq!([arrive(0, 1), arrive(1, 1), arrive(0, 1), arrive(0, 2)], [0, 0, 0, 1]);
    }
}
