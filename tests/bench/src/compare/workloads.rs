//! What is run, and how large in each mode.

use crate::compare::metrics::{
    CHURN, ECHO, ECHO_ONE, ECHO_RATE, FANOUT, IDLE, Metric, RAMP, REPLAY, SATURATE,
};
use crate::saturate::MOST_DOUBLINGS;
use crate::target::Transport;

/// How much time there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Under a minute: does everything work? The figures say nothing.
    Smoke,
    /// Under three minutes: a first impression.
    Quick,
    /// Under thirty.
    Full,
}

impl Mode {
    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }
}

/// The kind of a workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    /// One publisher, many clients.
    Fanout {
        transport: Transport,
        clients: usize,
    },
    /// Closed loop, or open loop at a rate.
    Echo {
        connections: usize,
        rate: Option<f64>,
    },
    Idle {
        transport: Transport,
        clients: usize,
    },
    Ramp {
        clients: usize,
        at_once: usize,
    },
    Churn,
    Saturate,
    Replay,
}

/// One workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name on the command line and in the results.
    pub name: String,
    /// What it is, in a line.
    pub title: String,
    /// What is run.
    pub job: Job,
    /// How often.
    pub rounds: usize,
    /// What is told of it.
    pub metrics: &'static [Metric],
}

impl Workload {
    /// Whether its charted figures are above zero whenever it did anything. Differences of the
    /// whole machine's memory may be anything, and the highest rate may be none.
    pub fn steady(&self) -> bool {
        !matches!(self.job, Job::Idle { .. } | Job::Saturate)
    }
}

/// Sizes and times that depend on the mode.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Of the measured stretch.
    pub seconds: f64,
    /// Before it.
    pub warmup: f64,
    /// The same of an echo.
    pub echo_seconds: f64,
    /// The same of an echo.
    pub echo_warmup: f64,
    /// Events per second of a fan-out.
    pub rate: f64,
    /// Payload bytes of events.
    pub size: usize,
    /// Payload bytes of echoes.
    pub echo_size: usize,
    /// Rest before the figures of idle clients are read, in seconds.
    pub idle_wait: f64,
    /// Clients that stay while others come and go.
    pub churn_clients: usize,
    /// Those others, at once.
    pub churn_at_once: usize,
    /// The first rate tried when looking for the highest.
    pub first_rate: f64,
    /// Clients when looking for the highest rate.
    pub saturate_clients: usize,
    /// Length of a step there.
    pub step_seconds: f64,
    /// How many rates are tried there before the gap is halved.
    pub doublings: u32,
    /// How often the gap is halved there.
    pub halvings: u32,
    /// The bound of the p99 there, in milliseconds.
    pub bound: f64,
    /// Clients that come back.
    pub replay_clients: usize,
    /// Events each has missed.
    pub replay_events: u64,
}

impl Scale {
    /// The sizes of a mode.
    pub fn of(mode: Mode) -> Self {
        let full = Self {
            seconds: 4.0,
            warmup: 0.5,
            echo_seconds: 2.5,
            echo_warmup: 0.5,
            rate: 20.0,
            size: 100,
            echo_size: 64,
            idle_wait: 3.0,
            churn_clients: 500,
            churn_at_once: 16,
            first_rate: 50.0,
            saturate_clients: 500,
            step_seconds: 1.0,
            doublings: MOST_DOUBLINGS,
            halvings: 3,
            bound: 100.0,
            replay_clients: 500,
            replay_events: 500,
        };
        match mode {
            Mode::Full => full,
            Mode::Quick => Self {
                seconds: 1.0,
                warmup: 0.25,
                echo_seconds: 0.8,
                echo_warmup: 0.2,
                idle_wait: 0.4,
                churn_clients: 200,
                first_rate: 100.0,
                saturate_clients: 200,
                step_seconds: 0.4,
                halvings: 1,
                replay_clients: 300,
                replay_events: 300,
                ..full
            },
            Mode::Smoke => Self {
                seconds: 0.3,
                warmup: 0.1,
                echo_seconds: 0.3,
                echo_warmup: 0.1,
                idle_wait: 0.2,
                churn_clients: 20,
                churn_at_once: 4,
                saturate_clients: 20,
                step_seconds: 0.1,
                doublings: 2,
                halvings: 0,
                // Generous: the search has to find something on a machine that is busy.
                bound: 1000.0,
                replay_clients: 20,
                replay_events: 20,
                ..full
            },
        }
    }
}

