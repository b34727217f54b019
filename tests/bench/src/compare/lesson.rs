//! What the comparison of `direct` and `handoff` teaches, told with this run's own figures.

use crate::compare::results::Results;

const WORKLOAD: &str = "fanout-sse";

/// The lesson, a paragraph each.
pub fn paragraphs(results: &Results) -> Vec<String> {
    let figure = |peer: &str, key: &str| results.figure(WORKLOAD, peer, key).map(|f| f.median);
    let mut paragraphs = vec![
        "Both are the same server with the same threads: one per client, asleep. With --fanout \
         handoff an event goes through each client's channel and wakes each client's thread, which \
         writes it. With --fanout direct, the default, the broadcaster writes the socket itself and \
         leaves the thread asleep, unless the socket is full."
            .to_owned(),
    ];
    let sentence = |peer: &str, name: &str| {
        let cpu = figure(peer, "server_cpu_us_per_delivery")?;
        let voluntary = figure(peer, "switches_voluntary_per_delivery")?;
        let involuntary = figure(peer, "switches_involuntary_per_delivery")?;
        let threads = figure(peer, "server_threads")?;
        let missed = figure(peer, "switches_missed_at_most_per_delivery");
        let missed = missed.map_or_else(String::new, |missed| {
            format!(" (threads that have ended, and the end of the run, add {missed:.2} at most)")
        });
        Some(format!(
            "{name}: {threads:.0} threads, {cpu:.2} µs of CPU per delivery, and per delivery \
             {voluntary:.3} voluntary context switches (a thread went to sleep) and \
             {involuntary:.3} involuntary ones (a thread was pushed aside){missed}."
        ))
    };
    paragraphs.extend(sentence("threadcast", "Direct"));
    paragraphs.extend(sentence("handoff", "Handoff"));
    let ratio = |key| {
        let (direct, handoff) = (figure("threadcast", key)?, figure("handoff", key)?);
        (direct > 0.0).then_some(handoff / direct)
    };
    let cpu = ratio("server_cpu_us_per_delivery");
    let switches = ratio("switches_voluntary_per_delivery");
    match cpu.zip(switches) {
        Some((cpu, switches)) => paragraphs.push(format!(
            "So {cpu:.1} times the CPU for {switches:.0} times the sleeping and waking, with as many \
             threads and as many bytes. A thread is cheap: it costs some memory and nothing while it \
             sleeps. Waking it is not: a futex call, a place in a run queue, a switch, a cold cache, \
             and the way back to sleep. An event loop saves the waking, not the threads, and so can \
             a server with threads."
        )),
        None => paragraphs.push("One of the two was not run, so there is nothing to tell.".to_owned()),
    }
    paragraphs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Record;
    use serde_json::{Map, json};

    #[test]
    fn tells_the_ratio_of_this_run_or_that_there_is_none() {
        let record = |peer: &str, cpu: f64, switches: f64| {
            let Ok(json) = serde_json::from_value::<Map<_, _>>(json!({
                "server_cpu_us_per_delivery": cpu, "switches_voluntary_per_delivery": switches,
                "switches_involuntary_per_delivery": 0.1, "server_threads": 1000, "valid": true,
            })) else {
                panic!("an object");
            };
            Record { workload: WORKLOAD.to_owned(), peer: peer.to_owned(), json }
        };
        let mut results = Results(vec![record("threadcast", 5.0, 0.01)]);
        assert!(paragraphs(&results).last().is_some_and(|last| last.contains("nothing to tell")));
        results.0.push(record("handoff", 20.0, 1.0));
        let text = paragraphs(&results).join("\n");
        assert!(text.contains("4.0 times the CPU for 100 times"), "{text}");
    }
}
