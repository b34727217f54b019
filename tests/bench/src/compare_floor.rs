//! A server against the physical limit, in turn, so that a noisy machine is noisy for both.

use crate::error::Result;
use crate::fanout::{self, Outcome, Plan};
use crate::fanout_report;
use crate::feeder::Feeder;
use crate::floor::Floor;
use crate::procfs::Server;
use crate::publisher::Publisher;
use crate::report::{Report, duration, median, say};
use crate::target::{Target, Transport};

/// The same load for the helper process: it speaks SSE whatever the server speaks, the same
/// payload in about the same number of bytes, and knows no batches.
fn floor_plan(plan: &Plan) -> Plan {
    Plan { transport: Transport::Sse, batch: 1, ..plan.clone() }
}

/// One run against a helper process that only sends.
pub fn floor_run(plan: &Plan) -> Result<(Outcome, Option<&'static str>)> {
    let plan = floor_plan(plan);
    let mut floor = Floor::start(plan.clients, plan.cpu)?;
    let helper = Server::find(Some(floor.pid()))?;
    let target = floor.target();
    let outcome = fanout::run(&plan, target, &mut floor, helper.as_ref())?;
    Ok((outcome, helper.as_ref().map(Server::clock_name)))
}

/// One run against the server.
pub fn server_run(plan: &Plan, target: &Target, server: Option<&Server>) -> Result<Outcome> {
    let mut publisher = Publisher::new(target.clone(), plan.topic.clone());
    let feeder: &mut dyn Feeder = &mut publisher;
    fanout::run(plan, target.clone(), feeder, server)
}

/// Floor and server in turn, `rounds` times.
pub fn run(
    plan: &Plan,
    rounds: usize,
    target: &Target,
    server: &Server,
    json: bool,
) -> Result<Report> {
    let mut figures = Figures::default();
    for round in 1..=rounds {
        let (floor, clock) = floor_run(plan)?;
        if json {
            fanout_report::report("floor", &floor_plan(plan), &floor, clock).print_json();
        }
        let fan = server_run(plan, target, Some(server))?;
        if json {
            fanout_report::report("fanout", plan, &fan, Some(server.clock_name())).print_json();
        }
        figures.add(round, &floor, &fan, json);
    }
    Ok(figures.report(plan, rounds))
}

#[derive(Default)]
struct Figures {
    floor_cpu: Vec<f64>,
    server_cpu: Vec<f64>,
    ratios: Vec<f64>,
    floor_p99: Vec<f64>,
    server_p99: Vec<f64>,
    floor_p50: Vec<f64>,
    server_p50: Vec<f64>,
    lost: u64,
    /// Why rounds are missing from the above. One disturbed round must not spoil the others.
    left_out: Vec<String>,
}

impl Figures {
    fn add(&mut self, round: usize, floor: &Outcome, fan: &Outcome, json: bool) {
        let floor_cpu = floor.cpu_per_delivery().unwrap_or(0.0);
        let server_cpu = fan.cpu_per_delivery().unwrap_or(0.0);
        let (floor_times, times) = (floor.ledger.latency.summary(), fan.ledger.latency.summary());
        let ratio = server_cpu / floor_cpu.max(1e-6);
        say(
            json,
            &format!(
                "round {round}: floor {floor_cpu:.2} µs, p99 {}; server {server_cpu:.2} µs, p99 {}, \
                 lost {}; ratio {ratio:.2}",
                duration(floor_times.p99),
                duration(times.p99),
                fan.lost()
            ),
        );
        self.lost += fan.lost();
        let before = self.left_out.len();
        for (who, outcome) in [("floor", floor), ("server", fan)] {
            for objection in outcome.objections() {
                self.left_out.push(format!("round {round}, {who}: {objection}"));
            }
        }
        if self.left_out.len() > before {
            return;
        }
        self.floor_cpu.push(floor_cpu);
        self.server_cpu.push(server_cpu);
        self.ratios.push(ratio);
        self.floor_p50.push(floor_times.p50);
        self.server_p50.push(times.p50);
        self.floor_p99.push(floor_times.p99);
        self.server_p99.push(times.p99);
    }

    fn report(&self, plan: &Plan, rounds: usize) -> Report {
        let mut report = Report::new(
            "compare-floor",
            format!(
                "compare-floor: {} {} clients, {} events/s of {} bytes, medians of {rounds} rounds \
                 of {} s",
                plan.clients,
                plan.transport.name(),
                plan.rate,
                plan.size,
                plan.seconds
            ),
        );
        report.hidden("transport", plan.transport.name());
        report.hidden("clients", plan.clients);
        report.hidden("rate", plan.rate);
        report.hidden("size", plan.size);
        report.hidden("rounds", rounds);
        let pairs = [
            ("floor_cpu_us_per_delivery", "floor, CPU per delivery", &self.floor_cpu),
            ("server_cpu_us_per_delivery", "server, CPU per delivery", &self.server_cpu),
        ];
        for (key, label, values) in pairs {
            report.number(key, label, median(values), "µs");
        }
        let ratio = median(&self.ratios);
        let low = self.ratios.iter().copied().fold(ratio, f64::min);
        let high = self.ratios.iter().copied().fold(ratio, f64::max);
        report.number("ratio", "server to floor", ratio, &format!("x ({low:.2} to {high:.2})"));
        report.hidden("ratio_min", low);
        report.hidden("ratio_max", high);
        let pairs = [
            ("floor_latency_us_p50", "floor, latency p50", &self.floor_p50),
            ("server_latency_us_p50", "server, latency p50", &self.server_p50),
            ("floor_latency_us_p99", "floor, latency p99", &self.floor_p99),
            ("server_latency_us_p99", "server, latency p99", &self.server_p99),
        ];
        for (key, label, values) in pairs {
            let value = median(values);
            report.add(key, label, value, duration(value));
        }
        report.count("lost", "lost by the server", self.lost);
        let used = self.ratios.len();
        report.add("rounds_used", "rounds used", used, format!("{used} of {rounds}"));
        report.hidden("left_out", self.left_out.clone());
        for reason in &self.left_out {
            report.row("  left out", reason.clone());
        }
        let objections = match used * 2 > rounds {
            true => Vec::new(),
            false => vec!["half of the rounds or more were disturbed".to_owned()],
        };
        report.verdict(&objections);
        report
    }
}
