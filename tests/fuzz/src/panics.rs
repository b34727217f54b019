//! Counts panics, of whatever thread: the server must not have any.
//!
//! One kind cannot be helped: tiny_http's workers panic on a connection that was reset before they
//! looked at it. The server knows (see `threadcast::listener::log_known_panics`) and mends what
//! comes of it; here these are counted apart, and what comes of them is tested.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);
static KNOWN: AtomicU64 = AtomicU64::new(0);
static LAST: Mutex<String> = Mutex::new(String::new());

/// Counts from now on, and prints nothing: a shrinking test would repeat the same message.
pub fn count() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let inside = info.location().is_some_and(|place| place.file().contains("/tiny_http-"));
        // tiny_http's threads have no name, the server's all do.
        if inside && thread.name().is_none() {
            KNOWN.fetch_add(1, Ordering::SeqCst);
            return;
        }
        PANICS.fetch_add(1, Ordering::SeqCst);
        if let Ok(mut last) = LAST.lock() {
            *last = format!("thread '{}': {info}", thread.name().unwrap_or("?"));
        }
    }));
}

/// How many panics of tiny_http's workers there were.
pub fn known() -> u64 {
    KNOWN.load(Ordering::SeqCst)
}

/// How many other panics there were.
pub fn seen() -> u64 {
    PANICS.load(Ordering::SeqCst)
}

/// Fails if there were more panics than `before`.
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
