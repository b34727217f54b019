//! What a run comes to, in plain words: the findings that the report opens with, and the lesson
//! behind the first of them. Every figure is this run's, and decides which way its sentence goes. A
//! finding without valid rounds of this server is left out; a peer without them is not named.

use serde_json::Value;

use crate::compare::peers::NAMES;
use crate::compare::results::{Figure, Results, plain};
use crate::report::duration;

/// At most so many findings are told.
const MAX_FINDINGS: usize = 5;
/// The peers that are event loops.
const EVENT_LOOPS: [&str; 4] = ["axum", "axum-default", "node", "nchan"];
/// This server, with which the others are compared.
const OWN: &str = NAMES[0];
/// Medians whose ratio is below this are not told apart: a shared machine's noise is as large.
const NOISE: f64 = 1.05;
/// The workload of the first finding, which the lesson explains.
const FANOUT: &str = "fanout-sse";
const CPU_PER_DELIVERY: &str = "server_cpu_us_per_delivery";

/// The findings, the most interesting one first.
pub fn sentences(results: &Results) -> Vec<String> {
    let findings = [delivery, most_deliveries, echo, idle, coming, latency];
    findings.iter().filter_map(|finding| finding(results)).take(MAX_FINDINGS).collect()
}

/// Which end of a figure is the good one.
#[derive(Clone, Copy)]
enum Good {
    Low,
    High,
}

/// A figure of a workload, for each peer.
struct Subject<'a> {
    results: &'a Results,
    workload: &'a str,
    key: &'a str,
    good: Good,
}

impl Subject<'_> {
    fn figure(&self, peer: &str) -> Option<Figure> {
        // A difference of the whole machine's memory may be anything; below zero it says nothing.
        figure(self.results, self.workload, peer, self.key).filter(|figure| figure.median > 0.0)
    }

    /// Event loops with a figure, the best one first.
    fn loops(&self) -> Vec<(&'static str, Figure)> {
        let told = |peer: &'static str| Some((peer, self.figure(peer)?));
        let mut loops: Vec<_> = EVENT_LOOPS.into_iter().filter_map(told).collect();
        loops.sort_by(|(_, a), (_, b)| match self.good {
            Good::Low => a.median.total_cmp(&b.median),
            Good::High => b.median.total_cmp(&a.median),
        });
        loops
    }

    /// This server's figure, then those of `handoff`, under the name it is given, and of the best
    /// event loop, as far as they are known. `text` writes a peer's median.
    fn compare(&self, handoff: Option<&str>, text: impl Fn(&str, f64) -> String) -> Option<String> {
        let own = self.figure(OWN)?;
        let mut parts = vec![format!("{} with {OWN}", text(OWN, own.median))];
        if let Some((name, figure)) = handoff.zip(self.figure("handoff")) {
            let value = text("handoff", figure.median);
            parts.push(format!("{value} with {name} ({})", relation(own, figure)));
        }
        let loops = self.loops();
        if let Some(&(peer, figure)) = loops.first() {
            // One whose rounds are invalid might have been better.
            let ran = |peer: &&&str| !self.results.of(self.workload, peer).is_empty();
            let title = match (loops.len(), EVENT_LOOPS.iter().filter(ran).count()) {
                (told, ran) if told < ran => "the best event loop with valid rounds",
                (1, _) => "an event loop",
                _ => "the best event loop",
            };
            let value = text(peer, figure.median);
            parts.push(format!("{value} with {peer}, {title} ({})", relation(own, figure)));
        }
        Some(join(&parts))
    }
}

/// The median of valid rounds and how far they lie apart. `None` as well where a search for the
/// highest rate has not found the server's limit: the generator's came first, or the search ended.
fn figure(results: &Results, workload: &str, peer: &str, key: &str) -> Option<Figure> {
    let figure = results.figure(workload, peer, key)?;
    let records = results.of(workload, peer);
    let unlimited = records.iter().any(|record| {
        let by_generator = record.json.get("generator_limited").and_then(Value::as_bool);
        by_generator.is_some_and(|limited| limited || !record.json.contains_key("failed_at"))
    });
    (!figure.disturbed && !unlimited).then_some(figure)
}

/// A number that belongs to this server's workload, such as how many clients it has.
fn size(results: &Results, workload: &str, key: &str) -> Option<String> {
    figure(results, workload, OWN, key).map(|figure| count(figure.median))
}

