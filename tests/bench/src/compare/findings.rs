//! What a reader should take from a run, in plain words and with the run's own figures. Which way a sentence
//! goes is decided by the figures; where they are missing or disturbed there is no sentence.

use crate::compare::results::Results;

/// The most findings that are told.
const MOST: usize = 5;

/// The peers that are event loops.
const EVENT_LOOPS: [&str; 4] = ["axum", "axum-default", "node", "nchan"];

/// Figures that lie closer together than this are called equal: the noise of a shared machine.
const EQUAL: f64 = 1.05;

/// The findings, the most interesting one first.
pub fn sentences(results: &Results) -> Vec<String> {
    let told = [fan_out, most_deliveries, echo, idle, coming, latency];
    told.iter().filter_map(|tell| tell(results)).take(MOST).collect()
}

/// What is good in a figure.
#[derive(Clone, Copy)]
enum Good {
    Less,
    More,
}

fn figure(results: &Results, workload: &str, peer: &str, key: &str) -> Option<f64> {
    let figure = results.figure(workload, peer, key).filter(|figure| !figure.disturbed)?;
    Some(figure.median).filter(|median| *median > 0.0)
}

/// This server's figure, and that of the best event loop, with its name.
fn rivals(
    results: &Results,
    workload: &str,
    key: &str,
    good: Good,
) -> Option<(f64, &'static str, f64)> {
    let own = figure(results, workload, "threadcast", key)?;
    let all = EVENT_LOOPS.into_iter();
    let all = all.filter_map(|peer| Some((peer, figure(results, workload, peer, key)?)));
    let (peer, best) = all.reduce(|one, two| match good {
        Good::Less if two.1 < one.1 => two,
        Good::More if two.1 > one.1 => two,
        _ => one,
    })?;
    Some((own, peer, best))
}

/// How the other figure compares with ours.
fn times(own: f64, other: f64) -> String {
    match other / own {
        ratio if (1.0 / EQUAL..EQUAL).contains(&ratio) => "as much".to_owned(),
        ratio if ratio > 1.0 => format!("{ratio:.1} times as much"),
        ratio => format!("{:.0} % of that", 100.0 * ratio),
    }
}

fn fan_out(results: &Results) -> Option<String> {
    let (workload, key) = ("fanout-sse", "server_cpu_us_per_delivery");
    let (own, peer, best) = rivals(results, workload, key, Good::Less)?;
    let clients = figure(results, workload, "threadcast", "clients")?;
    let mut text = format!(
        "To deliver an event to one of {} SSE clients takes {own:.1} µs of CPU here; the best event \
         loop, {peer}, takes {best:.1}, {}.",
        whole(clients),
        times(own, best)
    );
    if let Some(handoff) = figure(results, workload, "handoff", key) {
        text += &format!(
            " Where each client's own thread is woken to write it (handoff): {handoff:.1}, {}.",
            times(own, handoff)
        );
    }
    Some(text)
}

fn most_deliveries(results: &Results) -> Option<String> {
    let (workload, key) = ("saturate", "deliveries_per_second");
    let (own, peer, best) = rivals(results, workload, key, Good::More)?;
    let clients = figure(results, workload, "threadcast", "clients")?;
    Some(format!(
        "This server delivers {} events a second at most to {} SSE clients, before they come late; {peer}, the \
         best event loop, {}, {}.",
        whole(own),
        whole(clients),
        whole(best),
        times(own, best)
    ))
}

fn echo(results: &Results) -> Option<String> {
    let key = "messages_per_second";
    let told = |workload| {
        let (own, peer, best) = rivals(results, workload, key, Good::More)?;
        let busy = figure(results, workload, "threadcast", "connections")?;
        let place = match own / best {
            ratio if ratio > EQUAL => "ahead of",
            ratio if ratio < 1.0 / EQUAL => "behind",
            _ => "level with",
        };
        let figures = format!("{} messages a second", whole(own));
        Some(format!(
            "{} busy WebSockets: {figures}, {place} {peer} with {}",
            whole(busy),
            whole(best)
        ))
    };
    let (few, many) = (told("echo-64")?, told("echo-2000")?);
    Some(format!(
        "A thread for each connection depends on how many are busy at once. {few}. {many}."
    ))
}

fn idle(results: &Results) -> Option<String> {
    let (workload, key) = ("idle-sse", "memory_kib_per_client");
    let (own, peer, best) = rivals(results, workload, key, Good::Less)?;
    let part = |key| figure(results, workload, "threadcast", key);
    let parts = match part("rss_kib_per_client").zip(part("kernel_kib_per_client")) {
        Some((resident, kernel)) => {
            format!(" ({resident:.0} in the process, {kernel:.0} in the kernel)")
        }
        None => String::new(),
    };
    let mib = |kib: f64| whole(kib * 10_000.0 / 1024.0);
    Some(format!(
        "An idle SSE client takes {own:.0} KiB here{parts}, and {best:.0} KiB with {peer}: for 10,000 clients \
         {} MiB against {}.",
        mib(own),
        mib(best)
    ))
}

