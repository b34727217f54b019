//! The connections for publishing: a few, which publishers take in turn.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Connection, RedisError, RedisResult, cmd};

use super::connect::{Address, TIMEOUT, describe};

/// The most connections. Redis runs one command at a time: more would only wait there instead of here.
const MAX_CONNECTIONS: usize = 8;

/// A connection that was idle for so long is tried before it is used: servers and proxies close such ones,
/// and of a command that was sent on one nobody knows whether it was run.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
    /// Signalled when a connection comes back, or is closed.
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<(Connection, Instant)>,
    /// How many connections there are, in use or idle.
    open: usize,
    /// How often [`Pool::clear`] was called.
    generation: u64,
}

/// Why a command has no result.
pub enum PoolError {
    /// It was not sent; the text says why.
    NotSent(String),
    /// It was refused, or its answer got lost.
    Failed(RedisError),
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command on a connection to `address`. Waits up to [`TIMEOUT`] for a free one, and as long again
    /// for each step of connecting, sending and receiving.
    pub fn run<T>(
        &self,
        address: &Address,
        send: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, PoolError> {
        let (idle, generation) = self.take()?;
        let idle = idle.and_then(|(mut connection, since)| {
            let is_fresh = since.elapsed() < MAX_IDLE || cmd("PING").exec(&mut connection).is_ok();
            is_fresh.then_some(connection)
        });
        let mut connection = match idle.map_or_else(|| address.connect(Duration::ZERO), Ok) {
            Ok(connection) => connection,
            Err(error) => {
                self.give_back(None, generation);
                return Err(PoolError::NotSent(describe(&error)));
            }
        };
        let result = send(&mut connection);
        // After a lost answer the next one would be taken for it. Where Redis refuses, a new connection may lead to
        // another server: the master, where this is a replica.
        self.give_back(result.is_ok().then_some(connection), generation);
        result.map_err(PoolError::Failed)
    }

    /// Takes the connection that was used last, or the right to open one.
    fn take(&self) -> Result<(Option<(Connection, Instant)>, u64), PoolError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.state();
        while state.idle.is_empty() && state.open == MAX_CONNECTIONS {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let problem = format!("all {MAX_CONNECTIONS} connections to it wait for answers");
                return Err(PoolError::NotSent(problem));
            }
            let waited = self.returned.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let idle = state.idle.pop();
        if idle.is_none() {
            state.open += 1;
        }
        Ok((idle, state.generation))
    }

    fn give_back(&self, connection: Option<Connection>, generation: u64) {
        let mut state = self.state();
        match connection.filter(|_| generation == state.generation) {
            Some(connection) => state.idle.push((connection, Instant::now())),
            None => state.open -= 1,
        }
        drop(state);
        self.returned.notify_one();
    }

    /// Closes the idle connections, and those in use when they come back: they may lead to a server that the
    /// address does not lead to any more.
    pub fn clear(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.open -= state.idle.len();
        state.idle.clear();
        drop(state);
        self.returned.notify_all();
    }
}
