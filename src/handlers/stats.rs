//! What the server tells about itself, as JSON for the page: `/stats`.
//!
//! The connection's thread reads counters and sums, which belong to other threads, and waits for none of
//! these. The locks of the client list and of outboxes are held for single steps.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Map, Value, json};

use crate::app::App;
use crate::auth::access::sends_bearer;
use crate::http::Response;
use crate::listener::connection::Connection;
use crate::os::procfs::{ProcessInfo, open_descriptors};

/// The most clients that `/stats` describes one by one.
const MAX_LISTED: usize = 200;

/// The most topics that `/stats` names.
const MAX_TOPICS: usize = 100;

/// How long fan-out takes, over all broadcasters.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    pub(super) events: u64,
    /// Over all events.
    pub(super) total_us: u64,
    /// For the latest event.
    pub(super) last_us: u64,
    /// For the slowest event.
    longest_us: u64,
}

pub(super) fn fan_out(app: &App) -> FanOut {
    app.hub.timings().fold(FanOut::default(), |sum, timing| FanOut {
        // Every broadcaster handles every event, so a sum would count each several times.
        events: sum.events.max(timing.events.load(Relaxed)),
        total_us: sum.total_us + timing.nanos.load(Relaxed) / 1_000,
        last_us: sum.last_us.max(timing.last.load(Relaxed) / 1_000),
        longest_us: sum.longest_us.max(timing.longest.load(Relaxed) / 1_000),
    })
}

/// Whether a client may see the other clients' addresses. It may where only this machine reaches the
/// server, where reading takes the subscribe token, or with the server's token. On this machine a
/// browser can also bring requests of foreign pages; these are told apart by their origin.
pub fn may_list_clients(app: &App, connection: &Connection) -> bool {
    (app.is_loopback() && app.origins.permit(connection))
        || app.config.subscribe_token.is_some()
        || app.config.token.as_deref().is_some_and(|token| sends_bearer(connection, token))
}

/// How many clients are subscribed to each name: the names that most are subscribed to, and how many are left
/// out.
fn topics(app: &App) -> (Map<String, Value>, usize) {
    let mut counts = app.hub.counts();
    counts.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let omitted = counts.len().saturating_sub(MAX_TOPICS);
    counts.truncate(MAX_TOPICS);
    (counts.into_iter().map(|(name, count)| (name, count.into())).collect(), omitted)
}

/// The response to `GET /stats`; with `lists_clients` it describes clients one by one, and names topics.
pub fn stats(app: &App, lists_clients: bool) -> Response {
    let process = ProcessInfo::read();
    let (fan_out, counters) = (fan_out(app), &app.counters);
    let (sse, websocket) = app.clients.counts();
    let store = app.hub.store_status();
    let mut clients = app.clients.list();
    // The oldest first: what is listed must not change with every request.
    clients.sort_by_key(|client| client.number);
    let listed: Vec<_> = clients
        .iter()
        .take(if lists_clients { MAX_LISTED } else { 0 })
        .map(|client| {
            let outbox = client.outbox();
            let (queue, queue_bytes) = outbox.map_or((0, 0), |outbox| outbox.queued());
            let state = match outbox.map(|outbox| outbox.close_reason()) {
                None => "connecting",
                Some(Some(_)) => "closing",
                Some(None) if queue > 0 => "behind",
                Some(None) => "live",
            };
            json!({
                "transport": client.transport.to_string(),
                "address": client.peer.to_string(),
                "seconds": client.since.elapsed().as_secs(),
                "state": state,
                "queue": queue,
                "queueBytes": queue_bytes,
                "sent": outbox.map_or(0, |outbox| outbox.sent()),
            })
        })
        .collect();
    let mut body = json!({
        "uptimeSeconds": app.started.elapsed().as_secs(),
        "draining": app.is_draining(),
        "threads": process.threads,
        "descriptors": open_descriptors(),
        "memoryBytes": process.resident_bytes,
        "clients": {
            "sse": sse,
            "websocket": websocket,
            "limit": app.clients.limit(),
            "listed": listed,
        },
        "store": {
            "name": store.name,
            "problem": store.problem,
            "counters": store.counters.into_iter().collect::<BTreeMap<_, _>>(),
        },
        "backlogBytes": app.backlog.bytes(),
        "fanOut": {
            "events": fan_out.events,
            "lastMicros": fan_out.last_us,
            "longestMicros": fan_out.longest_us,
            "totalMicros": fan_out.total_us,
        },
        "listener": {
            "restarts": counters.restarts.load(Relaxed),
            "reaped": counters.reaped.load(Relaxed),
            "requests": counters.requests.load(Relaxed),
        },
    });
    // A topic's name may be as private as a client's address.
    if lists_clients {
        let (topics, omitted) = topics(app);
        body["topics"] = topics.into();
        body["topicsOmitted"] = omitted.into();
    }
    Response::json(200, &body)
}
