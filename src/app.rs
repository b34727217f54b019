//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::assets::Assets;
use crate::auth::access::Access;
use crate::auth::origin::Origins;
use crate::auth::refusals::Refusals;
use crate::client::backlog::Backlog;
use crate::client::hangup::Watcher;
use crate::client::outbox::Limits;
use crate::client::registry::Clients;
use crate::config::Config;
use crate::door::counters::Counters;
use crate::hub::Hub;

/// The bytes that may wait for one client, unless messages may be longer.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// What all handlers share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// Where events go.
    pub hub: Arc<Hub>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// What waits for all of them together.
    pub backlog: Arc<Backlog>,
    /// The page.
    pub assets: Assets,
    /// Which pages may connect.
    pub origins: Origins,
    /// Those that may not, in the log.
    pub refusals: Refusals,
    /// Who may read.
    pub access: Access,
    /// Who notices event streams' clients that hang up.
    pub hangups: Watcher,
    /// Whether only this machine can reach the server.
    pub is_loopback: bool,
    /// When the server started.
    pub started: Instant,
    /// What the door and the listener count.
    pub counters: Arc<Counters>,
    pub(crate) draining: AtomicBool,
}

impl App {
    /// Whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// How much may wait for one client.
    pub fn limits(&self) -> Limits {
        let bytes = MAX_WAITING_BYTES.max(2 * self.config.max_message);
        Limits { events: self.config.queue, bytes }
    }
}
