//! Random histories against the model: clients come and go, by event stream and by WebSocket, read
//! slowly, come back with what they saw last or with nonsense, ask and publish meanwhile; the
//! server restarts. Every client must be told exactly what [`crate::model`] says.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use threadcast::Fanout;
use threadcast::event::{Draft, EventId};

use crate::campaign::{Failure, Outcome, Plan, campaign};
use crate::live::Live;
use crate::model::{Due, Last, Published, TOPICS, World};
use crate::replay_cases::{Case, Op, SLOTS, case};
use crate::replay_client::{Client, Progress, Wish};

/// How many bytes may certainly wait for a client. (The server's cap is a megabyte more: what is
/// in the middle of being written counts as well.)
const SURE_BYTES: usize = 3 << 20;

/// How many messages less than its queue a client may certainly be behind: the one that is being
/// written, and one that it has read already, but the server has not yet crossed off.
const SLACK: usize = 2;

/// One slot: a client, or what is left of it.
#[derive(Default)]
struct Slot {
    client: Option<Client>,
    last: Option<Last>,
}

/// A case at work.
struct Stage<'a> {
    case: &'a Case,
    live: Arc<Live>,
    world: World,
    slots: Vec<Slot>,
    counts: &'a Counts,
}

/// What happened in all, for the last line.
#[derive(Default)]
struct Counts {
    told: Cell<u64>,
    gaps: Cell<u64>,
    slow: Cell<u64>,
}

fn add(cell: &Cell<u64>, more: usize) {
    cell.set(cell.get() + more as u64);
}

