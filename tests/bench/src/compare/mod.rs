//! `compare`: everybody, everything, in turn, on one machine.
//!
//! Builds the server and its peers, runs every workload on each (A B C A B C, a fresh process each
//! time), and tells medians and how far the rounds lie apart: as tables, as lines of JSON and as a
//! page. Tables and page open with findings in plain words. Peers that are not installed are named
//! and left out.

mod build;
mod check;
mod facts;
mod findings;
mod html;
mod metrics;
mod peers;
mod process;
mod results;
mod round;
mod svg;
mod table;
mod workloads;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value};

use crate::error::{Failure, Result};
use crate::idle::Bare;
use crate::sys;
use crate::target::Target;
use peers::{Kind, Peer};
use results::{Record, Results};
use workloads::{Job, Mode, Scale, Workload};

/// What to compare.
#[derive(Args)]
pub struct Options {
    /// Smaller and shorter: under three minutes.
    #[arg(long)]
    quick: bool,
    /// Everything once and tiny, under a minute, to see that it works. The figures say nothing.
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Rounds of every workload, instead of some for each.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these: threadcast, handoff, axum, axum-default, node, nchan, floor.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Only these workloads, such as fanout-sse,echo-64.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// One more column: a server that is already running, as URL=NAME.
    #[arg(long)]
    url: Option<String>,
    /// Its process, for figures from /proc.
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// It sends no greeting on /ws.
    #[arg(long, requires = "url")]
    no_greeting: bool,
    /// It takes one event per publish request only.
    #[arg(long, requires = "url")]
    no_batches: bool,
    /// Also build everything from nothing and tell how long it took. Takes minutes.
    #[arg(long)]
    build_times: bool,
    /// Where the results go.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Options {
    fn mode(&self) -> Mode {
        match (self.smoke, self.quick) {
            (true, _) => Mode::Smoke,
            (_, true) => Mode::Quick,
            _ => Mode::Full,
        }
    }

    fn check(&self, workloads: &[Workload]) -> Result<()> {
        if let Some(name) = self.peers.iter().find(|name| !peers::NAMES.contains(&name.as_str())) {
            return Err(Failure::new(format!("there is no peer {name}"), "see compare --help"));
        }
        let known = |name: &String| workloads.iter().any(|workload| workload.name == *name);
        if let Some(name) = self.workloads.iter().find(|name| !known(name)) {
            let names: Vec<&str> = workloads.iter().map(|w| w.name.as_str()).collect();
            let what = format!("there is no workload {name} (but {})", names.join(", "));
            return Err(Failure::new(what, "some are there only without --quick"));
        }
        if self.rounds.is_some_and(|rounds| rounds == 0 || rounds > 100) {
            return Err(Failure::new("--rounds is out of range", "use 1 to 100"));
        }
        Ok(())
    }
}

/// Runs the comparison.
pub fn run(options: &Options) -> Result<()> {
    let mode = options.mode();
    let mut workloads = workloads::all(mode, options.rounds);
    options.check(&workloads)?;
    if !options.workloads.is_empty() {
        workloads.retain(|workload| options.workloads.contains(&workload.name));
    }
    sys::raise_descriptor_limit();
    let root = root()?;
    let out = options.out.clone().unwrap_or_else(|| root.join("target/bench"));
    let out = std::path::absolute(&out).map_err(cannot_write)?;
    let logs = out.join("logs");
    let _ = fs::remove_dir_all(&logs);
    fs::create_dir_all(&logs).map_err(cannot_write)?;
    let (mut peers, skipped) = peers::prepare(&root, &out, &options.peers)?;
    peers.extend(own_server(options)?);

    let machine = facts::machine(&root);
    let begun = Instant::now();
    let mut journal = Journal::open(&out, mode, &machine)?;
    let scale = Scale::of(mode);
    let mut tables = String::new();
    for workload in &workloads {
        // Open for all rounds with idle clients: see `Bare`.
        let bare = match workload.job {
            Job::Idle { clients, .. } => Some(Bare::connect(clients)?),
            _ => None,
        };
        let setting = round::Setting { scale, logs: &logs, bare: bare.as_ref() };
        for number in 1..=workload.rounds {
            for peer in peers.iter().filter(|peer| peer.cannot(&workload.job).is_none()) {
                let start = Instant::now();
                let mut outcome = round::run(peer, workload, &setting);
                if let Ok(json) = &mut outcome {
                    json.insert("took_seconds".to_owned(), start.elapsed().as_secs_f64().into());
                }
                journal.round(workload, peer, number, outcome)?;
            }
        }
        tables.push_str(&table::workload(workload, &peers, &journal.results));
    }
    let took = begun.elapsed().as_secs_f64();
    let sizes = facts::sizes(&root, &out, &peers, &journal.results, options.build_times);
    // The findings need all workloads, so the tables wait for them. stderr tells every round meanwhile.
    let found = findings::sentences(&journal.results);
    if !found.is_empty() {
        let smoke =
            if mode == Mode::Smoke { " (a smoke run: its figures say nothing)" } else { "" };
        println!("\nFindings{smoke}");
    }
    for (index, finding) in found.iter().enumerate() {
        println!("  {}. {finding}", index + 1);
    }
    print!("{tables}");
    println!("\nSmall things\n{}", table::align(&html::size_rows(&sizes)));
    for paragraph in findings::lesson(&journal.results) {
        println!("{paragraph}");
    }
    for skipped in &skipped {
        println!("skipped: {}, {}", skipped.name, skipped.reason);
    }
    let page = html::Page {
        mode,
        command: &command_line(),
        machine: &machine,
        peers: &peers,
        skipped: &skipped,
        workloads: &workloads,
        results: &journal.results,
        sizes: &sizes,
        failures: &journal.failures,
        took,
    };
    let page = page.render();
    fs::write(out.join("report.html"), &page).map_err(cannot_write)?;
    println!("\n{} run, {took:.0} s. See {}", mode.name(), out.join("report.html").display());
    let missing = check::missing(&workloads, &peers, &journal.results, &page);
    for line in &missing {
        eprintln!("missing: {line}");
    }
    match missing.len() {
        0 => Ok(()),
        n => Err(Failure::new(
            format!("the report is not complete: {n} things are missing"),
            "see above",
        )),
    }
}

