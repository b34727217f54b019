//! A server: how it starts, and how it ends.
//!
//! [`Server::start`] and [`Server::shutdown`] run in the thread that calls them. `shutdown` waits until
//! the clients have left, up to the drain time, and then for the server's own threads to end.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{error, fmt, io};

use crate::app::App;
use crate::client::reason::Reason;
use crate::client::registry::{Client, Transport};
use crate::config::{Config, ConfigError};
use crate::door::Door;
use crate::event::Draft;
use crate::event::topics::Topics;
use crate::http::forwarded::Proxies;
use crate::hub::Receipt;
use crate::hub::reader::Events;
use crate::listener::Listener;
use crate::os::limits;
use crate::router::Router;
use crate::routes::Routes;
use crate::session::{closing, event_stream};
use crate::sources;
#[cfg(feature = "metrics")]
use crate::sources::tick::Tick;
use crate::store::error::{OpenError, PublishError};

/// How long the threads of aborted connections may take to end, after the drain time.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the shutdown looks for WebSockets whose turn it is, and for clients that were still
/// connecting when it began.
const CLOSE_INTERVAL: Duration = Duration::from_millis(50);

/// A running server. When it is dropped it shuts down, as [`Server::shutdown`] does.
pub struct Server {
    app: Arc<App>,
    listener: Arc<Listener>,
    #[cfg(feature = "metrics")]
    tick: Mutex<Option<Tick>>,
    /// Publishes counts of subscribers.
    counts: Mutex<Option<JoinHandle<()>>>,
    is_stopped: Mutex<bool>,
    /// Signalled when the shutdown is over.
    stopped: Condvar,
}

/// Why a server could not start. Displayed as one line that says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is wrong.
    Config(ConfigError),
    /// No request would reach this route: its path does not begin with `/`, or its method is not written in
    /// capital letters.
    Route(String),
    /// The address cannot be listened on.
    Bind(SocketAddr, io::Error),
    /// The store cannot be opened.
    Store(OpenError),
    /// Threads cannot be started.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Route(route) => write!(
                f,
                "no request would reach the route {route:?}; begin paths with / and write methods in capitals"
            ),
            StartError::Bind(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use; stop what listens there or choose --listen")
            }
            StartError::Bind(address, error) => {
                write!(f, "cannot listen on {address}: {error}; choose another --listen")
            }
            StartError::Store(error) => error.fmt(f),
            StartError::Threads(error) => {
                write!(f, "cannot start a thread: {error}; raise the limits on threads and memory")
            }
        }
    }
}

impl error::Error for StartError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            StartError::Config(error) => Some(error),
            StartError::Store(error) => Some(error),
            StartError::Route(_) => None,
            StartError::Bind(_, error) | StartError::Threads(error) => Some(error),
        }
    }
}

