//! How an echo run is told.

use crate::echo::{Outcome, Plan};
use crate::report::{Report, round};

/// A schedule that the generator keeps only this late, in microseconds at p99, is not kept.
const TOO_LATE: f64 = 5_000.0;

/// The report of one run.
pub fn report(plan: &Plan, outcome: &Outcome, clock: Option<&str>) -> Report {
    let loops = match plan.rate {
        Some(rate) => format!("open loop, {rate} messages/s"),
        None => format!("closed loop, {} in flight each", plan.inflight),
    };
    let kind = if plan.binary { "binary" } else { "text" };
    let mut report = Report::new(
        "echo",
        format!(
            "echo: {} connections, {} bytes {kind}, {loops}, {} s",
            plan.connections, plan.size, plan.seconds
        ),
    );
    let ledger = &outcome.ledger;
    report.hidden("connections", plan.connections);
    report.hidden("size", plan.size);
    report.hidden("kind", kind);
    report.hidden("loop", if plan.rate.is_some() { "open" } else { "closed" });
    report.hidden("inflight", plan.inflight);
    report.hidden("rate", plan.rate);
    report.hidden("seconds", round(outcome.seconds));
    let per_second = ledger.received as f64 / outcome.seconds;
    report.number("messages_per_second", "messages", per_second, "/s");
    report.count("sent", "sent", ledger.sent);
    report.count("received", "came back intact", ledger.received);
    report.count("wrong", "came back altered or out of order", ledger.wrong);
    let lost = ledger.sent.saturating_sub(ledger.received + ledger.wrong);
    report.count("lost", "lost", lost);
    report.hidden("connections_lost", outcome.closed.0);
    if let (lost @ 1.., Some(reason)) = &outcome.closed {
        report.row("connections lost", format!("{lost}, the first: {reason}"));
    }
    let label = if plan.rate.is_some() { "latency from the plan" } else { "round trip" };
    report.times("latency", label, &ledger.latency.summary());
    report.times("reader_lag", "  of it, the reader's lag", &outcome.lag);
    let late = ledger.late.summary();
    if plan.rate.is_some() {
        report.times("send_late", "sent late", &late);
    }
    report.usage(&outcome.usage, clock, "message", ledger.received);
    let (objections, note) = objections(plan, outcome, late.p99);
    report.hidden("note", note.as_deref());
    if let Some(note) = note {
        report.row("note", note);
    }
    report.verdict(&objections);
    report
}

fn objections(plan: &Plan, outcome: &Outcome, late: f64) -> (Vec<String>, Option<String>) {
    let (mut objections, note) = match plan.rate {
        Some(_) => (outcome.usage.objections(), None),
        None => outcome.usage.closed_loop(),
    };
    let ledger = &outcome.ledger;
    if plan.rate.is_some() && late > TOO_LATE {
        objections.push(format!("the schedule was kept {:.1} ms late (p99)", late / 1e3));
    }
    if ledger.unsent > 0 {
        objections.push(format!("{} messages were never sent: no time left", ledger.unsent));
    }
    if ledger.received == 0 {
        objections.push("nothing came back".to_owned());
    }
    (objections, note)
}
