//! The highest rate at which the 99th percentile of the latency stays under a bound.
//!
//! Doubles the rate until a step fails, then halves the gap a few times. Each step is a fan-out run
//! of its own with clients of its own, so that what one step could not deliver is not the next one's
//! burden. The result is as much the machine's as the server's: generator and server share its CPUs.

use crate::error::{Failure, Result};
use crate::fanout::{Outcome, Plan as FanPlan};
use crate::report::{Report, duration, round};

/// Publish requests per second beyond which events go out several in one request.
const REQUESTS: f64 = 200.0;
/// From here on it is the generator that the search has found the limit of.
const BUSY: f64 = 90.0;
/// Doubling more often than this is another kind of error.
pub const MOST_DOUBLINGS: u32 = 16;

/// What to look for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A step: its rate is the first one tried.
    pub step: FanPlan,
    /// The bound in milliseconds.
    pub bound: f64,
    /// How many rates are tried at most before the gap is halved.
    pub doublings: u32,
    /// How many times the gap is halved.
    pub halvings: u32,
}

/// What one step came to.
#[derive(Clone, Debug)]
struct Step {
    rate: f64,
    p99: f64,
    cpu: Option<f64>,
    generator: f64,
    /// Why it failed.
    reason: Option<String>,
}

/// Runs steps until the limit is found. `run` is one fan-out run.
pub fn run(plan: &Plan, run: &mut dyn FnMut(&FanPlan) -> Result<Outcome>) -> Result<Report> {
    if !(plan.bound > 0.0 && plan.halvings <= 10) {
        return Err(Failure::new("--bound or --halvings is out of range", "use above 0, up to 10"));
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut attempt = |rate: f64| -> Result<bool> {
        let batch = (rate / REQUESTS).ceil().max(1.0) as u64;
        let step = judge(plan, rate, &run(&FanPlan { rate, batch, ..plan.step.clone() })?);
        let passed = step.reason.is_none();
        steps.push(step);
        Ok(passed)
    };
    search(plan.step.rate, plan.doublings, plan.halvings, &mut attempt)?;
    Ok(report(plan, &steps))
}

/// Doubles from `start` until `attempt` says no, then halves the gap `halvings` times. Without a no
/// there is no gap.
fn search(
    start: f64,
    doublings: u32,
    halvings: u32,
    attempt: &mut dyn FnMut(f64) -> Result<bool>,
) -> Result<Option<f64>> {
    let (mut good, mut bad, mut rate) = (None, None, start);
    for _ in 0..doublings {
        if !attempt(rate)? {
            bad = Some(rate);
            break;
        }
        good = Some(rate);
        rate *= 2.0;
    }
    let (Some(mut low), Some(mut high)) = (good, bad) else {
        return Ok(good);
    };
    for _ in 0..halvings {
        let middle = ((low + high) / 2.0).round();
        if middle <= low || middle >= high {
            break;
        }
        if attempt(middle)? { low = middle } else { high = middle }
    }
    Ok(Some(low))
}

fn judge(plan: &Plan, rate: f64, outcome: &Outcome) -> Step {
    let p99 = outcome.ledger.latency.summary().p99;
    let reason = if outcome.closed.0 > 0 {
        Some(format!("{} clients were lost", outcome.closed.0))
    } else if outcome.feed.unsent + outcome.feed.failed > 0 {
        Some("the publisher fell behind".to_owned())
    } else if outcome.lost() > 0 || outcome.ledger.delivered == 0 {
        Some(format!("{} deliveries were lost", outcome.lost()))
    } else if p99 > plan.bound * 1e3 {
        Some(format!("p99 {}", duration(p99)))
    } else {
        None
    };
    let generator = outcome.usage.reader_share;
    Step { rate, p99, cpu: outcome.cpu_per_delivery(), generator, reason }
}

fn report(plan: &Plan, steps: &[Step]) -> Report {
    let clients = plan.step.clients as f64;
    let mut report = Report::new(
        "saturate",
        format!(
            "saturate: {} {} clients, {} bytes, p99 under {} ms",
            plan.step.clients,
            plan.step.transport.name(),
            plan.step.size,
            plan.bound
        ),
    );
    report.hidden("transport", plan.step.transport.name());
    report.hidden("clients", plan.step.clients);
    report.hidden("size", plan.step.size);
    report.hidden("bound_ms", plan.bound);
    report.hidden("steps", steps.len());
    for step in steps {
        let verdict = step.reason.clone().unwrap_or_else(|| format!("p99 {}", duration(step.p99)));
        let passed = if step.reason.is_none() { "held" } else { "failed" };
        report.row(
            &format!("{} events/s", step.rate),
            format!("{passed}: {verdict}, generator {:.0} %", step.generator),
        );
    }
    let passed = steps.iter().filter(|step| step.reason.is_none());
    let best = passed.max_by(|a, b| a.rate.total_cmp(&b.rate));
    let rate = best.map_or(0.0, |step| step.rate);
    report.number("events_per_second", "highest rate held", rate, "events/s");
    report.number("deliveries_per_second", "  that is", rate * clients, "deliveries/s");
    if let Some(step) = best {
        report.hidden("latency_us_p99", round(step.p99));
        if let Some(cpu) = step.cpu {
            report.number("server_cpu_us_per_delivery", "server CPU per delivery", cpu, "µs");
        }
    }
    // The step that stopped the search: if the generator was full in it, the server may do more.
    let failed = steps.iter().filter(|step| step.reason.is_some());
    let limit = failed.min_by(|a, b| a.rate.total_cmp(&b.rate));
    if let Some(step) = limit {
        report.hidden("failed_at", step.rate);
        report.hidden("failed_because", step.reason.as_deref());
    }
    let by_generator = limit.is_some_and(|step| step.generator >= BUSY);
    report.hidden("generator_limited", by_generator);
    if by_generator {
        report.row("note", "the generator was the limit: the server may do more".to_owned());
    }
    let objection = (rate == 0.0).then(|| "not even the first rate was held".to_owned());
    report.verdict(objection.as_slice());
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(capacity: f64, start: f64, halvings: u32) -> (Option<f64>, Vec<f64>) {
        let mut tried = Vec::new();
        let found = search(start, MOST_DOUBLINGS, halvings, &mut |rate| {
            tried.push(rate);
            Ok(rate <= capacity)
        });
        (found.expect("no error"), tried)
    }

    #[test]
    fn doubles_then_halves() {
        let (found, tried) = limit(700.0, 50.0, 2);
        assert_eq!(tried, [50.0, 100.0, 200.0, 400.0, 800.0, 600.0, 700.0]);
        assert_eq!(found, Some(700.0));
        assert_eq!(limit(450.0, 50.0, 2).0, Some(400.0));
    }

    #[test]
    fn nothing_is_held_by_a_dead_server() {
        let (found, tried) = limit(0.0, 50.0, 3);
        assert_eq!((found, tried.len()), (None, 1));
    }

    #[test]
    fn an_endless_capacity_ends() {
        let (found, tried) = limit(f64::INFINITY, 1.0, 3);
        assert_eq!(tried.len(), MOST_DOUBLINGS as usize);
        assert_eq!(found, Some(32_768.0));
    }
}
