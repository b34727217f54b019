//! Counts panics, of whatever thread: there must not be any.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);
static LAST: Mutex<String> = Mutex::new(String::new());

/// Counts from now on, and prints nothing: a shrinking test would repeat the same message.
pub fn count() {
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        if let Ok(mut last) = LAST.lock() {
            let thread = std::thread::current();
            *last = format!("thread '{}': {info}", thread.name().unwrap_or("?"));
        }
    }));
}

/// How many there were.
pub fn seen() -> u64 {
    PANICS.load(Ordering::SeqCst)
}

/// Fails if there were more than `before`.
///
/// # Errors
/// The message of the last panic.
pub fn check(before: u64) -> Result<(), String> {
    match seen() {
        now if now == before => Ok(()),
        now => {
            let last = LAST.lock().map(|last| last.clone()).unwrap_or_default();
            Err(format!("{} panics, the last: {last}", now - before))
        }
    }
}
