//! How long a target runs, with what random numbers, and how a failure is reported.

use std::fmt::Debug;
use std::time::Instant;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::panics;
use crate::rng::Rng;

/// From which seed, until when.
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// When to stop.
    pub until: Instant,
}

/// A target that found nothing.
pub struct Tally {
    /// Cases run.
    pub cases: u64,
    /// What else is worth a line.
    pub note: String,
}

/// A target that found something.
pub struct Failure {
    /// The seed that repeats it as the first thing.
    pub seed: u64,
    /// Cases run before.
    pub cases: u64,
    /// The input, and what was wrong.
    pub text: String,
}

/// How a target ends.
pub type Outcome = Result<Tally, Failure>;

/// The longest that a failing input is made smaller, in milliseconds.
const SHRINK_TIME: u32 = 180_000;

/// Runs batches of `batch` cases of `strategy` until the time is over. Batch n has the seed of the
/// plan plus n, so that a late failure can be repeated at once. After every batch `between` looks
/// at the whole. `note` makes the last line.
pub fn campaign<S: Strategy>(
    plan: &Plan,
    batch: u32,
    strategy: S,
    test: impl Fn(&S::Value) -> Result<(), String>,
    mut between: impl FnMut() -> Result<(), String>,
    note: impl FnOnce() -> String,
) -> Outcome
where
    S::Value: Debug,
{
    let mut cases = 0;
    let mut seed = plan.seed;
    while Instant::now() < plan.until {
        let config = Config {
            cases: batch,
            failure_persistence: None,
            max_shrink_time: SHRINK_TIME,
            max_shrink_iters: u32::MAX,
            ..Config::default()
        };
        let mut rng = Rng::new(seed);
        let words: Vec<u8> = (0..4).flat_map(|_| rng.next().to_le_bytes()).collect();
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &words);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = runner.run(&strategy, |value| {
            // A batch of slow cases must not outlast the plan by much.
            if Instant::now() > plan.until + std::time::Duration::from_secs(240) {
                return Ok(());
            }
            let before = panics::seen();
            let result = test(&value).and_then(|()| panics::check(before));
            result.map_err(TestCaseError::fail)
        });
        let failed = |text| Failure { seed, cases, text };
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, value)) => {
                return Err(failed(format!("input: {value:#?}\nwhy: {why}")));
            }
            Err(TestError::Abort(why)) => return Err(failed(format!("aborted: {why}"))),
        }
        cases += u64::from(batch);
        between().map_err(|text| Failure {
            seed,
            cases,
            text: format!("after a batch: {text}"),
        })?;
        seed = seed.wrapping_add(1);
    }
    Ok(Tally { cases, note: note() })
}
