//! One workload on one peer, once.

use std::path::Path;

use serde_json::{Map, Value};

use crate::compare::peers::{Kind, Peer};
use crate::compare::process::Running;
use crate::compare::workloads::{Job, Scale, Workload};
use crate::error::{Failure, Result};
use crate::floor::Floor;
use crate::idle::Bare;
use crate::procfs::Server;
use crate::report::Report;
use crate::target::{Target, Transport};
use crate::{
    churn, compare_floor, echo, echo_report, fanout, fanout_report, idle, ramp, replay, saturate,
};

const TOPIC: &str = "bench";

/// What all rounds share.
pub struct Setting<'a> {
    /// Sizes and times.
    pub scale: Scale,
    /// Where servers may write their complaints.
    pub logs: &'a Path,
    /// Bare connections, held open during the rounds with idle clients.
    pub bare: Option<&'a Bare>,
}

/// Runs it: a fresh process each time, so that no round finds what another has left behind.
pub fn run(peer: &Peer, workload: &Workload, setting: &Setting) -> Result<Map<String, Value>> {
    if let Kind::Floor = peer.kind {
        return floor(workload, setting).map(Report::into_json);
    }
    let running = peer.start(setting.logs)?;
    let pid = match &peer.kind {
        Kind::Running { pid, .. } => *pid,
        _ => running.as_ref().map(Running::pid),
    };
    let Some(target) = peer.target(running.as_ref()) else {
        return Err(Failure::new("nowhere to connect to", "report this as a bug"));
    };
    let server = Server::find(pid)?;
    let report = server_round(workload, setting, &target, server.as_ref())?;
    let mut json = report.into_json();
    if let Some(server) = &server {
        json.insert("processes".to_owned(), server.processes().into());
    }
    if let Some(running) = running {
        let started = running.started_in.as_secs_f64() * 1e3;
        json.insert("start_ms".to_owned(), started.into());
        if let Some(life) = running.stop() {
            account(&mut json, life.voluntary + life.involuntary);
        }
    }
    Ok(json)
}

/// What the sums over living threads have missed at most: all that ended threads did in the whole
/// life of the process, and what all did after the measured stretch, when the clients left.
fn account(json: &mut Map<String, Value>, life: u64) {
    let number = |key: &str| json.get(key).and_then(Value::as_u64);
    if let Some((alive, delivered)) = number("switches_alive").zip(number("delivered")) {
        let missed = life.saturating_sub(alive) as f64 / delivered.max(1) as f64;
        json.insert("switches_missed_at_most_per_delivery".to_owned(), missed.into());
    }
}

fn server_round(
    workload: &Workload,
    setting: &Setting,
    target: &Target,
    server: Option<&Server>,
) -> Result<Report> {
    let scale = &setting.scale;
    let clock = server.map(Server::clock_name);
    match workload.job {
        Job::Fanout { transport, clients } => {
            let plan = fan(scale, transport, clients);
            let outcome = compare_floor::server_run(&plan, target, server)?;
            Ok(fanout_report::report("fanout", &plan, &outcome, clock))
        }
        Job::Echo { connections, rate } => echo_round(scale, connections, rate, target, server),
        Job::Idle { transport, clients } => {
            let plan =
                idle::Plan { transport, clients, wait: scale.idle_wait, topic: TOPIC.into() };
            let bare = setting.bare.ok_or_else(no_bare)?;
            idle::run(&plan, target.clone(), server, bare)
        }
        Job::Ramp { clients, at_once } => {
            let plan = ramp::Plan { transport: Transport::Sse, clients, concurrency: at_once };
            ramp::pass(&plan, at_once, target, TOPIC, server)
        }
        Job::Churn => {
            let fan = fan(scale, Transport::Sse, scale.churn_clients);
            churn::run(&churn::Plan { fan, at_once: scale.churn_at_once }, target, server)
        }
        Job::Saturate => {
            let mut one = |step: &fanout::Plan| compare_floor::server_run(step, target, server);
            saturate::run(&saturation(scale), &mut one)
        }
        Job::Replay => {
            let plan = replay::Plan {
                clients: scale.replay_clients,
                events: scale.replay_events,
                size: scale.size,
                at_once: 256,
                topic: TOPIC.to_owned(),
            };
            replay::run(&plan, target, server)
        }
    }
}

