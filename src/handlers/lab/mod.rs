//! `/lab`: a WebSocket through which the page experiments with this server, with `--demo` only; and
//! `/lab/stream`, an event stream of one of the two hubs that there are for these experiments.
//!
//! A command runs in the thread of the connection that it comes on: that one sleeps, computes, or panics, and no
//! other. Commands for the demo clients wait for each other's end. Each of them ends after
//! ten seconds at the latest, and when the server shuts down.

mod demo;

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::App;
use crate::event::Draft;
use crate::handlers::threads::milliseconds;
use crate::http::head::parameter;
use crate::hub::Hub;
use crate::os::task;
use crate::session::error::HandlerResult;
use crate::session::event_stream::EventStream;
use crate::session::start::Endpoint;
use crate::session::websocket::WebSocket;
use demo::{DemoClients, FANOUTS};

/// The longest time that a command may take.
const MAX_TIME: Duration = Duration::from_secs(10);

/// How often a handler that sleeps looks whether the server shuts down. Not in the midst of the page's five
/// seconds, which are one wait.
const SLEEP: Duration = Duration::from_secs(5);

/// The most demo clients of both fan-outs together.
const MAX_CLIENTS: u64 = 500;

/// The most bytes of a burst: a client's queue holds four times as many.
const MAX_BURST_BYTES: u64 = 1_000_000;

/// The topic of bursts.
const TOPIC: &str = "lab";

/// The experiments.
pub struct Lab {
    endpoint: Arc<Endpoint>,
    hubs: [Arc<Hub>; 2],
}

/// What the handlers of `/lab` share.
struct Experiments {
    app: Arc<App>,
    hubs: [Arc<Hub>; 2],
    clients: DemoClients,
}

impl Lab {
    /// Those of a server that has `prefix` in front of its paths; `None` where it has no hubs for them.
    pub fn new(app: &Arc<App>, prefix: &str) -> Option<Lab> {
        let hubs = app.lab_hubs.clone()?;
        let clients = DemoClients::new(app, prefix);
        let experiments = Experiments { app: Arc::clone(app), hubs: hubs.clone(), clients };
        let handler = Box::new(move |client: &mut WebSocket| experiments.serve(client));
        Some(Lab { endpoint: Arc::new(Endpoint { protocols: &[], handler }), hubs })
    }

    /// What serves the WebSocket.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The hub whose fan-out the query of `/lab/stream` names.
    pub fn hub(&self, query: &str) -> Option<&Arc<Hub>> {
        let fanout = parameter(query, "fanout")?;
        FANOUTS.iter().position(|name| *name == fanout).map(|index| &self.hubs[index])
    }
}

/// Serves `/lab/stream`: who the client is, then bursts.
///
/// # Errors
/// Where the connection is over.
pub fn stream(stream: &mut EventStream) -> HandlerResult {
    let you = json!({"client": stream.number(), "tid": task::this_thread()});
    stream.send("you", you.to_string())?;
    Ok(stream.follow([TOPIC])?)
}

impl Experiments {
    /// Serves a client of `/lab`, until it is gone.
    ///
    /// # Panics
    /// Where the client asks for that.
    fn serve(&self, client: &mut WebSocket) -> HandlerResult {
        // The demo clients end with the last of these.
        let _visit = self.clients.visit();
        client.send(
            json!({
                "lab": "hello",
                "client": client.number(),
                "tid": task::this_thread(),
                "name": format!("ws {}", client.peer()),
            })
            .to_string(),
        )?;
        while let Some(message) = client.receive()? {
            let command = message.text().ok().and_then(|text| serde_json::from_str(text).ok());
            let command: Value = command.unwrap_or_default();
            let mut answer = match self.execute(&command) {
                Ok(mut answer) => {
                    answer["lab"] = "done".into();
                    answer
                }
                Err(why) => json!({"lab": "error", "message": why}),
            };
            answer["do"] = command["do"].clone();
            answer["ref"] = command["ref"].clone();
            client.send(answer.to_string())?;
        }
        Ok(())
    }

