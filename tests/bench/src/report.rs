//! One run's figures, as a table for people and a line of JSON for programs.

use serde_json::{Map, Value};

use crate::ledger::Summary;
use crate::window::Usage;

/// Collects figures in the order they are to be read.
pub struct Report {
    title: String,
    rows: Vec<(String, String)>,
    json: Map<String, Value>,
}

impl Report {
    /// An empty report of subcommand `command`.
    pub fn new(command: &str, title: String) -> Self {
        let mut json = Map::new();
        json.insert("command".to_owned(), command.into());
        Self { title, rows: Vec::new(), json }
    }

    /// A figure for both: `text` in the table, `value` under `key` in the JSON.
    pub fn add(&mut self, key: &str, label: &str, value: impl Into<Value>, text: String) {
        self.json.insert(key.to_owned(), value.into());
        self.rows.push((label.to_owned(), text));
    }

    /// A count, shown as it is.
    pub fn count(&mut self, key: &str, label: &str, value: u64) {
        self.add(key, label, value, value.to_string());
    }

    /// A number with a unit.
    pub fn number(&mut self, key: &str, label: &str, value: f64, unit: &str) {
        self.add(key, label, round(value), format!("{} {unit}", short(value)));
    }

    /// A figure for programs only.
    pub fn hidden(&mut self, key: &str, value: impl Into<Value>) {
        self.json.insert(key.to_owned(), value.into());
    }

    /// A row for people only.
    pub fn row(&mut self, label: &str, text: String) {
        self.rows.push((label.to_owned(), text));
    }

    /// A distribution: one row, five keys `<key>_us_p50` to `<key>_us_max`.
    pub fn times(&mut self, key: &str, label: &str, times: &Summary) {
        let parts = [
            ("p50", times.p50),
            ("p90", times.p90),
            ("p99", times.p99),
            ("p99.9", times.p999),
            ("max", times.max),
        ];
        let mut text = String::new();
        for (name, value) in parts {
            self.json.insert(format!("{key}_us_{}", name.replace('.', "")), round(value).into());
            text.push_str(&format!("{name} {}  ", duration(value)));
        }
        self.rows.push((label.to_owned(), text.trim_end().to_owned()));
    }

    /// What the window saw of server, generator and machine. `unit` is what the work consists of:
    /// "delivery" or "message".
    pub fn usage(&mut self, usage: &Usage, clock: Option<&str>, unit: &str, done: u64) {
        let per = |total: u64| total as f64 / done as f64;
        if done == 0 {
            self.row("usage", format!("no {unit} to divide it by"));
            return;
        }
        match usage.server_cpu {
            Some(cpu) => {
                let key = format!("server_cpu_us_per_{unit}");
                self.number(&key, &format!("server CPU per {unit}"), per(cpu) / 1e3, "µs");
                self.number("server_cpu_ms", "server CPU in all", cpu as f64 / 1e6, "ms");
            }
            None if clock.is_some() => self.row("server", "its process has ended".to_owned()),
            None => self.row("server", "no figures: give --pid".to_owned()),
        }
        if let Some(clock) = clock {
            self.add("server_clock", "  read from", clock, clock.to_owned());
        }
        if let Some(switches) = usage.switches {
            let text = format!(
                "{:.3} voluntary, {:.3} involuntary per {unit} (threads alive at the end)",
                per(switches.voluntary),
                per(switches.involuntary)
            );
            let waited = per(switches.waited) / 1e3;
            self.number(
                "server_wait_us",
                "server waited for a CPU",
                waited,
                &format!("µs per {unit}"),
            );
            self.hidden("switches_involuntary", switches.involuntary);
            for (kind, count) in
                [("voluntary", switches.voluntary), ("involuntary", switches.involuntary)]
            {
                self.hidden(&format!("switches_{kind}_per_{unit}"), per(count));
            }
            let alive = usage.switches_alive.unwrap_or_default();
            self.hidden("switches_alive", alive.voluntary + alive.involuntary);
            self.add("switches_voluntary", "server context switches", switches.voluntary, text);
        }
        if let Some(threads) = usage.threads {
            self.count("server_threads", "server threads", threads);
        }
        self.number(
            &format!("generator_cpu_us_per_{unit}"),
            &format!("generator CPU per {unit}"),
            per(usage.own_cpu) / 1e3,
            "µs",
        );
        self.hidden("reader_share_percent", round(usage.reader_share));
        self.hidden("generator_share_percent", round(usage.own_share));
        self.add(
            "reader_pressure_percent",
            "generator",
            round(usage.reader_pressure),
            format!(
                "{:.0} % of one CPU; its reader ran or waited for a CPU {:.0} % of the time",
                usage.own_share, usage.reader_pressure
            ),
        );
        self.hidden("steal_percent", round(usage.steal));
        self.hidden("others_percent", usage.others.map(round));
        let others = usage.others.map(|share| format!(", {share:.0} % by other programs"));
        self.add(
            "machine_busy_percent",
            "machine busy",
            round(usage.machine_busy),
            format!("{:.0} % of all CPUs{}", usage.machine_busy, others.unwrap_or_default()),
        );
    }

    /// The verdict. An invalid run keeps its figures, with the reasons not to use them.
    pub fn verdict(&mut self, objections: &[String]) {
        self.hidden("valid", objections.is_empty());
        self.hidden("objections", objections.to_vec());
        match objections {
            [] => self.row("run", "valid".to_owned()),
            _ => self.row("run", format!("INVALID: {}", objections.join("; "))),
        }
    }

    /// What programs see.
    pub fn into_json(self) -> Map<String, Value> {
        self.json
    }

    /// Prints it: the table to stdout, or with `json` the line to stdout and the table to stderr.
    pub fn print(&self, json: bool) {
        let width = self.rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let mut table = format!("\n{}\n", self.title);
        for (label, text) in &self.rows {
            table.push_str(&format!("  {label:<width$}  {text}\n"));
        }
        say(json, table.trim_end_matches('\n'));
        if json {
            self.print_json();
        }
    }

    /// Prints the line of JSON alone.
    pub fn print_json(&self) {
        println!("{}", Value::Object(self.json.clone()));
    }
}

/// A line for people: to stderr when stdout carries JSON.
pub fn say(json: bool, line: &str) {
    if json {
        eprintln!("{line}");
    } else {
        println!("{line}");
    }
}

/// The middle of a list of figures.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Three digits after the point are more than any of these figures is worth.
pub fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Microseconds as people read them.
pub fn duration(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn durations() {
        assert_eq!(duration(12.3), "12 µs");
        assert_eq!(duration(1234.0), "1.23 ms");
        assert_eq!(duration(2_500_000.0), "2.50 s");
    }
}
