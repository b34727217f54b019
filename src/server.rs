//! A server: how it starts, and how it ends.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use crate::app::App;
use crate::assets::Assets;
use crate::auth::access::Access;
use crate::auth::origin::Origins;
use crate::auth::refusals::Refusals;
use crate::client::backlog::Backlog;
use crate::client::hangup::Watcher;
use crate::client::reason::Reason;
use crate::client::registry::Clients;
use crate::config::Config;
use crate::door::Door;
use crate::handlers::{sse, websocket};
use crate::http::forwarded::Proxies;
use crate::hub::Hub;
use crate::listener::Listener;
use crate::os::clock::wall_clock;
use crate::os::limits;
use crate::router;
use crate::sources::tick::Tick;

/// After the drain time, how long the threads whose connections were cut may take to end.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A running server. Dropped without [`Server::shutdown`] it shuts down in the same way.
pub struct Server {
    app: Arc<App>,
    listener: Arc<Listener>,
    tick: Mutex<Option<Tick>>,
    address: SocketAddr,
}

/// Why a server could not start. Displayed as one line.
#[derive(Debug)]
pub enum StartError {
    /// The address cannot be listened on.
    Bind(SocketAddr, io::Error),
    /// Threads cannot be started.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use; stop what listens there or choose --listen")
            }
            StartError::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            StartError::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Server {
    /// Listens, and starts the threads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: Config) -> Result<Server, StartError> {
        let room = limits::room(config.fanout.threads_per_client());
        let door = Door::bind(&config, room.max_pending)
            .map_err(|error| StartError::Bind(config.listen, error))?;
        let address = door.address;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // One broadcaster for each processor. Half as many would take 7 % less CPU time for a delivery,
        // and a tenth longer until it is there.
        let hub = Hub::start(config.history, cores, config.heartbeat, wall_clock)
            .map_err(StartError::Threads)?;
        let limit = config.max_clients.unwrap_or(room.tightest.clients());
        let clients = Clients::new(limit, config.max_clients_per_ip);
        let (present, waiting) = (Arc::clone(&clients), Arc::clone(&clients));
        let hangups = Watcher::start(move |client| {
            if let Some(outbox) = present.get(client).as_ref().and_then(|client| client.outbox()) {
                outbox.close(Reason::Closed, None);
            }
        });
        let proxies = Proxies::new(config.trust_proxy.clone());
        let app = Arc::new(App {
            hub,
            backlog: Backlog::new(config.max_backlog_bytes, move || waiting.queues()),
            clients,
            assets: Assets::new(config.www.clone()),
            origins: Origins::new(config.allow_origin.clone(), proxies.clone()),
            refusals: Refusals::default(),
            access: Access::new(config.subscribe_token.clone()),
            hangups: hangups.map_err(StartError::Threads)?,
            is_loopback: is_loopback(address.ip()),
            started: Instant::now(),
            counters: Arc::clone(&door.counters),
            draining: AtomicBool::new(false),
            config,
        });
        let tick = match app.config.tick {
            Duration::ZERO => None,
            interval => Some(Tick::start(&app, interval).map_err(StartError::Threads)?),
        };
        let handled = Arc::clone(&app);
        let handler = Box::new(move |connection| router::route(&handled, connection));
        let listener = Listener::start(door, proxies, handler).map_err(StartError::Threads)?;
        log_capacity(app.config.max_clients, &room.tightest);
        Ok(Server { app, listener, tick: Mutex::new(tick), address })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the handlers share: for embedding programs that publish themselves, and for tests.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Breaks the pipe to tiny_http, as if tiny_http had failed: for tests.
    #[doc(hidden)]
    pub fn break_pipe(&self) {
        if let Some(pipe) = self.listener.pipe().as_ref() {
            pipe.close();
        }
    }

    /// Writes into the pipe to tiny_http what does not belong there: for tests.
    #[doc(hidden)]
    pub fn write_to_pipe(&self, bytes: &[u8]) {
        if let Some(pipe) = self.listener.pipe().as_ref() {
            let _ = pipe.write(bytes);
        }
    }

    /// Shuts down: says goodbye to every client, waits for them and for downloads up to the drain
    /// time, cuts the others, and ends the threads. While clients are leaving, new requests get 503.
    ///
    /// Returns whether every client left in time, and every response was written.
    pub fn shutdown(&self) -> bool {
        if self.app.draining.swap(true, Ordering::SeqCst) {
            return true;
        }
        let deadline = Instant::now() + self.app.config.drain;
        let tick = self.tick.lock().ok().and_then(|mut tick| tick.take());
        if let Some(tick) = tick {
            tick.stop();
        }
        self.listener.close_idle();
        self.app.hub.close();
        let gone = self.see_clients_off(deadline) && self.listener.wait_served(deadline);
        self.listener.stop();
        for client in self.app.clients.list() {
            if let Some(outbox) = client.outbox() {
                outbox.abort();
            }
        }
        self.app.clients.wait_empty(Instant::now() + CUT_GRACE);
        self.app.hub.stop();
        gone
    }

    /// Says goodbye to all, also to those that were still on their way in; waits until nobody is
    /// left.
    fn see_clients_off(&self, deadline: Instant) -> bool {
        loop {
            for client in self.app.clients.list() {
                let Some(outbox) = client.outbox() else {
                    continue;
                };
                let message = match outbox.link().coding() {
                    Some(coding) => sse::shutdown_message(client.number, coding),
                    None => websocket::session::shutdown_message(),
                };
                // Said once: to an outbox that is over this does nothing.
                outbox.close(Reason::Shutdown, Some(&message));
            }
            let now = Instant::now();
            if self.app.clients.wait_empty(deadline.min(now + Duration::from_millis(100))) {
                return true;
            }
            if now >= deadline {
                return false;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Logs how many clients there may be: as many as were asked for, or as there is room for, and why.
fn log_capacity(asked: Option<usize>, tightest: &limits::ResourceLimit) {
    let room = tightest.clients();
    match asked {
        None => log::info!("room for {room} clients: {tightest}"),
        Some(limit) if limit <= room => log::info!("room for {limit} clients, as asked for"),
        Some(limit) => log::warn!("{limit} clients asked for, room for {room}: {tightest}"),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }
    }
}
