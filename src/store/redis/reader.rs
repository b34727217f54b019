//! The thread that reads the stream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, ErrorKind, RedisResult};

use super::connect::{Address, describe};
use super::entry::{Chain, id_before};
use super::pool::Pool;
use super::stream::Stream;
use crate::event::EventId;
use crate::os::clock::timestamp;
use crate::store::delivery::{Deliver, Delivery};
use crate::store::window::Window;

/// How long the reader waits for an entry. Nothing else wakes it: so long a shutdown may take.
pub const BLOCK: Duration = Duration::from_secs(1);

/// How long is waited before connecting again: twice as long each time.
const MIN_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);

/// What publishers and the reader share.
pub struct Shared {
    /// Where Redis is.
    pub address: Address,
    /// The stream there.
    pub stream: Stream,
    /// The publishers' connections.
    pub pool: Pool,
    /// What is counted.
    pub counters: Counters,
    state: Mutex<State>,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The newest id that was read or published here.
    seen: EventId,
    /// Why the reader is not connected.
    problem: Option<String>,
}

/// What is counted since the start.
#[derive(Default)]
pub struct Counters {
    /// How often the reader has connected again.
    pub reconnects: Counter,
    /// How often events were lost.
    pub gaps: Counter,
    /// How often publishing has failed.
    pub publishes_failed: Counter,
    /// Events that were read.
    pub events_read: Counter,
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Nothing has been seen yet.
    pub fn new(address: Address, stream: Stream) -> Shared {
        Shared {
            address,
            stream,
            pool: Pool::default(),
            counters: Counters::default(),
            state: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest id that was read or published here.
    pub fn seen(&self) -> EventId {
        self.state().seen
    }

    /// This id was read or published.
    pub fn saw(&self, id: EventId) {
        let mut state = self.state();
        state.seen = state.seen.max(id);
    }

    /// Why the reader is not connected.
    pub fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// Whether it is closed.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Nothing is published any more, and the reader ends.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }
}

/// See the module's documentation.
pub struct Reader {
    shared: Arc<Shared>,
    chain: Chain,
    deliver: Deliver,
}

impl Reader {
    /// A reader that has read nothing.
    pub fn new(shared: Arc<Shared>, deliver: Deliver) -> Reader {
        Reader { shared, chain: Chain::after(EventId::default()), deliver }
    }

    /// Puts the newest `count` entries into the window, and delivers none of them.
    pub fn load(
        &mut self,
        connection: &mut Connection,
        count: usize,
        window: &Window,
    ) -> RedisResult<()> {
        // Before the entries: what is above this id and not among them came later.
        let last = self.shared.stream.last_id(connection)?;
        let mut newest_first = self.shared.stream.newest(connection, count)?;
        // Every event behind this id is loaded.
        let floor = match newest_first.last() {
            None => last,
            Some((id, content)) => match id_before(content).filter(|before| before < id) {
                Some(before) => before,
                // Nobody knows what was before it: it serves as the beginning.
                None => newest_first.pop().map(|(id, _)| id).unwrap_or_default(),
            },
        };
        self.chain = Chain::after(floor);
        window.gap(floor);
        for entry in newest_first.into_iter().rev() {
            for delivery in self.chain.next(entry).ok_or_else(not_rising)? {
                match delivery {
                    Delivery::Event(event) => window.push(event),
                    Delivery::Gap(id) => window.gap(id),
                }
            }
        }
        // The newest entries have been deleted.
        if last > self.chain.last() {
            self.chain = Chain::after(last);
            window.gap(last);
        }
        self.shared.saw(self.chain.last());
        Ok(())
    }

    /// Reads until the store is closed. Connects again whenever anything goes wrong.
    pub fn run(&mut self, mut connection: Connection) {
        loop {
            let Err(why) = self.follow(&mut connection) else { return };
            match self.reconnect(why) {
                Some(new) => connection = new,
                None => return,
            }
        }
    }

    /// Delivers what comes. Returns when the store is closed and everything before that is delivered.
    fn follow(&mut self, connection: &mut Connection) -> Result<(), String> {
        loop {
            let is_last = self.shared.is_stopped();
            let block = (!is_last).then_some(BLOCK);
            match self.read(connection, block).map_err(|error| describe(&error))? {
                0 if is_last => return Ok(()),
                0 if !self.is_kept(connection).map_err(|error| describe(&error))? => {
                    return Err("the end of the stream is lost".into());
                }
                _ => {}
            }
        }
    }

    /// Reads the next entries and delivers them. Returns how many there were.
    fn read(&mut self, connection: &mut Connection, block: Option<Duration>) -> RedisResult<usize> {
        let counters = &self.shared.counters;
        let entries = self.shared.stream.read_after(connection, self.chain.last(), block)?;
        let count = entries.len();
        for entry in entries {
            for delivery in self.chain.next(entry).ok_or_else(not_rising)? {
                match &delivery {
                    Delivery::Event(_) => counters.events_read.add(1),
                    Delivery::Gap(id) => {
                        log::warn!("events before {id} are lost: Redis does not have them");
                        counters.gaps.add(1);
                    }
                }
                (self.deliver)(delivery);
            }
            self.shared.saw(self.chain.last());
        }
        Ok(count)
    }

    /// Whether the stream still reaches up to what was seen here.
    fn is_kept(&mut self, connection: &mut Connection) -> RedisResult<bool> {
        // In this order: what is published in between is above both.
        let seen = self.shared.seen();
        let newest = self.shared.stream.last_id(connection)?;
        // It may have been trimmed: then the next entry tells whether one was skipped.
        if let Some(content) = self.shared.stream.entry(connection, self.chain.last())? {
            self.chain.compare(&content);
        }
        Ok(newest >= seen)
    }

    /// Connects again, and delivers what came meanwhile. `None`: the store is closed.
    fn reconnect(&mut self, mut why: String) -> Option<Connection> {
        let (since, start) = (timestamp(), Instant::now());
        let address = self.shared.address.name.clone();
        let mut wait = MIN_WAIT;
        log::warn!("Redis at {address} is away: {why}; until it is back nothing can be published");
        loop {
            self.shared.state().problem = Some(format!("Redis is away since {since}: {why}"));
            thread::park_timeout(wait);
            if self.shared.is_stopped() {
                return None;
            }
            match self.try_connect() {
                Ok((connection, count)) => {
                    let away = start.elapsed().as_secs_f64();
                    log::info!(
                        "Redis at {address} is back after {away:.1} s; {count} entries came meanwhile"
                    );
                    self.shared.counters.reconnects.add(1);
                    return Some(connection);
                }
                Err(error) => why = describe(&error),
            }
            wait = MAX_WAIT.min(2 * wait);
        }
    }

    fn try_connect(&mut self) -> RedisResult<(Connection, usize)> {
        let mut connection = self.shared.address.connect(BLOCK)?;
        if !self.is_kept(&mut connection)? {
            // Without drafts the script writes only the marker, and ids rise again.
            self.shared.stream.run_script(&mut connection, self.shared.seen(), &[])?;
        }
        let mut count = 0;
        loop {
            match self.read(&mut connection, None)? {
                0 => break,
                read => count += read,
            }
        }
        // From here on publishers may go on. Their old connections may lead elsewhere.
        self.shared.pool.clear();
        self.shared.state().problem = None;
        Ok((connection, count))
    }
}

fn not_rising() -> redis::RedisError {
    (ErrorKind::UnexpectedReturnType, "Redis sent entries that do not rise").into()
}
