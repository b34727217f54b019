//! The thread that reads the stream.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, ErrorKind, RedisResult};

use super::connect::describe;
use super::entry::{Chain, id_before};
use super::shared::Shared;
use super::stream::MAX_ENTRIES;
use crate::event::EventId;
use crate::os::clock::timestamp;
use crate::store::delivery::{Deliver, Delivery};
use crate::store::window::Window;

/// How long the reader waits for an entry. Nothing else wakes it: so long a shutdown may take.
pub const BLOCK: Duration = Duration::from_secs(1);

/// How long is waited before connecting again: twice as long each time.
const MIN_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);

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
            for delivery in self.chain.next(entry, None).ok_or_else(not_rising)? {
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
        self.shared.was_read(self.chain.last());
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

    /// Delivers what comes. Returns when the store is closed and what was published here is delivered.
    fn follow(&mut self, connection: &mut Connection) -> Result<(), String> {
        loop {
            let is_stopped = self.shared.is_stopped();
            if is_stopped && self.chain.last() >= self.shared.seen() {
                return Ok(());
            }
            let block = (!is_stopped).then_some(BLOCK);
            match self.read(connection, block).map_err(|error| describe(&error))? {
                0 if is_stopped => return Ok(()),
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
            let lost = self.shared.was_read(entry.0);
            for delivery in self.chain.next(entry, lost).ok_or_else(not_rising)? {
                match &delivery {
                    Delivery::Event(_) => counters.events_read.add(1),
                    Delivery::Gap(id) => {
                        log::warn!("events before {id} are lost: Redis does not have them");
                        counters.gaps.add(1);
                    }
                }
                (self.deliver)(delivery);
            }
        }
        // Not before all is read: another server may have written one.
        if count < MAX_ENTRIES && self.chain.needs_marker() {
            self.shared.stream.mark(connection, self.shared.seen())?;
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
            self.shared.set_problem(Some(format!("Redis is away since {since}: {why}")));
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
            // Without drafts this writes only a marker, and only where nobody else has written one.
            self.shared.stream.publish(&mut connection, self.shared.seen(), &[])?;
        }
        let (mut count, mut read) = (0, MAX_ENTRIES);
        while read == MAX_ENTRIES {
            read = self.read(&mut connection, None)?;
            count += read;
        }
        // From here on publishers may go on. Their old connections may lead elsewhere.
        self.shared.pool.clear();
        self.shared.set_problem(None);
        Ok((connection, count))
    }
}

fn not_rising() -> redis::RedisError {
    (ErrorKind::UnexpectedReturnType, "Redis sent entries that do not rise").into()
}