/// Whether the rounds do not tell two figures apart: the medians are close, or each lies within the
/// other's rounds.
fn alike(one: Figure, other: Figure) -> bool {
    let ratio = one.median / other.median;
    let within = |a: Figure, b: Figure| (b.low..=b.high).contains(&a.median);
    (1.0 / NOISE..NOISE).contains(&ratio) || (within(one, other) && within(other, one))
}

/// What another figure is, as seen from our own.
fn relation(own: Figure, other: Figure) -> String {
    let ratio = other.median / own.median;
    match ratio {
        _ if alike(own, other) => "no clear difference".to_owned(),
        ratio if ratio >= 2.0 => format!("{ratio:.1} times that"),
        ratio if ratio > 1.0 => format!("{:.0} % more", 100.0 * (ratio - 1.0)),
        ratio if ratio > 0.1 => format!("{:.0} % less", 100.0 * (1.0 - ratio)),
        // "99 % less" hides whether it is a tenth or a thousandth.
        ratio => format!("{} % of that", plain(100.0 * ratio)),
    }
}

/// What a delivery costs.
fn delivery(results: &Results) -> Option<String> {
    let subject = Subject { results, workload: FANOUT, key: CPU_PER_DELIVERY, good: Good::Low };
    let handoff = Some("handoff, which wakes every client's thread");
    let figures = subject.compare(handoff, cpu)?;
    let clients = size(results, FANOUT, "clients")?;
    Some(format!("Delivering an event to one of {clients} SSE clients costs {figures}."))
}

/// CPU time. The first peer's says that it is that.
fn cpu(peer: &str, us: f64) -> String {
    format!("{} µs{}", plain(us), if peer == OWN { " of CPU" } else { "" })
}

/// How many deliveries there can be.
fn most_deliveries(results: &Results) -> Option<String> {
    let (workload, key) = ("saturate", "deliveries_per_second");
    let subject = Subject { results, workload, key, good: Good::High };
    let figures = subject.compare(Some("handoff"), |_, rate| count(rate))?;
    let clients = size(results, workload, "clients")?;
    let bound = size(results, workload, "bound_ms")?;
    Some(format!(
        "The most deliveries a second to {clients} SSE clients, with a p99 under {bound} ms: {figures}."
    ))
}

/// Where threads win and where they lose: with few busy WebSockets, and with many.
fn echo(results: &Results) -> Option<String> {
    let sentence = |workload: &str| {
        let key = "messages_per_second";
        let subject = Subject { results, workload, key, good: Good::High };
        let own = subject.figure(OWN)?;
        // The generator shares the CPUs: the rate is both's, the CPU time is the server's alone.
        let each = |peer: &str| figure(results, workload, peer, "server_cpu_us_per_message");
        let figures = subject.compare(None, |peer, rate| {
            let unit = if peer == OWN { " messages a second" } else { "" };
            let each = each(peer).map(|each| format!(" ({} each)", cpu(peer, each.median)));
            format!("{}{unit}{}", count(rate), each.unwrap_or_default())
        })?;
        let verdict = match subject.loops().first() {
            None => "An",
            Some(&(_, best)) if alike(own, best) => "Threads are level with event loops in an",
            Some(&(_, best)) if own.median > best.median => "Threads win an",
            Some(_) => "Threads lose an",
        };
        let connections = size(results, workload, "connections")?;
        Some(format!("{verdict} echo on {connections} busy WebSockets: {figures}."))
    };
    let few = sentence("echo-64");
    let many = sentence("echo-2000").or_else(|| sentence("echo-500"));
    both(few, many)
}

/// What it takes to have a client that gets nothing.
fn idle(results: &Results) -> Option<String> {
    let (workload, key) = ("idle-sse", "memory_kib_per_client");
    let subject = Subject { results, workload, key, good: Good::Low };
    let own = subject.figure(OWN)?;
    let part = |key| Some(plain(Subject { key, ..subject }.figure(OWN)?.median));
    let parts = part("rss_kib_per_client").zip(part("kernel_kib_per_client"));
    let parts = parts.map_or_else(String::new, |(resident, kernel)| {
        format!(" ({resident} resident, {kernel} in the kernel)")
    });
    let all = |figure: Figure| memory(10_000.0 * figure.median);
    let with = |(peer, figure): (&str, Figure)| {
        format!("{} with {peer} ({})", all(figure), relation(own, figure))
    };
    let mut totals = vec![format!("{} with {OWN}", all(own))];
    totals.extend(subject.loops().into_iter().map(with));
    Some(format!(
        "An idle SSE client takes {} of memory with {OWN}{parts}. For 10,000 clients that is {}.",
        memory(own.median),
        join(&totals)
    ))
}

