//! The door and the pipe. Three parts share the time:
//!
//! 1. Heads ([`crate::door_heads`]): the reader of heads against the reference, and every head that
//!    is accepted through a real tiny_http.
//! 2. Chunked bodies ([`crate::door_chunks`]), through `POST /publish`.
//! 3. Noise ([`crate::door_noise`]): arbitrary bytes from many connections at once, while bystanders
//!    get every event. It is last because it waits until all that it has begun is over.

use std::time::Instant;

use crate::campaign::{Outcome, Plan, Tally};
use crate::{door_chunks, door_heads, door_noise};

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    let parts = [door_heads::run, door_chunks::run, door_noise::run];
    let (mut cases, mut notes) = (0, Vec::new());
    for (number, part) in parts.iter().enumerate() {
        let now = Instant::now();
        let left = plan.until.saturating_duration_since(now) / (parts.len() - number) as u32;
        let tally = part(&Plan { seed: plan.seed, until: now + left })?;
        cases += tally.cases;
        notes.push(tally.note);
    }
    Ok(Tally { cases, note: notes.join("; ") })
}
