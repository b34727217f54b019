//! How a store is doing, for `/healthz`, `/stats` and `/metrics`.

/// How a store is doing.
#[derive(Debug)]
pub struct Status {
    /// Which store it is.
    pub name: &'static str,
    /// What is wrong with it; then nothing can be published.
    pub problem: Option<String>,
    /// What it counts, by name.
    pub counters: Vec<(&'static str, u64)>,
}
