//! `listener::socket` under stress: eight threads open, use, close and reset connections of every
//! kind at once, while bystanders in the same process watch their own descriptors. What must never
//! happen is that a claim, a detach or the reaper touches a descriptor of anything else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use threadcast::Config;
use threadcast::stats::{ProcessInfo, open_descriptors};

use crate::bystanders::{Bystander, Listener};
use crate::campaign::{Failure, Outcome, Plan, Tally};
use crate::live::{self, Live, PATIENCE};
use crate::panics;
use crate::rng::Rng;
use crate::sockets_clients::Worker;

const WORKERS: u64 = 8;

/// Threads that check bystanders, and bystanders of each that stay for good.
const WATCHERS: u64 = 2;
const BYSTANDERS: usize = 48;

/// What all threads share.
pub struct Stage {
    /// The server under test.
    pub live: Live,
    /// Where TCP bystanders connect to.
    pub listener: Listener,
    stop: AtomicBool,
    wrong: Mutex<Option<String>>,
    /// What the clients did.
    pub actions: AtomicU64,
    checks: AtomicU64,
    churned: AtomicU64,
}

impl Stage {
    /// Keeps the first thing that goes wrong, and ends the run.
    fn fail(&self, text: String) {
        if let Ok(mut wrong) = self.wrong.lock() {
            wrong.get_or_insert(text);
        }
        self.stop.store(true, SeqCst);
    }
}

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    let failed = |cases, text| Failure { seed: plan.seed, cases, text };
    let config = Config { header_timeout: Duration::from_secs(2), ..live::quiet() };
    let live = Live::start(config).map_err(|text| failed(0, text))?;
    let listener = Listener::new().map_err(|error| failed(0, error.to_string()))?;
    live.check_health().map_err(|text| failed(0, text))?;
    let before = (ProcessInfo::read().threads, open_descriptors());
    let panics = panics::seen();
    let stage = Stage {
        live,
        listener,
        stop: AtomicBool::new(false),
        wrong: Mutex::new(None),
        actions: AtomicU64::new(0),
        checks: AtomicU64::new(0),
        churned: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for number in 0..WATCHERS {
            let (stage, rng) = (&stage, Rng::new(plan.seed ^ (number + 1) << 48));
            scope.spawn(move || {
                if let Err(text) = watch(stage, rng) {
                    stage.fail(format!("a bystander: {text}"));
                }
            });
        }
        for number in 0..WORKERS {
            let (stage, rng) = (&stage, Rng::new(plan.seed ^ (number + 1) << 32));
            scope.spawn(move || {
                let mut worker = Worker::new(number, stage, rng);
                while !stage.stop.load(SeqCst) {
                    if let Err(text) = worker.act() {
                        stage.fail(format!("client thread {number}: {text}"));
                    }
                    stage.actions.fetch_add(1, SeqCst);
                }
            });
        }
        while Instant::now() < plan.until && !stage.stop.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stage.stop.store(true, SeqCst);
    });
    let cases = stage.actions.load(SeqCst);
    let wrong = stage.wrong.lock().map(|mut wrong| wrong.take()).unwrap_or_default();
    let verdict = match wrong {
        Some(text) => Err(text),
        None => settle(&stage.live, before).and_then(|()| panics::check(panics)),
    };
    let (checks, churned) = (stage.checks.load(SeqCst), stage.churned.load(SeqCst));
    let restarts = stage.live.server.app().counters.restarts.load(SeqCst);
    let note = format!(
        "{checks} checks of bystanders, {churned} of them opened and closed, accept loop replaced \
         {restarts} times, {} known panics of tiny_http's",
        panics::known()
    );
    verdict.map_err(|text| failed(cases, format!("{text}\n({note})")))?;
    Ok(Tally { cases, note })
}

/// Checks bystanders for ever, and now and then closes one and opens another: its number is then
/// free for a connection, or was one's a moment ago, which is where a race would hurt.
fn watch(stage: &Stage, mut rng: Rng) -> Result<(), String> {
    let new = |rng: &mut Rng| {
        Bystander::new(rng, &stage.listener).map_err(|error| format!("cannot be made: {error}"))
    };
    let mut all = (0..BYSTANDERS).map(|_| new(&mut rng)).collect::<Result<Vec<_>, _>>()?;
    while !stage.stop.load(SeqCst) {
        for one in &mut all {
            one.check()?;
            stage.checks.fetch_add(1, SeqCst);
        }
        for _ in 0..16 {
            let mut brief = new(&mut rng)?;
            brief.check()?;
            let place = rng.below(all.len());
            // The one that was there is checked a last time, and closed.
            std::mem::replace(&mut all[place], brief).check()?;
            stage.churned.fetch_add(1, SeqCst);
        }
        // The processors are for the clients.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// After all clients have gone the server must be what it was.
fn settle(live: &Live, (threads, descriptors): (u64, u64)) -> Result<(), String> {
    live.check_health()?;
    live.wait_threads(threads + 4)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = open_descriptors();
        // A few connections of the looking itself may still be closing.
        if now <= descriptors + 4 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{now} descriptors, {descriptors} before"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