fn coming(results: &Results) -> Option<String> {
    let (own, peer, best) = rivals(results, "ramp-1", "server_cpu_us_per_client", Good::Less)?;
    Some(format!(
        "To let one more SSE client in takes {own:.0} µs of CPU here, its thread included; {peer} takes \
         {best:.0}, {}.",
        times(own, best)
    ))
}

fn latency(results: &Results) -> Option<String> {
    let (own, peer, best) = rivals(results, "fanout-sse", "latency_us_p99", Good::Less)?;
    Some(format!(
        "Of all deliveries in the SSE fan-out 99 % come within {:.1} ms here, and within {:.1} ms with {peer}.",
        own / 1000.0,
        best / 1000.0
    ))
}

/// A whole number with commas; of large ones three digits count.
fn whole(value: f64) -> String {
    if value >= 1e6 {
        return format!("{:.1} million", value / 1e6);
    }
    let digits = value.abs().max(1.0).log10().floor() as i32;
    let unit = 10_f64.powi((digits - 2).max(0));
    let text = format!("{:.0}", (value / unit).round() * unit);
    let mut grouped = String::new();
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Record;
    use serde_json::{Value, json};

    fn add(results: &mut Results, workload: &str, peer: &str, figures: Value) {
        let Value::Object(mut json) = figures else { panic!("an object") };
        json.entry("valid").or_insert(true.into());
        results.0.push(Record { workload: workload.to_owned(), peer: peer.to_owned(), json });
    }

    #[test]
    fn a_sentence_goes_the_way_of_the_figures() {
        let delivery = |cpu: f64| json!({"server_cpu_us_per_delivery": cpu, "clients": 1000});
        let mut results = Results::default();
        add(&mut results, "fanout-sse", "threadcast", delivery(5.0));
        assert_eq!(sentences(&results), Vec::<String>::new(), "nobody to compare with");
        add(&mut results, "fanout-sse", "node", delivery(15.0));
        add(&mut results, "fanout-sse", "axum", delivery(10.0));
        add(&mut results, "fanout-sse", "floor", delivery(1.0));
        let found = sentences(&results);
        assert_eq!(
            found,
            [
                "To deliver an event to one of 1,000 SSE clients takes 5.0 µs of CPU here; the best event \
              loop, axum, takes 10.0, 2.0 times as much."
            ]
        );
        add(&mut results, "fanout-sse", "handoff", delivery(12.5));
        add(&mut results, "fanout-sse", "nchan", delivery(2.5));
        let found = sentences(&results);
        assert!(found[0].contains("nchan, takes 2.5, 50 % of that."), "{found:?}");
        assert!(found[0].ends_with("(handoff): 12.5, 2.5 times as much."), "{found:?}");
    }

    #[test]
    fn echo_is_ahead_or_behind_or_level() {
        let mut results = Results::default();
        for (workload, connections, own, other) in
            [("echo-64", 64, 150_400.0, 100_000.0), ("echo-2000", 2000, 50_000.0, 120_000.0)]
        {
            let rate = |rate: f64| json!({"messages_per_second": rate, "connections": connections});
            add(&mut results, workload, "threadcast", rate(own));
            add(&mut results, workload, "axum", rate(other));
        }
        let text = sentences(&results).join("\n");
        assert!(
            text.contains("64 busy WebSockets: 150,000 messages a second, ahead of axum"),
            "{text}"
        );
        assert!(
            text.contains("2,000 busy WebSockets: 50,000 messages a second, behind axum"),
            "{text}"
        );
        let level = json!({"messages_per_second": 149_000.0, "connections": 64});
        add(&mut results, "echo-64", "node", level);
        assert!(sentences(&results)[0].contains("level with node"));
    }

    #[test]
    fn what_was_disturbed_or_not_run_is_not_told_and_the_next_takes_its_place() {
        let mut results = Results::default();
        let idle = |kib: f64, valid: bool| json!({"memory_kib_per_client": kib, "valid": valid});
        add(&mut results, "idle-sse", "threadcast", idle(40.0, true));
        add(&mut results, "idle-sse", "axum", idle(10.0, false));
        assert!(sentences(&results).is_empty());
        add(&mut results, "idle-sse", "axum", idle(12.8, true));
        assert_eq!(
            sentences(&results),
            [
                "An idle SSE client takes 40 KiB here, and 13 KiB with axum: for 10,000 clients 391 MiB \
              against 125."
            ]
        );
        for (workload, key) in [
            ("fanout-sse", "server_cpu_us_per_delivery"),
            ("fanout-sse", "latency_us_p99"),
            ("saturate", "deliveries_per_second"),
            ("ramp-1", "server_cpu_us_per_client"),
        ] {
            for peer in ["threadcast", "node"] {
                add(&mut results, workload, peer, json!({key: 1_500_000.0, "clients": 10}));
            }
        }
        let found = sentences(&results);
        assert_eq!(found.len(), MOST, "without echo there is room for the sixth: {found:#?}");
        assert!(found[1].contains("delivers 1.5 million events a second"), "{found:#?}");
        assert!(found[4].contains("99 % come within 1500.0 ms here"), "{found:#?}");
    }
}