impl Server {
    /// Listens, and starts the threads. Serves what is built in.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: Config) -> Result<Server, StartError> {
        Server::start_with(config, Routes::default())
    }

    /// The same, and serves these routes.
    pub(crate) fn start_with(config: Config, routes: Routes) -> Result<Server, StartError> {
        config.check_demo().map_err(StartError::Config)?;
        // First of all: the threads to come would make what is left look smaller than it is.
        let room = limits::room(config.fanout.threads_per_client());
        let door = Door::bind(&config, room.max_pending)
            .map_err(|error| StartError::Bind(config.listen, error))?;
        let proxies = Proxies::new(config.trust_proxy.clone());
        let max_clients = config.max_clients.unwrap_or(room.tightest.clients());
        let app = App::start(config, &door, max_clients).map_err(StartError::Store)?;
        let app = Arc::new(app);
        #[cfg(feature = "metrics")]
        let tick = match app.config.tick {
            Duration::ZERO => None,
            interval => Some(Tick::start(&app, interval).map_err(StartError::Threads)?),
        };
        // Last: the first client may come as soon as the listener's threads run.
        let handler = {
            let router = Router::new(&app, routes);
            Box::new(move |connection| router.route(connection))
        };
        let listener = Listener::start(door, proxies, handler).map_err(StartError::Threads)?;
        let counts = sources::subscribers::start(&app.hub, app.address);
        let counts = counts.inspect_err(|_| listener.stop()).map_err(StartError::Threads)?;
        log_capacity(app.config.max_clients, &room.tightest);
        Ok(Server {
            app,
            listener,
            #[cfg(feature = "metrics")]
            tick: Mutex::new(tick),
            counts: Mutex::new(Some(counts)),
            is_stopped: Mutex::new(false),
            stopped: Condvar::new(),
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.app.address
    }

    /// Publishes to all subscribers of `topic`. Waits where a broadcaster is far behind.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(&self, topic: &str, data: impl AsRef<str>) -> Result<Receipt, PublishError> {
        self.app.hub.publish_text(topic, None, data.as_ref())
    }

    /// The same for an event that has a name.
    ///
    /// # Errors
    /// [`PublishError::Stopped`] when the server shuts down.
    pub fn publish_event(&self, draft: Draft) -> Result<Receipt, PublishError> {
        self.app.hub.publish(draft)
    }

    /// The events that are published on `topics` from now on (`*` stands for all), for this process itself.
    pub fn subscribe<T: Into<String>>(&self, topics: impl IntoIterator<Item = T>) -> Events {
        let names: Vec<String> = topics.into_iter().map(Into::into).collect();
        Events::new(&self.app.hub, Topics::asked_for(&names))
    }

    /// Waits until the server has been shut down, by another thread or a signal handler.
    pub fn wait(&self) {
        let mut is_stopped = self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_stopped {
            is_stopped = self.stopped.wait(is_stopped).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the handlers share: for tests.
    #[doc(hidden)]
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

    /// Shuts down: tells every client, waits for them and for downloads up to the drain time, aborts the
    /// rest, and ends the threads. While clients leave, new requests get 503.
    ///
    /// Returns whether every client left in time, and every response was written. A second call returns
    /// at once.
    pub fn shutdown(&self) -> bool {
        if !self.app.begin_drain() {
            return true;
        }
        let deadline = Instant::now() + self.app.config.drain;
        // No new events, and none that were published stay behind the close messages.
        #[cfg(feature = "metrics")]
        if let Some(tick) = self.tick.lock().ok().and_then(|mut tick| tick.take()) {
            tick.stop();
        }
        self.listener.close_idle();
        self.app.hubs().for_each(|hub| hub.close());
        if let Some(counts) = self.counts.lock().ok().and_then(|mut counts| counts.take()) {
            let _ = counts.join();
        }
        // The listener serves on: proxies that check `/healthz` must see that the server is draining.
        let in_time = self.close_clients(deadline) && self.listener.wait_served(deadline);
        self.listener.stop();
        for client in self.app.clients.list() {
            if let Some(outbox) = client.outbox() {
                outbox.abort();
            }
        }
        self.app.clients.wait_empty(Instant::now() + ABORT_TIMEOUT);
        // After the clients' threads, which still use the hub.
        self.app.hubs().for_each(|hub| hub.stop());
        *self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.notify_all();
        in_time
    }

    /// Tells all clients that the server shuts down, and waits until none is left. Returns whether that is
    /// so at the deadline.
    ///
    /// Event streams are told at once: each gets a time of its own to come back at. A close frame carries no
    /// such time, so WebSockets are closed one after another, the oldest first.
    fn close_clients(&self, deadline: Instant) -> bool {
        let spread = self.app.config.drain_spread;
        let start = Instant::now();
        // The other half of the drain time is for the last ones to leave.
        let turns = Turns::new(
            self.app.clients.list().iter().filter(|one| one.transport == Transport::WebSocket),
            spread.min(deadline.saturating_duration_since(start) / 2),
        );
        // Again and again, since a client that is connecting gets its outbox only a moment later.
        loop {
            let elapsed = start.elapsed();
            for client in self.app.clients.list() {
                let Some(outbox) = client.outbox() else {
                    continue;
                };
                let message = match outbox.link().coding() {
                    Some(coding) => event_stream::shutdown_message(client.number, spread, coding),
                    None if turns.has_come(client.number, elapsed) => closing::shutdown_message(),
                    None => continue,
                };
                // An outbox that is closing already ignores this.
                outbox.close(Reason::Shutdown, Some(&message));
            }
            let now = Instant::now();
            if self.app.clients.wait_empty(deadline.min(now + CLOSE_INTERVAL)) {
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

/// When the WebSockets of a shutdown are closed: evenly over a time.
struct Turns {
    /// The clients' numbers, rising.
    numbers: Vec<u64>,
    spread: Duration,
}

impl Turns {
    fn new<'a>(clients: impl Iterator<Item = &'a Arc<Client>>, spread: Duration) -> Turns {
        let mut numbers: Vec<u64> = clients.map(|client| client.number).collect();
        numbers.sort_unstable();
        Turns { numbers, spread }
    }

    /// Whether it is this client's turn so long after the beginning. The first one's comes at once, and so
    /// does that of a client that came later than all others.
    fn has_come(&self, number: u64, elapsed: Duration) -> bool {
        let place = self.numbers.partition_point(|one| *one < number);
        let count = self.numbers.len();
        place == count
            || elapsed.as_millis() * count as u128 >= self.spread.as_millis() * place as u128
    }
}

/// Logs how many clients there may be, and which limit decides that.
fn log_capacity(configured: Option<usize>, tightest: &limits::ResourceLimit) {
    let room = tightest.clients();
    match configured {
        None => log::info!("room for {room} clients: {tightest}"),
        Some(limit) if limit <= room => log::info!("room for {limit} clients, as asked for"),
        Some(limit) => log::warn!("{limit} clients asked for, room for {room}: {tightest}"),
    }
}
