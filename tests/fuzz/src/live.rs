//! A server inside this process, and the simplest of clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use threadcast::os::procfs::ProcessInfo;
use threadcast::{Config, ConfigError, Server};

/// Nothing takes this long on one machine, however busy it is; what does hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub struct Live {
    /// The server.
    pub server: Server,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The longest head that the server accepts, in bytes.
pub const MAX_HEAD: usize = 32 << 10;

/// The settings that all targets begin with: a free port of loopback, nothing that happens by
/// itself.
fn quiet() -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.set_listen("127.0.0.1:0")?;
    config.set_tick(Duration::ZERO)?;
    config.set_heartbeat(Duration::ZERO)?;
    config.set_ping(Duration::ZERO)?;
    config.set_max_head(MAX_HEAD)?;
    config.set_drain(Duration::from_millis(500))?;
    config.set_drain_spread(Duration::ZERO)?;
    Ok(config)
}

impl Live {
    /// Starts a server whose quiet settings `set` has changed.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(set: impl FnOnce(&mut Config) -> Result<(), ConfigError>) -> Result<Live, String> {
        let mut config = quiet().map_err(|error| error.to_string())?;
        set(&mut config).map_err(|error| error.to_string())?;
        let server = Server::start(config).map_err(|error| error.to_string())?;
        let address = server.address();
        Ok(Live { server, address })
    }

    /// A connection that gives up after [`PATIENCE`].
    ///
    /// # Errors
    /// Where the server does not accept.
    pub fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(self.address).map_err(|e| format!("connect: {e}"))?;
        prepare(&stream).map_err(|e| format!("connect: {e}"))?;
        Ok(stream)
    }

    /// Status and body of a GET.
    ///
    /// # Errors
    /// Where no answer comes.
    pub fn get(&self, path: &str) -> Result<(u16, Vec<u8>), String> {
        let mut stream = self.connect()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).map_err(|e| format!("GET {path}: {e}"))?;
        let answer = read_all(&mut stream).map_err(|e| format!("GET {path}: {e}"))?;
        let end = find(&answer, b"\r\n\r\n").ok_or_else(|| format!("GET {path}: no head"))?;
        let status = std::str::from_utf8(&answer[..end]).ok().and_then(|head| head.get(9..12));
        let status = status.and_then(|digits| digits.parse().ok());
        Ok((status.ok_or_else(|| format!("GET {path}: no status"))?, answer[end + 4..].to_vec()))
    }

    /// Fails unless the server says that it is well.
    ///
    /// # Errors
    /// What it says instead.
    pub fn check_health(&self) -> Result<(), String> {
        match self.get("/healthz")? {
            (200, _) => Ok(()),
            (status, _) => Err(format!("/healthz answers {status}")),
        }
    }

    /// Fails if the pipe to tiny_http has broken: nothing that clients send may do that.
    ///
    /// # Errors
    /// How often it has.
    pub fn check_pipe(&self) -> Result<(), String> {
        match self.server.app().counters.restarts.load(std::sync::atomic::Ordering::SeqCst) {
            0 => Ok(()),
            restarts => Err(format!("the pipe to tiny_http has broken {restarts} times")),
        }
    }

    /// Waits until the process has at most `most` threads, as `/stats` tells it: what has ended may
    /// take a moment to go, and the server keeps idle threads for five seconds.
    ///
    /// # Errors
    /// Where there are still more.
    pub fn wait_threads(&self, most: u64) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        // Not by asking `/stats` again and again: that would keep the idle threads from ending.
        while ProcessInfo::read().threads > most && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (_, body) = self.get("/stats")?;
        let stats: serde_json::Value =
            serde_json::from_slice(&body).map_err(|e| format!("/stats: {e}"))?;
        match stats["threads"].as_u64() {
            // The one that responds, and one that is idle.
            Some(threads) if threads <= most + 2 => Ok(()),
            Some(threads) => {
                let names = thread_names();
                Err(format!("{threads} threads, and not more than {most} before: {names}"))
            }
            None => Err(format!("/stats without threads: {stats}")),
        }
    }
}

/// What every client socket here has: timeouts, and no waiting for full segments.
///
/// # Errors
/// What the system says.
pub fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)
}

/// Everything until the end of the stream. A reset is an end; what came before it counts.
///
/// # Errors
/// Where nothing came for [`PATIENCE`].
pub fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(all),
            Err(error) => {
                let text = String::from_utf8_lossy(&all);
                return Err(format!("{error}: the server does not close, after {text:?}"));
            }
        }
    }
}

/// Where `needle` begins.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Resident memory, in bytes.
pub fn resident() -> u64 {
    ProcessInfo::read().resident_bytes
}

/// The names of the threads, for messages.
fn thread_names() -> String {
    let mut names: Vec<String> = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names.join(", ")
}
