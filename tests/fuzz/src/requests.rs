//! Requests, right, wrong and mutated, against a live server, and its reader of heads called
//! directly.
//!
//! Whatever is sent, what comes back are well-formed responses, each to the request whose turn it
//! is, or the end of the connection; never one that serves what must be refused, or refuses what
//! must be served. Afterwards the server is as well as before.

use std::cell::Cell;
use std::time::Duration;

use threadcast::os::procfs::ProcessInfo;

use crate::campaign::{Failure, Outcome, Plan, campaign};
use crate::exchange::{self, Ending, Sending};
use crate::heads;
use crate::live::{self, Live};
use crate::requests_cases::{Case, case};

/// How long a request may take to arrive. Short, because some are never complete.
const HEADER_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest body that is published.
const MAX_MESSAGE: usize = 4096;

/// How much memory the process may take more than after the first batch.
const MORE_MEMORY: u64 = 64 << 20;

/// What came back, for the last line.
#[derive(Default, Clone, Copy)]
struct Counts {
    closed: u64,
    statuses: [u64; 6],
    kept: u64,
}

/// Runs the target.
pub fn run(plan: &Plan) -> Outcome {
    let failed = |text| Failure { seed: plan.seed, cases: 0, text };
    let live = Live::start(|config| {
        config.set_max_message(MAX_MESSAGE)?;
        config.set_history(100)?;
        config.set_header_timeout(HEADER_TIMEOUT)
    });
    let live = live.map_err(failed)?;
    live.check_health().map_err(failed)?;
    let threads = ProcessInfo::read().threads;
    let seen = Cell::new(Counts::default());
    let test = |case: &Case| {
        let bytes = case.bytes();
        heads::check(&bytes, &[], live::MAX_HEAD)?;
        heads::check(&bytes, &case.cuts, live::MAX_HEAD)?;
        let ending = if case.waits { Ending::Wait } else { Ending::HalfClose };
        let sending = Sending { cuts: &case.cuts, pause: Duration::ZERO, ending };
        let came = exchange::run(&live, &bytes, &sending, MAX_MESSAGE)?;
        let mut counts = seen.get();
        counts.closed += u64::from(came.statuses.is_empty());
        counts.kept += came.kept;
        came.statuses.iter().for_each(|status| counts.statuses[usize::from(status / 100)] += 1);
        seen.set(counts);
        Ok(())
    };
    let mut at_first = None;
    let between = || {
        live.check_health()?;
        live.check_pipe()?;
        let (first, now) = (*at_first.get_or_insert_with(live::resident), live::resident());
        if now > first + MORE_MEMORY {
            return Err(format!("{now} bytes of memory, {first} after the first batch"));
        }
        // Waiting for idle threads to go takes seconds: only where there is something to wait for.
        if ProcessInfo::read().threads > threads + 8 {
            live.wait_threads(threads + 4)?;
        }
        Ok(())
    };
    let note = || {
        let Counts { closed, statuses: [_, one, two, three, four, five], kept } = seen.get();
        format!(
            "{closed} closed without a response; responses: {one} 101, {two} 2xx, {three} 304, \
             {four} 4xx, {five} 50x, of which {kept} kept the connection"
        )
    };
    let tally = campaign(plan, 200, case(), test, between, note)?;
    let leaked = |text| Failure { seed: plan.seed, cases: tally.cases, text };
    live.wait_threads(threads + 4).map_err(leaked)?;
    Ok(tally)
}