/// What it costs to come, and to come back.
fn coming(results: &Results) -> Option<String> {
    let connect = || {
        let (workload, key) = ("ramp-1", "server_cpu_us_per_client");
        let subject = Subject { results, workload, key, good: Good::Low };
        let figures = subject.compare(None, cpu)?;
        Some(format!("Letting one more SSE client in costs {figures}."))
    };
    let come_back = || {
        let (workload, key) = ("replay", "total_ms");
        let subject = Subject { results, workload, key, good: Good::Low };
        let figures = subject.compare(None, |_, ms| duration(1e3 * ms))?;
        let clients = size(results, workload, "clients")?;
        let events = size(results, workload, "events")?;
        Some(format!(
            "{clients} clients that come back at once, for {events} missed events each, have them after {figures}."
        ))
    };
    both(connect(), come_back())
}

/// How late deliveries are.
fn latency(results: &Results) -> Option<String> {
    let key = "latency_us_p99";
    let subject = Subject { results, workload: FANOUT, key, good: Good::Low };
    let figures = subject.compare(Some("handoff"), |_, us| duration(us))?;
    let clients = size(results, FANOUT, "clients")?;
    Some(format!("99 % of all deliveries to {clients} SSE clients come within {figures}."))
}

/// The lesson, a paragraph each: why `handoff` costs what the first finding says.
pub fn lesson(results: &Results) -> Vec<String> {
    let median = |peer: &str, key: &str| figure(results, FANOUT, peer, key).map(|f| f.median);
    let mut paragraphs = vec![
        "Both are the same server with the same threads: one per client, asleep. With --fanout \
         handoff an event goes through each client's channel and wakes each client's thread, which \
         writes it. With --fanout direct, the default, the broadcaster writes the socket itself and \
         leaves the thread asleep, unless the socket is full."
            .to_owned(),
    ];
    let sentence = |peer: &str, name: &str| {
        let threads = median(peer, "server_threads")?;
        let voluntary = median(peer, "switches_voluntary_per_delivery")?;
        let involuntary = median(peer, "switches_involuntary_per_delivery")?;
        let missed = median(peer, "switches_missed_at_most_per_delivery");
        let missed = missed.map_or_else(String::new, |missed| {
            format!("; threads that have ended, and the end of the run, add {missed:.2} at most")
        });
        Some(format!(
            "{name}: {threads:.0} threads, and per delivery {voluntary:.3} voluntary context \
             switches (a thread went to sleep) and {involuntary:.3} involuntary ones (a thread was \
             pushed aside){missed}."
        ))
    };
    paragraphs.extend(sentence(OWN, "Direct"));
    paragraphs.extend(sentence("handoff", "Handoff"));
    let ratio = |key| {
        let (direct, handoff) = (median(OWN, key)?, median("handoff", key)?);
        (direct > 0.0).then_some(handoff / direct)
    };
    let cpu = ratio(CPU_PER_DELIVERY);
    let switches = ratio("switches_voluntary_per_delivery");
    paragraphs.push(match cpu.zip(switches) {
        Some((cpu, switches)) if cpu > NOISE && switches > NOISE => format!(
            "So {cpu:.1} times the CPU for {switches:.0} times the sleeping and waking, with as many \
             threads and as many bytes. A thread is cheap: it costs some memory and nothing while it \
             sleeps. Waking it is not: a futex call, a place in a run queue, a switch, a cold cache, \
             and the way back to sleep. An event loop saves the waking, not the threads, and so can \
             a server with threads."
        ),
        Some((cpu, switches)) => format!(
            "That is {cpu:.2} times the CPU for {switches:.2} times the sleeping and waking: this \
             run does not show what waking a thread costs."
        ),
        None => "One of the two has no valid round, so there is nothing to tell.".to_owned(),
    });
    paragraphs
}

