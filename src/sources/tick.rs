//! System metrics, published on topic `metrics` at a fixed interval. Their thread is parked in between;
//! [`Tick::stop`] wakes it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use sysinfo::System;

use crate::app::App;
use crate::event::Draft;
use crate::os::clock::timestamp;
use crate::os::procfs::ProcessInfo;
use crate::store::error::PublishError;

/// The topic of the metrics.
pub const TOPIC: &str = "metrics";

/// The thread that publishes them.
pub struct Tick {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Tick {
    /// Starts to publish every `interval`.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn start(app: &Arc<App>, interval: Duration) -> io::Result<Tick> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut system = System::new().map_err(io::Error::other)?;
        // Usage is measured between two readings: the first one only starts the clock.
        system.refresh_cpu_usage();
        let (app, stopped) = (Arc::downgrade(app), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("tick".into())
            .spawn(move || run(&app, system, interval, &stopped))?;
        Ok(Tick { stop, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

fn run(app: &Weak<App>, mut system: System, interval: Duration, stop: &AtomicBool) {
    let mut next = Instant::now() + interval;
    loop {
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            thread::park_timeout(left);
        }
        let Some(app) = app.upgrade() else { return };
        system.refresh_cpu_usage();
        let process = ProcessInfo::read();
        let (sse, websocket) = app.clients.counts();
        let metric = json!({
            "type": "system_metric",
            "timestamp": timestamp(),
            "cpuUsage": cpu_usage(&system),
            "memoryBytes": process.resident_bytes,
            "threads": process.threads,
            "clients": {"sse": sse, "websocket": websocket},
        });
        let draft = Draft::new(TOPIC, None, &metric.to_string());
        let draft = draft.expect("the topic is a constant, and JSON is one line");
        // A store that is away comes back.
        if app.hub.publish(draft) == Err(PublishError::Stopped) {
            return;
        }
        // From the planned time, so that ticks do not drift; but never a burst after a pause.
        next = (next + interval).max(Instant::now());
    }
}

/// All cores' use in percent, with two decimals.
fn cpu_usage(system: &System) -> f64 {
    (f64::from(system.global_cpu_usage()).clamp(0.0, 100.0) * 100.0).round() / 100.0
}
