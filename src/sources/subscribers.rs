//! Who is subscribed to what, as events on a topic of their own: `{"server":…,"counts":{"chat":3}}`, with the counts
//! of this server's clients that have changed. Whoever subscribes to the topic gets all of them with the next
//! event.
//!
//! The thread waits in [`Hub::wait_counts`]: while nobody is subscribed to the topic, until somebody is; then, at
//! most once a second, until counts change. The hub's close wakes it, and ends it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::event::Draft;
use crate::hub::Hub;
use crate::hub::subscribers::COUNTS_TOPIC;

/// The least time between two events.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most counts in an event; the others come with the next ones.
const MAX_COUNTS: usize = 1_000;

/// Starts the thread. `server` is the address that tells this server from others.
///
/// # Errors
/// Where the thread cannot be started.
pub fn start(hub: &Arc<Hub>, server: SocketAddr) -> io::Result<JoinHandle<()>> {
    let hub = Arc::clone(hub);
    thread::Builder::new().name("subscribers".into()).spawn(move || run(&hub, server))
}

fn run(hub: &Hub, server: SocketAddr) {
    let mut next = Instant::now();
    while let Some(counts) = hub.wait_counts(next, MAX_COUNTS) {
        next = Instant::now() + INTERVAL;
        let counts: Map<String, Value> =
            counts.into_iter().map(|(name, count)| (name, count.into())).collect();
        let event = json!({"server": server.to_string(), "counts": counts});
        let draft = Draft::new(COUNTS_TOPIC, None, &event.to_string());
        let draft = draft.expect("the topic is a constant, and JSON is one line");
        // Where the store is away for a while: the counts of then are lost, those that follow are not.
        if let Err(error) = hub.publish(draft) {
            log::debug!("counts of subscribers are not published: {error}");
        }
    }
}