/// One sentence after the other, or the only one.
fn both(one: Option<String>, other: Option<String>) -> Option<String> {
    let told: Vec<String> = one.into_iter().chain(other).collect();
    (!told.is_empty()).then(|| told.join(" "))
}

/// `a`, or `a, and b`, or `a; b, and c`: with semicolons, since parts have commas in them.
fn join(parts: &[String]) -> String {
    match parts {
        [first @ .., last] if !first.is_empty() => format!("{}, and {last}", first.join("; ")),
        _ => parts.concat(),
    }
}

/// KiB as people read them.
fn memory(kib: f64) -> String {
    match kib {
        kib if kib < 1024.0 => format!("{} KiB", plain(kib)),
        kib if kib < 1024.0 * 1024.0 => format!("{} MiB", plain(kib / 1024.0)),
        kib => format!("{} GiB", plain(kib / 1024.0 / 1024.0)),
    }
}

/// A whole number with a comma; of large ones three digits count.
fn count(value: f64) -> String {
    let digits = value.max(1.0).log10().floor() as i32;
    let unit = 10_f64.powi((digits - 2).max(0));
    let rounded = (value / unit).round() * unit;
    match rounded {
        rounded if rounded >= 1e6 => format!("{:.1} million", rounded / 1e6),
        rounded if rounded >= 1e3 => {
            format!("{:.0},{:03.0}", (rounded / 1e3).floor(), rounded % 1e3)
        }
        rounded => format!("{rounded:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Record;
    use serde_json::{Map, json};

    /// Adds a round of each peer, with one figure of its own and some that all have.
    fn add(results: &mut Results, workload: &str, key: &str, figures: &[(&str, f64)], all: Value) {
        for &(peer, value) in figures {
            let mut json = Map::new();
            json.insert("valid".to_owned(), true.into());
            json.insert(key.to_owned(), value.into());
            json.extend(all.as_object().cloned().unwrap_or_default());
            results.0.push(Record { workload: workload.to_owned(), peer: peer.to_owned(), json });
        }
    }

    fn found(workload: &str, key: &str, figures: &[(&str, f64)], all: Value) -> String {
        let mut results = Results::default();
        add(&mut results, workload, key, figures, all);
        sentences(&results).join("\n")
    }

    fn delivery_costs(figures: &[(&str, f64)]) -> String {
        found(FANOUT, CPU_PER_DELIVERY, figures, json!({"clients": 1000}))
    }

    #[test]
    fn a_sentence_goes_the_way_of_the_figures() {
        let peers = [("threadcast", 5.0), ("handoff", 12.5), ("node", 15.0), ("axum", 7.0)];
        assert_eq!(
            delivery_costs(&peers),
            "Delivering an event to one of 1,000 SSE clients costs 5.00 µs of CPU with threadcast; \
             12.5 µs with handoff, which wakes every client's thread (2.5 times that), and \
             7.00 µs with axum, the best event loop (40 % more)."
        );
        let text = delivery_costs(&[("threadcast", 8.0), ("handoff", 4.0), ("node", 6.0)]);
        assert!(text.contains("thread (50 % less), and 6.00 µs with node, an event"), "{text}");
        assert!(text.ends_with("(25 % less)."), "{text}");
        let text = delivery_costs(&[("threadcast", 8.0), ("axum", 8.2), ("floor", 1.0)]);
        assert!(text.ends_with("with axum, an event loop (no clear difference)."), "{text}");
    }

    #[test]
    fn most_deliveries_are_told_only_where_the_servers_limit_was_found() {
        let rates = |figures: &[(&str, f64)], limited: bool| {
            let mut all = json!({"clients": 500, "bound_ms": 100.0, "generator_limited": limited});
            all["failed_at"] = 22400.0.into();
            found("saturate", "deliveries_per_second", figures, all)
        };
        let peers = [("threadcast", 10.8e6), ("handoff", 4.4e6), ("axum", 1.8e6), ("node", 94e3)];
        assert_eq!(
            rates(&peers, false),
            "The most deliveries a second to 500 SSE clients, with a p99 under 100 ms: 10.8 million \
             with threadcast; 4.4 million with handoff (59 % less), and 1.8 million with axum, the \
             best event loop (83 % less)."
        );
        assert_eq!(rates(&peers, true), "");
        let ended = json!({"clients": 500, "bound_ms": 100.0, "generator_limited": false});
        assert_eq!(found("saturate", "deliveries_per_second", &peers, ended), "");
        let text = rates(&[("threadcast", 10e6), ("node", 94e3)], false);
        assert!(text.ends_with("94,000 with node, an event loop (0.94 % of that)."), "{text}");
        let text = rates(&[("threadcast", 94e3), ("node", 1e6)], false);
        assert!(
            text.ends_with("1.0 million with node, an event loop (10.6 times that)."),
            "{text}"
        );
    }

    #[test]
    fn threads_win_or_lose_or_are_level_in_an_echo() {
        let mut results = Results::default();
        for (connections, own, other) in [(64, 150_400.0, 100e3), (2000, 50e3, 120e3)] {
            let all = json!({"connections": connections, "server_cpu_us_per_message": 7.5});
            let peers = [("threadcast", own), ("axum", other), ("node", 40e3)];
            let workload = format!("echo-{connections}");
            add(&mut results, &workload, "messages_per_second", &peers, all);
        }
        let text = sentences(&results).join("\n");
        assert_eq!(
            text,
            "Threads win an echo on 64 busy WebSockets: 150,000 messages a second (7.50 µs of CPU \
             each) with threadcast, and 100,000 (7.50 µs each) with axum, the best event loop (34 % \
             less). Threads lose an echo on 2,000 busy WebSockets: 50,000 messages a second (7.50 µs \
             of CPU each) with threadcast, and 120,000 (7.50 µs each) with axum, the best event loop \
             (2.4 times that)."
        );
        // Without many, the few are told alone; the rounds of these two overlap.
        results.0.retain(|record| record.workload == "echo-64");
        for peer in [("threadcast", 90e3), ("axum", 160e3)] {
            let all = json!({"connections": 64});
            for _ in 0..2 {
                add(&mut results, "echo-64", "messages_per_second", &[peer], all.clone());
            }
            add(&mut results, "echo-64", "messages_per_second", &[(peer.0, 130e3)], all);
        }
        let text = sentences(&results).join("\n");
        assert!(text.starts_with("Threads are level with event loops in an echo on 64"), "{text}");
        assert!(!text.contains("2,000"), "{text}");
    }

    #[test]
    fn memory_is_told_for_ten_thousand_clients_beside_every_event_loop() {
        let peers = [("threadcast", 37.6), ("axum", 11.7), ("nchan", 10.5), ("node", 150.0)];
        let parts = json!({"rss_kib_per_client": 13.3, "kernel_kib_per_client": 24.3});
        assert_eq!(
            found("idle-sse", "memory_kib_per_client", &peers, parts),
            "An idle SSE client takes 37.6 KiB of memory with threadcast (13.3 resident, 24.3 in the \
             kernel). For 10,000 clients that is 367 MiB with threadcast; 103 MiB with nchan (72 % \
             less); 114 MiB with axum (69 % less), and 1.43 GiB with node (4.0 times that)."
        );
        let below_zero = [("threadcast", 2.0), ("axum", -1.0)];
        let text = found("idle-sse", "memory_kib_per_client", &below_zero, json!({}));
        assert!(text.ends_with("For 10,000 clients that is 19.5 MiB with threadcast."), "{text}");
        assert_eq!(
            found("idle-sse", "memory_kib_per_client", &[("threadcast", -2.0)], json!({})),
            ""
        );
    }

    #[test]
    fn coming_and_coming_back_and_lateness_name_the_event_loop_with_the_least() {
        let peers = [("threadcast", 100.0), ("axum", 50.0), ("node", 250.0)];
        let connect = "Letting one more SSE client in costs 100 µs of CPU with threadcast, and \
                       50.0 µs with axum, the best event loop (50 % less).";
        let mut results = Results::default();
        add(&mut results, "ramp-1", "server_cpu_us_per_client", &peers, json!({}));
        assert_eq!(sentences(&results), [connect]);
        let back = [("threadcast", 70.0), ("node", 2000.0), ("nchan", 1400.0)];
        let all = json!({"clients": 500, "events": 300});
        add(&mut results, "replay", "total_ms", &back, all);
        let come_back = "500 clients that come back at once, for 300 missed events each, have them \
                         after 70.00 ms with threadcast, and 1.40 s with nchan, the best event \
                         loop (20.0 times that).";
        assert_eq!(sentences(&results), [format!("{connect} {come_back}")]);
        results.0.retain(|record| record.workload == "replay");
        assert_eq!(sentences(&results), [come_back]);
        let late = [("threadcast", 9e3), ("handoff", 18e3), ("node", 27e3), ("axum", 6e3)];
        assert_eq!(
            found(FANOUT, "latency_us_p99", &late, json!({"clients": 1000})),
            "99 % of all deliveries to 1,000 SSE clients come within 9.00 ms with threadcast; \
             18.00 ms with handoff (2.0 times that), and 6.00 ms with axum, the best event loop \
             (33 % less)."
        );
    }

    #[test]
    fn who_was_not_run_or_was_disturbed_is_not_told() {
        assert_eq!(delivery_costs(&[]), "");
        assert_eq!(delivery_costs(&[("axum", 7.0), ("handoff", 9.0)]), "", "nothing of our own");
        assert!(
            delivery_costs(&[("threadcast", 5.0)]).ends_with("5.00 µs of CPU with threadcast.")
        );
        let mut results = Results::default();
        let peers = [("threadcast", 5.0), ("handoff", 9.0), ("axum", 7.0), ("node", 8.0)];
        add(&mut results, FANOUT, CPU_PER_DELIVERY, &peers, json!({"clients": 10}));
        let disturb = |results: &mut Results, peer: &str| {
            let own = results.0.iter_mut().filter(|record| record.peer == peer);
            own.for_each(|record| _ = record.json.insert("valid".to_owned(), false.into()));
        };
        disturb(&mut results, "axum");
        disturb(&mut results, "handoff");
        let text = sentences(&results).join("\n");
        assert!(text.contains("and 8.00 µs with node, the best event loop with valid"), "{text}");
        assert!(!text.contains("axum") && !text.contains("handoff"), "{text}");
        disturb(&mut results, "threadcast");
        assert!(sentences(&results).is_empty());
    }

    #[test]
    fn the_sixth_takes_the_place_of_one_that_is_missing() {
        let mut results = Results::default();
        for (workload, key) in [
            (FANOUT, CPU_PER_DELIVERY),
            (FANOUT, "latency_us_p99"),
            ("saturate", "deliveries_per_second"),
            ("echo-64", "messages_per_second"),
            ("idle-sse", "memory_kib_per_client"),
            ("replay", "total_ms"),
        ] {
            let all = json!({"clients": 10, "connections": 10, "events": 10, "bound_ms": 100});
            add(&mut results, workload, key, &[("threadcast", 5.0), ("nchan", 7.0)], all);
        }
        // A round has all figures of its workload.
        for record in &mut results.0 {
            for key in [CPU_PER_DELIVERY, "latency_us_p99"] {
                record.json.entry(key).or_insert(5.0.into());
            }
        }
        let found = sentences(&results);
        assert_eq!(found.len(), MAX_FINDINGS);
        assert!(found[4].starts_with("10 clients that come back at once"), "{found:#?}");
        results.0.retain(|record| record.workload != "echo-64");
        let found = sentences(&results);
        assert_eq!(found.len(), MAX_FINDINGS);
        assert!(found[4].starts_with("99 % of all deliveries to 10 SSE"), "{found:#?}");
    }

    #[test]
    fn the_lesson_tells_the_ratio_of_this_run_or_that_there_is_none() {
        let lesson_of = |figures: &[(&str, f64, f64)]| {
            let mut results = Results::default();
            for &(peer, cpu, switches) in figures {
                let all = json!({
                    "switches_voluntary_per_delivery": switches, "server_threads": 1000,
                    "switches_involuntary_per_delivery": 0.1,
                });
                add(&mut results, FANOUT, CPU_PER_DELIVERY, &[(peer, cpu)], all);
            }
            lesson(&results).join("\n")
        };
        assert!(lesson_of(&[("threadcast", 5.0, 0.01)]).contains("nothing to tell"));
        let text = lesson_of(&[("threadcast", 5.0, 0.01), ("handoff", 20.0, 1.0)]);
        assert!(text.contains("4.0 times the CPU for 100 times"), "{text}");
        let text = lesson_of(&[("threadcast", 5.0, 0.5), ("handoff", 4.0, 1.0)]);
        assert!(text.ends_with("does not show what waking a thread costs."), "{text}");
    }
}