    /// Executes a command. Returns what its answer tells, an object; or a message for people.
    fn execute(&self, command: &Value) -> Result<Value, String> {
        let deadline = Instant::now() + MAX_TIME;
        match command["do"].as_str() {
            Some("sleep") => {
                let end = end_of(command)?;
                while let Some(left) = self.left(end) {
                    thread::sleep(left.min(SLEEP));
                }
                Ok(json!({}))
            }
            Some("compute") => {
                let end = end_of(command)?;
                let mut value = 1_u64;
                while self.left(end).is_some() {
                    for _ in 0..10_000 {
                        value = black_box(value.wrapping_mul(6_364_136_223_846_793_005) + 1);
                    }
                }
                Ok(json!({}))
            }
            Some("panic") => panic!("a client of /lab has asked for this panic"),
            Some("clients") => {
                let wanted = [
                    number(command, FANOUTS[0], 0, MAX_CLIENTS)?,
                    number(command, FANOUTS[1], 0, MAX_CLIENTS)?,
                ];
                if wanted[0] + wanted[1] > MAX_CLIENTS {
                    return Err(format!("there may be {MAX_CLIENTS} demo clients at once"));
                }
                self.clients.set(wanted, deadline)?;
                Ok(json!({FANOUTS[0]: wanted[0], FANOUTS[1]: wanted[1]}))
            }
            Some("burst") => self.burst(command, deadline),
            Some("reset") => {
                self.clients.set([0, 0], deadline)?;
                Ok(json!({}))
            }
            _ => Err("\"do\" is none of sleep, compute, panic, clients, burst, reset".to_owned()),
        }
    }

    fn burst(&self, command: &Value, deadline: Instant) -> Result<Value, String> {
        let fanout = FANOUTS.iter().position(|name| command["fanout"] == **name);
        let fanout = fanout.ok_or("\"fanout\" is neither direct nor handoff")?;
        // With more than a queue holds, clients would be let go that are only a little behind.
        let events = number(command, "events", 1, self.app.config.queue as u64)?;
        let bytes = number(command, "bytes", 1, MAX_BURST_BYTES / events)?;
        let most_ms = MAX_TIME.as_millis() as u64 / 2 / events;
        let pause = Duration::from_millis(number(command, "everyMs", 0, most_ms)?);
        let publish = |data: &str| {
            let draft =
                Draft::new(TOPIC, Some("burst"), data).map_err(|error| error.to_string())?;
            thread::sleep(pause);
            self.hubs[fanout].publish(draft).map(drop).map_err(|error| error.to_string())
        };
        let burst = self.clients.burst(fanout, events, bytes as usize, deadline, publish)?;
        Ok(json!({
            "deliveries": burst.deliveries,
            "ms": milliseconds(burst.time),
            "cpuMs": milliseconds(burst.usage.cpu),
            "voluntary": burst.usage.voluntary,
            "involuntary": burst.usage.involuntary,
        }))
    }

    /// How long it is until `end`; `None` when that has come, or the server shuts down.
    fn left(&self, end: Instant) -> Option<Duration> {
        let left = end.saturating_duration_since(Instant::now());
        (!left.is_zero() && !self.app.is_draining()).then_some(left)
    }
}

/// When a command is to end that takes its time.
fn end_of(command: &Value) -> Result<Instant, String> {
    let time = number(command, "ms", 1, MAX_TIME.as_millis() as u64)?;
    Ok(Instant::now() + Duration::from_millis(time))
}

/// The whole number of this name in a command; where it may be 0, it is that if it is not there.
fn number(command: &Value, name: &str, least: u64, most: u64) -> Result<u64, String> {
    let value = match &command[name] {
        Value::Null if least == 0 => Some(0),
        value => value.as_u64().filter(|value| (least..=most).contains(value)),
    };
    value.ok_or_else(|| format!("\"{name}\" is no whole number from {least} to {most}"))
}
