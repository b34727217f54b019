//! What the server tells about itself to Prometheus: `/metrics`.
//!
//! The connection's thread reads counters, as for [`super::stats`], and waits for nothing.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::stats::fan_out;
use crate::app::App;
use crate::http::Response;
use crate::os::procfs::{ProcessInfo, open_descriptors};

/// The response to `GET /metrics`, in the OpenMetrics text format.
pub fn metrics(app: &App) -> Response {
    let process = ProcessInfo::read();
    let (fan_out, counters) = (fan_out(app), &app.counters);
    let (sse, websocket) = app.clients.counts();
    let store = app.hub.store_status();
    let mut registry = Registry::with_prefix("threadcast");
    let gauges = [
        ("clients_sse", "Connected SSE clients", sse as u64),
        ("clients_websocket", "Connected WebSocket clients", websocket as u64),
        ("clients_limit", "Most clients there may be", app.clients.limit() as u64),
        ("threads", "Threads of the server", process.threads),
        ("descriptors", "Open descriptors of the server", open_descriptors()),
        ("memory_bytes", "Resident memory of the server", process.resident_bytes),
        ("backlog_bytes", "Bytes that wait for all clients", app.backlog.bytes() as u64),
        ("store_away", "1 while nothing can be published", u64::from(store.problem.is_some())),
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
    for (name, value) in store.counters {
        let (name, help) = (format!("store_{name}"), "See the book on several servers");
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
