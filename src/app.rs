//! What all handlers share.
//!
//! [`App::start`] starts the threads of the hub (the broadcasters) and the one that notices clients that
//! hang up. After that every thread reads the [`App`]; the parts of it that change have locks of their
//! own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

#[cfg(feature = "page")]
use crate::assets::Assets;
use crate::auth::access::Access;
use crate::auth::origin::Origins;
use crate::auth::refusals::Refusals;
use crate::client::backlog::Backlog;
use crate::client::hangup::Watcher;
use crate::client::outbox::Limits;
use crate::client::reason::Reason;
use crate::client::registry::Clients;
use crate::config::{Config, Fanout};
use crate::door::Door;
use crate::door::counters::Counters;
use crate::http::forwarded::Proxies;
use crate::hub::Hub;
use crate::os::clock::wall_clock;
use crate::store::error::OpenError;

/// The most bytes in one client's queue, unless messages may be longer.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// What all handlers share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// Where events are published.
    pub hub: Arc<Hub>,
    /// Where the experiments of `/lab` publish, if there are any: with [`Fanout::Direct`], and with
    /// [`Fanout::Handoff`].
    pub lab_hubs: Option<[Arc<Hub>; 2]>,
    /// The clients that are connected.
    pub clients: Arc<Clients>,
    /// The bytes in all clients' queues together, and their limit.
    pub backlog: Arc<Backlog>,
    /// The files of the page.
    #[cfg(feature = "page")]
    pub assets: Assets,
    /// The web pages that may connect and publish.
    pub origins: Origins,
    /// The log of refused clients.
    pub refusals: Refusals,
    /// The check of those who read.
    pub access: Access,
    /// Notices when the client of an event stream hangs up.
    pub hangups: Watcher,
    /// The address that the server listens on.
    pub address: SocketAddr,
    /// When the server started.
    pub started: Instant,
    /// What the door and the listener count.
    pub counters: Arc<Counters>,
    draining: AtomicBool,
}

impl App {
    /// Starts the hub and what else handlers need, for at most `max_clients` clients of this `door`.
    ///
    /// # Errors
    /// Where the store cannot be opened, or a thread not be started.
    pub fn start(config: Config, door: &Door, max_clients: usize) -> Result<App, OpenError> {
        // One broadcaster for each processor. Half as many would take 7 % less CPU time for a delivery,
        // and a tenth longer until it is there.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let hub = Hub::start(&config, cores, wall_clock)?;
        let lab_hub = |fanout| {
            // In memory alone, and nothing is kept.
            let heartbeat = config.heartbeat;
            let config = Config { fanout, heartbeat, history: 0, ..Config::default() };
            Hub::start(&config, cores, wall_clock)
        };
        let lab_hubs = match config.demo {
            true => Some([lab_hub(Fanout::Direct)?, lab_hub(Fanout::Handoff)?]),
            false => None,
        };
        // The watcher and the backlog do not know the registry of clients: they get closures.
        let clients = Clients::new(max_clients, config.max_clients_per_ip);
        let (present, waiting) = (Arc::clone(&clients), Arc::clone(&clients));
        let hangups = Watcher::start(move |client| {
            if let Some(outbox) = present.get(client).as_ref().and_then(|client| client.outbox()) {
                outbox.close(Reason::Closed, None);
            }
        })
        .map_err(OpenError::Threads)?;
        let proxies = Proxies::new(config.trust_proxy.clone());
        Ok(App {
            hub,
            lab_hubs,
            backlog: Backlog::new(config.max_backlog_bytes, move || waiting.queues()),
            clients,
            #[cfg(feature = "page")]
            assets: Assets::new(config.www.clone(), config.report.clone()),
            origins: Origins::new(config.allow_origin.clone(), proxies),
            refusals: Refusals::default(),
            access: Access::new(config.subscribe_token.clone()),
            hangups,
            address: door.address,
            started: Instant::now(),
            counters: Arc::clone(&door.counters),
            draining: AtomicBool::new(false),
            config,
        })
    }

    /// All hubs.
    pub(crate) fn hubs(&self) -> impl Iterator<Item = &Arc<Hub>> {
        std::iter::once(&self.hub).chain(self.lab_hubs.iter().flatten())
    }

    /// Whether only this machine can reach the server, by the address that it listens on.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Begins the shutdown: from here on [`App::is_draining`]. Returns whether this call began it.
    pub(crate) fn begin_drain(&self) -> bool {
        !self.draining.swap(true, Ordering::SeqCst)
    }

    /// The limits of one client's queue.
    pub fn limits(&self) -> Limits {
        let bytes = MAX_WAITING_BYTES.max(2 * self.config.max_message);
        Limits { events: self.config.queue, bytes }
    }
}
