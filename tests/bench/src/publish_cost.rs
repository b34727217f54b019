//! What `POST /publish` costs the server on a connection that is kept, and on a new one for each
//! request, in turn, so that a noisy machine is noisy for both.
//!
//! A closed loop: one request after another, for nobody subscribes. CPU time is the server's, all
//! of its threads', from before the first request of a stretch to a moment after its last.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Failure, Result};
use crate::post::Poster;
use crate::procfs::Server;
use crate::report::{Report, median, say};
use crate::target::Target;

/// How long the server gets to finish what a stretch has left behind: connections that close.
const REST: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Requests of a stretch.
    pub requests: u64,
    /// Payload bytes of an event.
    pub size: usize,
    /// Stretches of each kind.
    pub rounds: usize,
    /// A topic that nobody subscribes to.
    pub topic: String,
}

/// What a request of a stretch cost.
struct Cost {
    /// Server CPU, in microseconds.
    cpu: f64,
    /// From the request to its response, on average, in microseconds.
    time: f64,
    connections: u64,
}

/// Kept and new in turn, after a stretch of each that does not count.
pub fn run(plan: &Plan, target: &Target, server: &Server, json: bool) -> Result<Report> {
    if !(1..=1000).contains(&plan.rounds) || plan.requests == 0 {
        return Err(Failure::new(
            "--rounds or --requests is out of range",
            "use 1 to 1000, 1 or more",
        ));
    }
    let (mut kept, mut new) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        let one = stretch(plan, target, server, false)?;
        let other = stretch(plan, target, server, true)?;
        if round > 0 {
            say(json, &format!("round {round}: kept {:.1} µs, new {:.1} µs", one.cpu, other.cpu));
            kept.push(one);
            new.push(other);
        }
    }
    Ok(report(plan, server, &kept, &new))
}

fn stretch(plan: &Plan, target: &Target, server: &Server, closes: bool) -> Result<Cost> {
    let (mut request, body) = (Vec::new(), vec![b'x'; plan.size]);
    match closes {
        true => target.publish_and_close(&plan.topic, &body, &mut request),
        false => target.publish(&plan.topic, "text/plain", &body, &mut request),
    }
    let gone = || Failure::new("the server's process has ended", "see its log");
    let mut poster = Poster::new(target.clone());
    let before = server.cpu_ns().ok_or_else(gone)?;
    let start = Instant::now();
    for _ in 0..plan.requests {
        poster.post(&request).map_err(|reason| Failure::new(reason, "see the server's log"))?;
    }
    let time = start.elapsed();
    thread::sleep(REST);
    let cpu = server.cpu_ns().ok_or_else(gone)?.saturating_sub(before);
    let each = |nanoseconds: f64| nanoseconds / 1e3 / plan.requests as f64;
    Ok(Cost {
        cpu: each(cpu as f64),
        time: each(time.as_nanos() as f64),
        connections: poster.connections,
    })
}

fn report(plan: &Plan, server: &Server, kept: &[Cost], new: &[Cost]) -> Report {
    let mut report = Report::new(
        "publish-cost",
        format!(
            "publish-cost: {} requests of {} bytes one after another, medians of {} rounds",
            plan.requests, plan.size, plan.rounds
        ),
    );
    report.hidden("requests", plan.requests);
    report.hidden("size", plan.size);
    report.hidden("rounds", plan.rounds);
    let of = |costs: &[Cost], value: fn(&Cost) -> f64| {
        median(&costs.iter().map(value).collect::<Vec<_>>())
    };
    for (key, label, costs) in [("kept", "kept connection", kept), ("new", "new connections", new)]
    {
        let cpu = of(costs, |cost| cost.cpu);
        report.number(&format!("{key}_server_cpu_us"), &format!("{label}, server CPU"), cpu, "µs");
        let time = of(costs, |cost| cost.time);
        report.number(
            &format!("{key}_response_us"),
            &format!("{label}, until answered"),
            time,
            "µs",
        );
        let connections: u64 = costs.iter().map(|cost| cost.connections).sum();
        report.count(&format!("{key}_connections"), "  connections", connections);
    }
    let ratios: Vec<f64> = kept.iter().zip(new).map(|(kept, new)| new.cpu / kept.cpu).collect();
    let (low, high) = (
        ratios.iter().copied().fold(f64::MAX, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    report.number(
        "ratio",
        "new to kept, CPU",
        median(&ratios),
        &format!("x ({low:.2} to {high:.2})"),
    );
    report.add("server_clock", "  read from", server.clock_name(), server.clock_name().to_owned());
    let mut objections = Vec::new();
    let connections = |costs: &[Cost]| costs.iter().map(|cost| cost.connections).sum::<u64>();
    if connections(kept) > plan.rounds as u64 {
        objections.push("the server does not keep connections".to_owned());
    }
    if connections(new) != plan.rounds as u64 * plan.requests {
        objections.push("the server does not close where it is asked to".to_owned());
    }
    report.verdict(&objections);
    report
}
