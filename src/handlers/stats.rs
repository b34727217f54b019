//! What the server tells about itself: `/stats` as JSON for the page, `/metrics` for Prometheus.
//!
//! The connection's thread reads counters and sums, which belong to other threads, and waits for none of
//! these. The locks of the client list and of outboxes are held for single steps.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::app::App;
use crate::auth::access::sends_bearer;
use crate::http::Response;
use crate::listener::connection::Connection;
use crate::os::procfs::{ProcessInfo, open_descriptors};

/// The most clients that `/stats` describes one by one.
const MAX_LISTED: usize = 200;

/// How long fan-out takes, over all broadcasters.
#[derive(Debug, Default)]
struct FanOut {
    events: u64,
    /// Over all events.
    total_us: u64,
    /// For the latest event.
    last_us: u64,
    /// For the slowest event.
    longest_us: u64,
}

fn fan_out(app: &App) -> FanOut {
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
    (app.is_loopback && app.origins.permit(connection))
        || app.config.subscribe_token.is_some()
        || app.config.token.as_deref().is_some_and(|token| sends_bearer(connection, token))
}

/// The response to `GET /stats`; with `lists_clients` it describes clients one by one.
pub fn stats(app: &App, lists_clients: bool) -> Response {
    let process = ProcessInfo::read();
    let (fan_out, counters) = (fan_out(app), &app.counters);
    let (sse, websocket) = app.clients.counts();
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
    let body = json!({
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
    Response::json(200, &body)
}

/// The response to `GET /metrics`, in the OpenMetrics text format.
pub fn metrics(app: &App) -> Response {
    let process = ProcessInfo::read();
    let (fan_out, counters) = (fan_out(app), &app.counters);
    let (sse, websocket) = app.clients.counts();
    let mut registry = Registry::with_prefix("threadcast");
    let gauges = [
        ("clients_sse", "Connected SSE clients", sse as u64),
        ("clients_websocket", "Connected WebSocket clients", websocket as u64),
        ("clients_limit", "Most clients there may be", app.clients.limit() as u64),
        ("threads", "Threads of the server", process.threads),
        ("descriptors", "Open descriptors of the server", open_descriptors()),
        ("memory_bytes", "Resident memory of the server", process.resident_bytes),
        ("backlog_bytes", "Bytes that wait for all clients", app.backlog.bytes() as u64),
        ("draining", "1 while the server shuts down", u64::from(app.is_draining())),
        ("fan_out_last_microseconds", "Time to hand out the latest event", fan_out.last_us),
    ];
    // Values of this moment, which live in other places: a registry for each request keeps none twice.
    for (name, help, value) in gauges {
        registry.register(name, help, ConstGauge::new(value as i64));
    }
    let counters = [
        ("requests", "HTTP requests, upgrades included", counters.requests.load(Relaxed)),
        ("events", "Events published and handed out", fan_out.events),
        ("fan_out_microseconds", "Time spent in handing out events", fan_out.total_us),
        ("clients_shed", "Clients disconnected for a full backlog", app.backlog.disconnected()),
        (
            "pipe_restarts",
            "Pipes to tiny_http that broke and were replaced",
            counters.restarts.load(Relaxed),
        ),
        ("reaped", "Connections closed without a request", counters.reaped.load(Relaxed)),
    ];
    // The format adds `_total` to the names of counters.
    for (name, help, value) in counters {
        registry.register(name, help, ConstCounter::new(value));
    }
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => Response::new(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text.into_bytes(),
        ),
        Err(_) => Response::error(500, "internal", "the metrics could not be written"),
    }
}
