//! The results as a page that needs nothing but itself.

use std::fmt::Write as _;

use crate::compare::facts::Size;
use crate::compare::peers::{Peer, Skipped};
use crate::compare::results::Results;
use crate::compare::workloads::{Mode, Workload};
use crate::compare::{findings, svg, table};

const STYLE: &str = "
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1,h2,h3{line-height:1.2}h2{margin-top:2.5rem;border-top:1px solid #ccc;padding-top:1rem}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left}.left th,.left td{text-align:left;white-space:normal}
svg{width:100%;max-width:720px;display:block;font:13px system-ui,sans-serif;fill:#222}
.name{text-anchor:end}.bar{fill:#9ab}.own{fill:#c60}.spread{stroke:#222;stroke-width:1.5}
code,pre{background:#f3f3f3;padding:.1em .3em}pre{padding:.6rem;overflow-x:auto}.note{color:#555;font-size:.9rem}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}svg{fill:#ddd}.bar{fill:#567}
.spread{stroke:#ddd}code,pre{background:#2a2a2a}th,td{border-color:#444}h2{border-color:#555}.note{color:#aaa}}
";

const LIMITS: &[&str] = &[
    "Generator and server share one machine and its CPUs. Rates and latencies are those of the \
     pair; CPU time per delivery is the server's own and the figure to trust most.",
    "Everything goes over the loopback interface: no network card, no loss, no distance. The \
     receiving half of the kernel's work for a packet is done in the sender's time, for every peer \
     alike.",
    "Only figures of one run may be compared with each other. Another machine, another kernel or \
     another hour gives other figures; the ratios are steadier.",
    "Latency counts from the planned time of each event or message (closed-loop echo: from its \
     sending), so that a server which stalls pays for all that should have happened meanwhile.",
    "A run in which the generator was short of CPU, or other programs used much of it, is invalid \
     and left out of the medians; where no other was there, the figure carries a !.",
    "CPU time is read from the kernel's clock of each process of the server, threads that have \
     ended included, and summed over master and workers. Resident memory of several processes is \
     their share of common pages (Pss).",
    "The kernel's share of memory (stacks, page tables, slab) is the difference of the whole \
     machine before and with the clients, less what a bare connection takes; other programs that \
     come and go meanwhile are in it.",
    "Context switches are summed over the threads alive at the end. What ended threads did is \
     bounded by the account the kernel gives of the whole process at its end (see the lesson).",
    "Where a sleeping thread wakes, on the CPU of the one that wakes it or on another, is the \
     scheduler's choice and changes a round trip by a factor of up to five: compare echoes of one \
     connection only over several rounds.",
    "Above 200 publish requests a second (saturate) several events go out in one request. A server \
     that writes them to a client together pays for one write, the floor for one each.",
    "Node runs as one process: a second one would need a bus between the two for every event.",
    "Every round gets a fresh process of each peer, which is best for all of them.",
];

/// Everything the page tells.
pub struct Page<'a> {
    /// What was run.
    pub mode: Mode,
    /// The command line.
    pub command: &'a str,
    /// Facts about the machine.
    pub machine: &'a [(String, String)],
    /// Who took part.
    pub peers: &'a [Peer],
    /// Who did not.
    pub skipped: &'a [Skipped],
    /// What was run.
    pub workloads: &'a [Workload],
    /// What came out.
    pub results: &'a Results,
    /// Sizes of the programs.
    pub sizes: &'a [Size],
    /// Rounds that ended in an error.
    pub failures: &'a [String],
    /// How long all of it took, in seconds.
    pub took: f64,
}

/// Text as part of a page.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn table_of(rows: &[Vec<String>], attribute: impl Fn(usize) -> String) -> String {
    let mut html = "<table>\n".to_owned();
    for (index, row) in rows.iter().enumerate() {
        let tag = if index == 0 { "th" } else { "td" };
        let cells: String =
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        let _ = writeln!(html, "<tr{}>{cells}</tr>", attribute(index));
    }
    html + "</table>\n"
}

impl Page<'_> {
    /// The whole page.
    pub fn render(&self) -> String {
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>threadcast: threads against event loops</title>\n\
             <style>{STYLE}</style></head><body>\n<h1>Threads against event loops</h1>\n"
        );
        let _ = writeln!(
            html,
            "<p>{} run, {:.0} s, {} peers in turn (A B C A B C), {} workloads. Bars are medians, \
             the thin line reaches from the lowest to the highest round.</p>",
            self.mode.name(),
            self.took,
            self.peers.len(),
            self.workloads.len()
        );
        if self.mode == Mode::Smoke {
            html.push_str("<p><strong>A smoke run: its figures say nothing.</strong></p>\n");
        }
        let found = findings::sentences(self.results);
        if !found.is_empty() {
            html.push_str("<h2>Findings</h2>\n<ol id=\"findings\">\n");
            for finding in found {
                let _ = writeln!(html, "<li>{}</li>", escape(&finding));
            }
            html.push_str("</ol>\n");
        }
        self.about(&mut html);
        for workload in self.workloads {
            self.workload(workload, &mut html);
        }
        html.push_str("<h2 id=\"lesson\">The lesson: waking a thread</h2>\n");
        for paragraph in findings::lesson(self.results) {
            let _ = writeln!(html, "<p>{}</p>", escape(&paragraph));
        }
        self.sizes(&mut html);
        html.push_str("<h2>Limits of the method</h2>\n<ul>\n");
        for limit in LIMITS {
            let _ = writeln!(html, "<li>{}</li>", escape(limit));
        }
        html + "</ul>\n</body></html>\n"
    }

    fn about(&self, html: &mut String) {
        html.push_str("<h2>Who and where</h2>\n");
        let mut rows = vec![vec!["machine".to_owned(), String::new()]];
        rows.extend(self.machine.iter().map(|(name, value)| vec![name.clone(), value.clone()]));
        let left = |table: String| table.replacen("<table>", "<table class=\"left\">", 1);
        html.push_str(&left(table_of(&rows, |_| String::new())));
        let mut rows = vec![
            ["peer", "what it is", "started by", "how events get in"].map(str::to_owned).to_vec(),
        ];
        rows.extend(self.peers.iter().map(|peer| {
            vec![peer.name.clone(), peer.about.clone(), peer.command(), self.publishing(peer)]
        }));
        let peer = |index: usize| match index.checked_sub(1).and_then(|i| self.peers.get(i)) {
            Some(peer) => format!(" data-peer=\"{}\"", escape(&peer.name)),
            None => String::new(),
        };
        html.push_str(&left(table_of(&rows, peer)));
        for skipped in self.skipped {
            let _ = writeln!(
                html,
                "<p class=\"note\">Skipped: {}, {}.</p>",
                escape(&skipped.name),
                escape(&skipped.reason)
            );
        }
        for failure in self.failures {
            let _ = writeln!(html, "<p class=\"note\">Failed: {}</p>", escape(failure));
        }
        let _ = writeln!(html, "<p>The command:</p>\n<pre>{}</pre>", escape(self.command));
    }

    /// How events get in, and what that came to in a fan-out.
    fn publishing(&self, peer: &Peer) -> String {
        let figure = |key| self.results.figure("fanout-sse", &peer.name, key);
        let pair = figure("publish_requests").zip(figure("publish_connections"));
        let counted = pair.filter(|(requests, _)| requests.median > 0.0).map(|(requests, new)| {
            format!(" (SSE fan-out: {} requests, {} new connections)", requests.median, new.median)
        });
        format!("{}{}", peer.publishing(), counted.unwrap_or_default())
    }

    fn workload(&self, workload: &Workload, html: &mut String) {
        let _ = writeln!(html, "<h2 id=\"{0}\">{1}</h2>", workload.name, escape(&workload.title));
        let able: Vec<&Peer> =
            self.peers.iter().filter(|peer| peer.cannot(&workload.job).is_none()).collect();
        for metric in workload.metrics.iter().filter(|metric| metric.chart) {
            let figure = |peer: &&Peer| {
                let figure = self.results.figure(&workload.name, &peer.name, metric.key);
                (peer.name.clone(), figure)
            };
            let bars: Vec<_> = able.iter().map(figure).collect();
            let _ = writeln!(html, "<h3>{}</h3>", escape(metric.label));
            let id = format!("chart-{}-{}", workload.name, metric.key);
            html.push_str(&svg::chart(&id, metric, &bars));
        }
        let mut rows = vec![table::header(workload)];
        rows.extend(able.iter().map(|peer| table::row(workload, peer, self.results)));
        html.push_str(&table_of(&rows, |_| String::new()));
        for peer in self.peers {
            if let Some(reason) = peer.cannot(&workload.job) {
                let _ = writeln!(html, "<p class=\"note\">{}: left out, {reason}.</p>", peer.name);
            }
            let mut objections = self.results.objections(&workload.name, &peer.name);
            objections.dedup();
            if !objections.is_empty() {
                let text = escape(&objections.join("; "));
                let _ = writeln!(html, "<p class=\"note\">{}, disturbed: {text}.</p>", peer.name);
            }
        }
    }

    fn sizes(&self, html: &mut String) {
        html.push_str("<h2 id=\"sizes\">Small things</h2>\n");
        html.push_str(&table_of(&size_rows(self.sizes), |_| String::new()));
    }
}

/// The table of sizes, for both outputs.
pub fn size_rows(sizes: &[Size]) -> Vec<Vec<String>> {
    let header = ["", "start to first answer", "to copy", "made of", "clean build"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(sizes.iter().map(|size| {
        let start = size.start_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1} ms"));
        let build = match size.build_seconds {
            Some(seconds) => format!("{seconds:.0} s"),
            None => "not measured".to_owned(),
        };
        vec![size.peer.clone(), start, size.binary.clone(), size.parts.clone(), build]
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Record;
    use serde_json::json;

    #[test]
    fn findings_stand_before_every_table() {
        let mut results = Results::default();
        let mut page = |valid: bool| {
            let json = json!({"valid": valid, "memory_kib_per_client": 10.0}).as_object().cloned();
            results.0 = vec![Record {
                workload: "idle-sse".to_owned(),
                peer: "threadcast".to_owned(),
                json: json.unwrap_or_default(),
            }];
            let page = Page {
                mode: Mode::Full,
                command: "",
                machine: &[],
                peers: &[],
                skipped: &[],
                workloads: &[],
                results: &results,
                sizes: &[],
                failures: &[],
                took: 1.0,
            };
            page.render()
        };
        let html = page(true);
        let finding = html.find("<li>An idle SSE client takes 10.0 KiB").expect("a finding");
        assert!(finding < html.find("<table").expect("tables"), "{html}");
        assert!(!page(false).contains("id=\"findings\""), "nothing to tell");
    }
}