/// Everything as it comes, in memory and as lines of JSON.
struct Journal {
    file: fs::File,
    results: Results,
    failures: Vec<String>,
}

impl Journal {
    fn open(out: &Path, mode: Mode, machine: &[(String, String)]) -> Result<Self> {
        let file = fs::File::create(out.join("results.jsonl")).map_err(cannot_write)?;
        let mut journal = Self { file, results: Results::default(), failures: Vec::new() };
        let mut head = Map::new();
        head.insert("command".to_owned(), "compare".into());
        head.insert("mode".to_owned(), mode.name().into());
        head.insert("command_line".to_owned(), command_line().into());
        let machine = machine.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        head.insert("machine".to_owned(), Value::Object(machine.collect()));
        journal.line(head)?;
        Ok(journal)
    }

    fn line(&mut self, json: Map<String, Value>) -> Result<()> {
        writeln!(self.file, "{}", Value::Object(json)).map_err(cannot_write)
    }

    fn round(
        &mut self,
        workload: &Workload,
        peer: &Peer,
        number: usize,
        outcome: Result<Map<String, Value>>,
    ) -> Result<()> {
        let what = format!("{} {number}/{} {}", workload.name, workload.rounds, peer.name);
        let mut json = match outcome {
            Ok(json) => json,
            Err(failure) => {
                eprintln!("{what}: FAILED: {failure}");
                self.failures.push(format!("{what}: {failure}"));
                return Ok(());
            }
        };
        json.insert("workload".to_owned(), workload.name.as_str().into());
        json.insert("peer".to_owned(), peer.name.as_str().into());
        json.insert("round".to_owned(), number.into());
        self.line(json.clone())?;
        let (workload_name, peer_name) = (workload.name.clone(), peer.name.clone());
        self.results.0.push(Record { workload: workload_name, peer: peer_name, json });
        if let Some(first) = workload.metrics.first() {
            let record = self.results.0.last();
            let value = record.and_then(|record| record.json.get(first.key)?.as_f64());
            let text = value.map_or_else(|| "–".to_owned(), |value| first.text(value));
            eprintln!("{what}: {} {text}", first.label);
        }
        Ok(())
    }
}

/// The folder with the peers in it: this one, or one above.
fn root() -> Result<PathBuf> {
    let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_dir().unwrap_or_default(),
    };
    let found = start.ancestors().find(|folder| folder.join("tests/peers").is_dir());
    found.map(Path::to_owned).ok_or_else(|| {
        Failure::new("there are no tests/peers here", "run it in the server's source folder")
    })
}

fn own_server(options: &Options) -> Result<Option<Peer>> {
    let Some(url) = &options.url else { return Ok(None) };
    let (url, name) = url_and_name(url);
    let mut target = Target::parse(url)?;
    target.greets = !options.no_greeting;
    target.batches = !options.no_batches;
    let kind = Kind::Running { target, pid: options.pid };
    let about = format!("the reader's own server at {url}, not started afresh for each round");
    Ok(Some(Peer { name: name.to_owned(), about, kind, program: None }))
}

/// `http://host:port=name`; without a name it is called `yours`.
fn url_and_name(text: &str) -> (&str, &str) {
    match text.rsplit_once('=') {
        Some((url, name)) if !name.is_empty() && !name.contains('/') => (url, name),
        _ => (text, "yours"),
    }
}

fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p threadcast-bench -- {}", arguments.join(" "))
}

fn cannot_write(e: std::io::Error) -> Failure {
    Failure::new(format!("cannot write the results ({e})"), "give another folder with --out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_and_without_a_name() {
        assert_eq!(url_and_name("http://h:1=mine"), ("http://h:1", "mine"));
        assert_eq!(url_and_name("http://h:1/x"), ("http://h:1/x", "yours"));
        assert_eq!(url_and_name("http://h:1/?a=/b"), ("http://h:1/?a=/b", "yours"));
    }
}