impl Stage<'_> {
    fn start(case: &Case) -> Result<Live, String> {
        let fanout = if case.direct { Fanout::Direct } else { Fanout::Handoff };
        Live::start(|config| {
            config.set_fanout(fanout)?;
            config.set_history(case.history)?;
            config.set_queue(case.queue)?;
            // Long enough for whatever a client must read before it can go.
            config.set_drain(Duration::from_secs(10))
        })
    }

    fn run(mut self) -> Result<(), String> {
        for (number, op) in self.case.ops.iter().enumerate() {
            self.step(op).map_err(|why| format!("step {number}, {op:?}: {why}"))?;
        }
        // Whatever should not have come would stand before this.
        for topic in 0..TOPICS.len() {
            self.publish(topic, None, "the end".to_owned())?;
        }
        self.catch_up_all().map_err(|why| format!("at the end: {why}"))?;
        self.slots.clear();
        match self.live.server.shutdown() {
            true => Ok(()),
            false => Err("clients that have gone keep the server from ending".to_owned()),
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Publish { topic, name, data } => self.publish(*topic, name.clone(), data.clone()),
            Op::Burst { topic, count, size } => (0..*count)
                .try_for_each(|number| self.publish(*topic, None, format!("{number:>size$}"))),
            Op::Connect { slot, wish, strange } => {
                let last = strange.clone().map_or(Last::Nothing, Last::Strange);
                self.connect(*slot, wish, last, false)
            }
            Op::Return { slot, wish, reset } => {
                let left = &self.slots[*slot];
                let last = left.client.as_ref().map(|client| client.last.clone());
                let last = last.or_else(|| left.last.clone()).unwrap_or(Last::Nothing);
                self.connect(*slot, wish, last, *reset)
            }
            Op::Leave { slot, reset } => {
                self.leave(*slot, *reset);
                Ok(())
            }
            Op::Ask { slot, text } => {
                if let Some(client) = &mut self.slots[*slot].client {
                    client.ask(text);
                }
                Ok(())
            }
            Op::CatchUp { slot } => self.catch_up(*slot),
            Op::CatchUpAll => self.catch_up_all(),
            Op::Restart => self.restart(),
        }
    }

    fn publish(&mut self, topic: usize, name: Option<String>, data: String) -> Result<(), String> {
        let draft =
            Draft::new(TOPICS[topic], name.as_deref(), &data).map_err(|error| error.to_string())?;
        let receipt = self.live.server.app().hub.publish(draft);
        let receipt = receipt.map_err(|_| "the hub has stopped".to_owned())?;
        let event = self.world.publish(Published { id: receipt.id, topic, name, data })?;
        let mut sure = 0;
        for client in self.slots.iter_mut().filter_map(|slot| slot.client.as_mut()) {
            if client.wanted.contains(&topic) {
                sure += usize::from(is_sure(client, self.case.queue));
                client.due.push_back(Due::Event(event.clone()));
                client.outstanding.0 += 1;
                client.outstanding.1 += event.data.len() + 200;
            }
        }
        // (More may be counted: of a client that left the server may not know yet.)
        match receipt.subscribers >= sure {
            true => Ok(()),
            false => Err(format!("{} subscribers, and {sure} are there", receipt.subscribers)),
        }
    }

    fn connect(&mut self, slot: usize, wish: &Wish, last: Last, reset: bool) -> Result<(), String> {
        self.leave(slot, reset);
        let wanted: BTreeSet<usize> = match wish.topics.is_empty() {
            true => (0..TOPICS.len()).collect(),
            false => wish.topics.clone(),
        };
        let due = self.world.due(&last, &wanted);
        let client = Client::connect(&self.live, wish, last, due)?;
        client.greeted.into_iter().for_each(|id| self.world.tell(id));
        self.slots[slot].client = Some(client);
        Ok(())
    }

    fn leave(&mut self, slot: usize, reset: bool) {
        if let Some(client) = self.slots[slot].client.take() {
            self.slots[slot].last = Some(client.last.clone());
            client.leave(reset);
        }
    }

    fn catch_up(&mut self, slot: usize) -> Result<(), String> {
        let Some(client) = &mut self.slots[slot].client else { return Ok(()) };
        let before = client.due.len();
        let mut told: Vec<EventId> = Vec::new();
        let progress = client.catch_up(&mut |id| told.push(id));
        add(&self.counts.told, before - client.due.len());
        add(&self.counts.gaps, told.len());
        told.into_iter().for_each(|id| self.world.tell(id));
        match progress.map_err(|why| format!("client {slot}: {why}"))? {
            Progress::UpToDate => Ok(()),
            Progress::Ended(status) if is_sure(client, self.case.queue) => Err(format!(
                "client {slot} was cut off ({status:?}) with {:?} messages and bytes waiting",
                client.outstanding
            )),
            Progress::Ended(None | Some(1013)) => {
                add(&self.counts.slow, 1);
                self.leave(slot, false);
                Ok(())
            }
            Progress::Ended(status) => Err(format!("client {slot} was closed with {status:?}")),
        }
    }

    fn catch_up_all(&mut self) -> Result<(), String> {
        (0..SLOTS).try_for_each(|slot| self.catch_up(slot))
    }

    /// What was published before a shutdown reaches everyone, and then the stream ends.
    fn restart(&mut self) -> Result<(), String> {
        self.catch_up_all()?;
        for topic in 0..TOPICS.len() {
            self.publish(topic, None, "last words".to_owned())?;
        }
        let previous = Arc::clone(&self.live);
        let ended = std::thread::scope(|scope| {
            let shutdown = scope.spawn(move || previous.server.shutdown());
            let ended = (0..SLOTS).try_for_each(|slot| {
                self.catch_up(slot)?;
                if let Some(client) = &mut self.slots[slot].client {
                    match client.read_end()? {
                        None | Some(1012) => self.leave(slot, false),
                        other => return Err(format!("client {slot} was closed with {other:?}")),
                    }
                }
                Ok(())
            });
            // Also where something was wrong nobody must keep the server from ending.
            (0..SLOTS).for_each(|slot| self.leave(slot, false));
            match shutdown.join() {
                Ok(true) => ended,
                Ok(false) => ended.and(Err("the shutdown took too long".to_owned())),
                Err(_) => Err("the shutdown panicked".to_owned()),
            }
        });
        // Ids are times: a server that starts in the millisecond in which another one ended could
        // not tell its own from those of the other. No process starts that fast.
        std::thread::sleep(Duration::from_millis(2));
        self.live = Arc::new(Stage::start(self.case)?);
        self.world = World::new(self.case.history);
        ended.map_err(|why| format!("at the shutdown: {why}"))
    }
}

/// Whether the server must not have given the client up.
fn is_sure(client: &Client, queue: usize) -> bool {
    client.outstanding.0 + SLACK <= queue && client.outstanding.1 <= SURE_BYTES
}

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    let counts = Counts::default();
    let test = |case: &Case| {
        let live = Arc::new(Stage::start(case)?);
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        let world = World::new(case.history);
        Stage { case, live, world, slots, counts: &counts }.run()
    };
    let note = || {
        let Counts { told, gaps, slow } = &counts;
        let (told, gaps, slow) = (told.get(), gaps.get(), slow.get());
        format!("{told} events told, {gaps} gaps, {slow} slow clients cut off")
    };
    let threads = threadcast::os::procfs::ProcessInfo::read().threads;
    let tally = campaign(plan, 10, case(), test, || Ok(()), note)?;
    let failed = |text| Failure { seed: plan.seed, cases: tally.cases, text };
    let live = Live::start(|_| Ok(())).map_err(failed)?;
    // The threads of one quiet server are all that may be left.
    live.wait_threads(threads + 16).map_err(failed)?;
    Ok(tally)
}