/// All workloads of a mode. `main` rounds are those of the headline figures.
pub fn all(mode: Mode, rounds: Option<usize>) -> Vec<Workload> {
    use Transport::{Sse, Ws};
    let scale = Scale::of(mode);
    let (main, side) = match (mode, rounds) {
        (_, Some(rounds)) => (rounds, rounds),
        (Mode::Smoke, None) => (1, 1),
        (Mode::Quick, None) => (2, 1),
        (Mode::Full, None) => (5, 3),
    };
    let clients = if mode == Mode::Smoke { 50 } else { 1000 };
    let ramp = match mode {
        Mode::Smoke => 50,
        Mode::Quick => 1000,
        Mode::Full => 5000,
    };
    let mut list = Vec::new();
    let mut add = |name: &str, title: String, job, rounds, metrics| {
        list.push(Workload { name: name.to_owned(), title, job, rounds, metrics });
    };
    for (name, kind, transport) in [("fanout-sse", "SSE", Sse), ("fanout-ws", "WebSocket", Ws)] {
        let title = format!(
            "Fan-out: {clients} {kind} clients, {} events/s of {} bytes",
            scale.rate, scale.size
        );
        add(name, title, Job::Fanout { transport, clients }, main, FANOUT);
    }
    if mode == Mode::Full {
        for clients in [100, 5000] {
            let title = format!("The same with {clients} SSE clients");
            let job = Job::Fanout { transport: Sse, clients };
            add(&format!("fanout-{clients}"), title, job, side.min(2), FANOUT);
        }
    }
    let more: &[usize] = if mode == Mode::Full { &[500, 2000] } else { &[] };
    for &connections in [64].iter().chain(more) {
        let size = scale.echo_size;
        let title = format!("Echo: {connections} WebSockets, {size} bytes, closed loop");
        let job = Job::Echo { connections, rate: None };
        add(&format!("echo-{connections}"), title, job, main, ECHO);
    }
    // With little time, the headline figures get what there is of it.
    let echoes = if mode == Mode::Quick { side } else { main };
    let title = "Echo: one WebSocket, closed loop: the round trip".to_owned();
    add("echo-1", title, Job::Echo { connections: 1, rate: None }, echoes, ECHO_ONE);
    let rate = if mode == Mode::Smoke { 500.0 } else { 4000.0 };
    let title = format!("Echo: 64 WebSockets, open loop at {rate} messages/s");
    add("echo-rate", title, Job::Echo { connections: 64, rate: Some(rate) }, echoes, ECHO_RATE);
    for (name, kind, transport) in [("idle-sse", "SSE", Sse), ("idle-ws", "WebSocket", Ws)] {
        let title = format!("Idle: {clients} {kind} clients, KiB each");
        add(name, title, Job::Idle { transport, clients }, side, IDLE);
    }
    for at_once in [1, 100] {
        let way = if at_once == 1 { "one after another" } else { "100 at once" };
        let title = format!("Ramp: {ramp} SSE clients, {way}");
        add(&format!("ramp-{at_once}"), title, Job::Ramp { clients: ramp, at_once }, side, RAMP);
    }
    let title = format!(
        "Churn: {} at once come and go while {} SSE clients stay",
        scale.churn_at_once, scale.churn_clients
    );
    add("churn", title, Job::Churn, side, CHURN);
    let title = format!(
        "Saturate: {} SSE clients, the highest rate with a p99 under {} ms",
        scale.saturate_clients, scale.bound
    );
    add("saturate", title, Job::Saturate, side.min(2), SATURATE);
    let title = format!(
        "Replay: {} SSE clients come back and have missed {} events",
        scale.replay_clients, scale.replay_events
    );
    add("replay", title, Job::Replay, side, REPLAY);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_workload_has_a_chart() {
        for mode in [Mode::Smoke, Mode::Quick, Mode::Full] {
            let list = all(mode, None);
            for workload in &list {
                let name = &workload.name;
                assert_eq!(list.iter().filter(|other| other.name == *name).count(), 1, "{name}");
                assert!(workload.metrics.iter().any(|metric| metric.chart), "{name}");
                assert!(workload.rounds > 0, "{name}");
            }
        }
        assert!(all(Mode::Full, Some(7)).iter().any(|workload| workload.rounds == 7));
    }
}