fn floor(workload: &Workload, setting: &Setting) -> Result<Report> {
    let scale = &setting.scale;
    match workload.job {
        Job::Fanout { clients, .. } => {
            let plan = fan(scale, Transport::Sse, clients);
            let (outcome, clock) = compare_floor::floor_run(&plan)?;
            Ok(fanout_report::report("floor", &plan, &outcome, clock))
        }
        Job::Echo { connections, rate } => {
            let floor = Floor::echo(None)?;
            let server = Server::find(Some(floor.pid()))?;
            echo_round(scale, connections, rate, &floor.target(), server.as_ref())
        }
        Job::Idle { clients, .. } => {
            let bare = setting.bare.ok_or_else(no_bare)?;
            let floor = Floor::start(clients, None)?;
            let server = Server::find(Some(floor.pid()))?;
            let transport = Transport::Sse;
            let plan =
                idle::Plan { transport, clients, wait: scale.idle_wait, topic: TOPIC.into() };
            idle::run(&plan, floor.target(), server.as_ref(), bare)
        }
        Job::Ramp { clients, at_once } => {
            let floor = Floor::start(clients, None)?;
            let server = Server::find(Some(floor.pid()))?;
            let plan = ramp::Plan { transport: Transport::Sse, clients, concurrency: at_once };
            ramp::pass(&plan, at_once, &floor.target(), TOPIC, server.as_ref())
        }
        Job::Saturate => {
            let mut one = |step: &fanout::Plan| Ok(compare_floor::floor_run(step)?.0);
            saturate::run(&saturation(scale), &mut one)
        }
        Job::Churn | Job::Replay => {
            Err(Failure::new("the floor cannot do this", "leave it out with --peers"))
        }
    }
}

fn echo_round(
    scale: &Scale,
    connections: usize,
    rate: Option<f64>,
    target: &Target,
    server: Option<&Server>,
) -> Result<Report> {
    let plan = echo::Plan {
        connections,
        size: scale.echo_size,
        seconds: scale.echo_seconds,
        warmup: scale.echo_warmup,
        inflight: 1,
        rate,
        binary: false,
    };
    plan.check()?;
    let outcome = echo::run(&plan, target.clone(), server)?;
    Ok(echo_report::report(&plan, &outcome, server.map(Server::clock_name)))
}

fn fan(scale: &Scale, transport: Transport, clients: usize) -> fanout::Plan {
    fanout::Plan {
        transport,
        clients,
        rate: scale.rate,
        size: scale.size,
        seconds: scale.seconds,
        warmup: scale.warmup,
        topic: TOPIC.to_owned(),
        batch: 1,
        cpu: None,
        log: false,
    }
}

fn saturation(scale: &Scale) -> saturate::Plan {
    let step = fanout::Plan {
        rate: scale.first_rate,
        seconds: scale.step_seconds,
        warmup: scale.step_seconds / 4.0,
        ..fan(scale, Transport::Sse, scale.saturate_clients)
    };
    let Scale { bound, doublings, halvings, .. } = *scale;
    saturate::Plan { step, bound, doublings, halvings }
}

fn no_bare() -> Failure {
    Failure::new("no bare connections to compare with", "report this as a bug")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_living_threads_do_not_show() {
        let mut json = Map::new();
        account(&mut json, 900);
        assert!(json.is_empty());
        json.insert("switches_alive".to_owned(), 800.into());
        json.insert("delivered".to_owned(), 50.into());
        account(&mut json, 900);
        assert_eq!(json["switches_missed_at_most_per_delivery"], 2.0);
    }
}
