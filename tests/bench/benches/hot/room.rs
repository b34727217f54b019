//! How many descriptors this process may have, and so how large a crowd can be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the server keeps to itself when it works out how many clients there is room for.
const RESERVE: usize = 256;

/// How large the crowd is to be.
const SUBSCRIBERS: usize = 1_000;

/// Raises the limit as far as it may be.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // macOS refuses to go beyond a number of its own: then what there is must do.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Says so where the limit is too low for the full sizes. The figures' own labels tell what it is
/// then.
pub fn tell_shortage() {
    let most = subscribers()[1];
    if most < SUBSCRIBERS {
        eprintln!("RLIMIT_NOFILE is {}: {most} subscribers instead of {SUBSCRIBERS}", limit_now());
    }
}

/// How many clients there are when an event is published: one, and many. Each takes three
/// descriptors, its own end included, and the server lets in half as many as it might have.
pub fn subscribers() -> [usize; 2] {
    let limit = limit_now();
    let most = (limit.saturating_sub(RESERVE) / 3).min((limit / 2).saturating_sub(RESERVE));
    [1, SUBSCRIBERS.min(most).max(1)]
}

fn limit_now() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}
