//! Whether everything is there that should be: not how fast, only that it was measured.

use crate::compare::peers::{Kind, Peer};
use crate::compare::results::Results;
use crate::compare::workloads::Workload;

/// What is missing, a line each.
pub fn missing(
    workloads: &[Workload],
    peers: &[Peer],
    results: &Results,
    page: &str,
) -> Vec<String> {
    let mut missing = Vec::new();
    for workload in workloads {
        let chart = format!("id=\"chart-{}-", workload.name);
        if !page.contains(&chart) {
            missing.push(format!("report.html has no chart of {}", workload.name));
        }
        // What a reader's own server cannot do, we do not know.
        let ours = peers.iter().filter(|peer| !matches!(peer.kind, Kind::Running { .. }));
        for peer in ours.filter(|peer| peer.cannot(&workload.job).is_none()) {
            missing.extend(gaps(workload, peer, results));
        }
    }
    for peer in peers {
        if !page.contains(&format!("data-peer=\"{}\"", peer.name)) {
            missing.push(format!("report.html does not describe {}", peer.name));
        }
    }
    missing
}

fn gaps(workload: &Workload, peer: &Peer, results: &Results) -> Vec<String> {
    let (name, who) = (&workload.name, &peer.name);
    let rounds = results.of(name, who).len();
    if rounds == 0 {
        return vec![format!("{name} on {who}: no result")];
    }
    let mut gaps = Vec::new();
    if rounds < workload.rounds {
        gaps.push(format!("{name} on {who}: {rounds} of {} rounds", workload.rounds));
    }
    for metric in workload.metrics {
        match results.figure(name, who, metric.key) {
            None => gaps.push(format!("{name} on {who}: no {}", metric.key)),
            // What is charted is never zero in a run that did anything.
            Some(figure) if metric.chart && figure.median <= 0.0 && workload.steady() => {
                gaps.push(format!("{name} on {who}: {} is {}", metric.key, figure.median));
            }
            Some(_) => {}
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Record;
    use crate::compare::workloads::{Job, Mode, all};
    use serde_json::Map;

    fn peer(name: &str) -> Peer {
        Peer { name: name.to_owned(), about: String::new(), kind: Kind::Floor, program: None }
    }

    fn record(workload: &Workload, peer: &str) -> Record {
        let mut json = Map::new();
        for metric in workload.metrics {
            json.insert(metric.key.to_owned(), 1.5.into());
        }
        json.insert("valid".to_owned(), true.into());
        Record { workload: workload.name.clone(), peer: peer.to_owned(), json }
    }

    #[test]
    fn names_what_is_missing() {
        let workloads: Vec<Workload> =
            all(Mode::Smoke, None).into_iter().filter(|w| w.job == Job::Churn).collect();
        let peers = [peer("node"), peer("floor")];
        let page = "<svg id=\"chart-churn-x\"> data-peer=\"node\" data-peer=\"floor\"";
        let mut results = Results::default();
        let lines = missing(&workloads, &peers, &results, page);
        assert_eq!(lines, ["churn on node: no result"]);
        results.0.push(record(&workloads[0], "node"));
        assert!(missing(&workloads, &peers, &results, page).is_empty());
        results.0[0].json.remove("greeting_us_p99");
        results.0[0].json.insert("cycles_per_second".to_owned(), 0.0.into());
        assert_eq!(missing(&workloads, &peers, &results, page).len(), 2);
        assert_eq!(missing(&workloads, &peers, &results, "").len(), 5);
        let target = crate::target::Target::parse("http://127.0.0.1:1").expect("valid");
        let kind = Kind::Running { target, pid: None };
        let theirs = Peer { kind, ..peer("theirs") };
        let page = format!("{page} data-peer=\"theirs\"");
        assert!(missing(&workloads, &[theirs], &Results::default(), &page).is_empty());
    }
}
