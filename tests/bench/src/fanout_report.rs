//! How a fan-out run is told.

use crate::fanout::{Outcome, Plan};
use crate::report::{Report, round};

/// The report of one run of subcommand `command` (`fanout` or `floor`).
pub fn report(command: &str, plan: &Plan, outcome: &Outcome, clock: Option<&str>) -> Report {
    let title = format!(
        "{command}: {} {} clients, {} events/s of {} bytes, {} s",
        plan.clients,
        plan.transport.name(),
        plan.rate,
        plan.size,
        plan.seconds
    );
    let mut report = Report::new(command, title);
    report.hidden("transport", plan.transport.name());
    report.hidden("clients", plan.clients);
    report.hidden("rate", plan.rate);
    report.hidden("size", plan.size);
    report.hidden("batch", plan.batch);
    report.hidden("generator_cpu", plan.cpu);
    report.hidden("seconds", round(outcome.seconds));
    deliveries(&mut report, outcome);
    report.times("latency", "latency from the plan", &outcome.ledger.latency.summary());
    report.times("reader_lag", "  of it, the reader's lag", &outcome.lag);
    report.times("publish_late", "publisher late", &outcome.feed.late);
    report.times("publish_answer", "publish answered in", &outcome.feed.answer);
    report.hidden("publish_own_late_us_p99", round(outcome.feed.own_late.p99));
    report.usage(&outcome.usage, clock, "delivery", outcome.ledger.delivered);
    if let Some(kib) = outcome.rss_per_client {
        let before = outcome.rss_before.unwrap_or(0);
        report.add(
            "rss_kib_per_client",
            "server RSS per client",
            round(kib),
            format!("{kib:.1} KiB more than before they came ({before} KiB; best fresh)"),
        );
        report.hidden("rss_kib_before", before);
    }
    report.verdict(&outcome.objections());
    report
}

fn deliveries(report: &mut Report, outcome: &Outcome) {
    let ledger = &outcome.ledger;
    let share = 100.0 * ledger.delivered as f64 / outcome.expected.max(1) as f64;
    report.hidden("expected", outcome.expected);
    report.add(
        "delivered",
        "delivered",
        ledger.delivered,
        format!("{} of {} ({share:.3} %)", ledger.delivered, outcome.expected),
    );
    report.count("lost", "lost", outcome.lost());
    report.hidden("duplicates", ledger.duplicates);
    report.add(
        "out_of_order",
        "duplicates, out of order",
        ledger.out_of_order,
        format!("{}, {}", ledger.duplicates, ledger.out_of_order),
    );
    let per_second = ledger.delivered as f64 / outcome.seconds.max(1e-3);
    report.number("deliveries_per_second", "deliveries", per_second, "/s");
    report.hidden("clients_lost", outcome.closed.0);
    if let (lost @ 1.., Some(reason)) = &outcome.closed {
        report.row("clients lost", format!("{lost}, the first: {reason}"));
    }
    if let Some((low, high)) = outcome.feed.subscribers {
        report.hidden("subscribers_min", low);
        report.add("subscribers_max", "subscribers reported", high, format!("{low} to {high}"));
    }
    report.hidden("publish_failed", outcome.feed.failed);
    report.hidden("publish_requests", outcome.feed.requests);
    report.hidden("publish_connections", outcome.feed.connections);
    if let Some(error) = &outcome.feed.first_error {
        report.row("publish failures", format!("{}, the first: {error}", outcome.feed.failed));
    }
}
