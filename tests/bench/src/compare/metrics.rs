//! Which figures of a run are told, and how.

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds, as a duration that is easy to read.
    Duration,
    /// Microseconds of CPU time.
    Micros,
    /// Milliseconds.
    Millis,
    /// KiB.
    Kib,
    /// Anything counted.
    Plain,
}

/// A figure: its key in the JSON of a run, and its name in tables.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The key.
    pub key: &'static str,
    /// The name.
    pub label: &'static str,
    /// How it is written.
    pub unit: Unit,
    /// Whether it gets a chart.
    pub chart: bool,
}

const fn metric(key: &'static str, label: &'static str, unit: Unit) -> Metric {
    Metric { key, label, unit, chart: false }
}

impl Metric {
    const fn chart(self) -> Self {
        Self { chart: true, ..self }
    }
}

const P50: Metric = metric("latency_us_p50", "p50", Unit::Duration);
const P90: Metric = metric("latency_us_p90", "p90", Unit::Duration);
const P99: Metric = metric("latency_us_p99", "p99", Unit::Duration);
const P999: Metric = metric("latency_us_p999", "p99.9", Unit::Duration);
const MAX: Metric = metric("latency_us_max", "max", Unit::Duration);
const LOST: Metric = metric("lost", "lost", Unit::Plain);
const THREADS: Metric = metric("server_threads", "threads", Unit::Plain);

/// Of a fan-out.
pub const FANOUT: &[Metric] = &[
    metric("server_cpu_us_per_delivery", "CPU/delivery", Unit::Micros).chart(),
    P50,
    P90,
    P99.chart(),
    P999,
    MAX,
    LOST,
    THREADS,
    metric("switches_voluntary_per_delivery", "switches/delivery", Unit::Plain),
    metric("switches_involuntary_per_delivery", "forced", Unit::Plain),
];
/// Of an echo in a closed loop.
pub const ECHO: &[Metric] = &[
    metric("messages_per_second", "messages/s", Unit::Plain).chart(),
    metric("server_cpu_us_per_message", "CPU/message", Unit::Micros).chart(),
    P50,
    P90,
    P99,
    P999,
    MAX,
    LOST,
    THREADS,
    metric("switches_voluntary_per_message", "switches/message", Unit::Plain),
];
/// Of an echo on one connection.
pub const ECHO_ONE: &[Metric] = &[
    P50.chart(),
    P99,
    metric("messages_per_second", "messages/s", Unit::Plain),
    metric("server_cpu_us_per_message", "CPU/message", Unit::Micros),
    LOST,
];
/// Of an echo at a rate.
pub const ECHO_RATE: &[Metric] = &[
    metric("server_cpu_us_per_message", "CPU/message", Unit::Micros).chart(),
    P50,
    P90,
    P99.chart(),
    P999,
    MAX,
    LOST,
];
/// Of idle clients.
pub const IDLE: &[Metric] = &[
    metric("memory_kib_per_client", "RSS + kernel", Unit::Kib).chart(),
    metric("rss_kib_per_client", "RSS", Unit::Kib),
    metric("kernel_stack_kib_per_client", "stacks", Unit::Kib),
    metric("page_tables_kib_per_client", "page tables", Unit::Kib),
    metric("slab_own_kib_per_client", "slab", Unit::Kib),
    metric("threads_per_client", "threads", Unit::Plain),
    metric("descriptors_per_client", "descriptors", Unit::Plain),
    metric("idle_cpu_percent", "idle CPU %", Unit::Plain),
];
/// Of many connecting.
pub const RAMP: &[Metric] = &[
    metric("total_ms", "all greeted after", Unit::Millis).chart(),
    metric("server_cpu_us_per_client", "CPU/client", Unit::Micros),
    metric("greeting_us_p50", "greeting p50", Unit::Duration),
    metric("greeting_us_p99", "p99", Unit::Duration),
    metric("greeting_us_max", "max", Unit::Duration),
];
/// Of coming and going.
pub const CHURN: &[Metric] = &[
    metric("cycles_per_second", "visits/s", Unit::Plain).chart(),
    metric("server_cpu_us_per_cycle", "CPU/visit", Unit::Micros),
    metric("greeting_us_p50", "greeting p50", Unit::Duration),
    metric("greeting_us_p99", "p99", Unit::Duration),
    metric("latency_us_p99", "the others' p99", Unit::Duration).chart(),
    metric("failed", "failed", Unit::Plain),
    LOST,
];
/// Of the search for the highest rate.
pub const SATURATE: &[Metric] = &[
    metric("deliveries_per_second", "deliveries/s", Unit::Plain).chart(),
    metric("events_per_second", "events/s", Unit::Plain),
    metric("latency_us_p99", "p99 there", Unit::Duration),
    metric("server_cpu_us_per_delivery", "CPU/delivery", Unit::Micros),
    metric("steps", "steps", Unit::Plain),
];
/// Of coming back.
pub const REPLAY: &[Metric] = &[
    metric("total_ms", "all had all after", Unit::Millis).chart(),
    metric("server_cpu_us_per_delivery", "CPU/delivery", Unit::Micros),
    metric("caught_up_us_p50", "a client p50", Unit::Duration),
    metric("caught_up_us_p99", "p99", Unit::Duration),
    LOST,
    metric("duplicates", "twice", Unit::Plain),
];
