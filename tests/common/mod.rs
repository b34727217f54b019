//! What all integration tests share: the server as a child process on a port of its own, and
//! clients that speak bytes, so that no library of ours can hide a mistake of ours. The clients need
//! only its address: see [`Remote`].
#![allow(dead_code)] // every test file uses its own part of this

pub mod http;
pub mod schema;
pub mod sse;
pub mod ws;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nothing on one machine takes this long, but a machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program. Without the feature `cli` there is none: then the tests that start it only compile.
pub const PROGRAM: &str = match option_env!("CARGO_BIN_EXE_threadcast") {
    Some(path) => path,
    None => "no program: the cargo feature 'cli' is off",
};

/// Both ways from the broadcaster to the socket. What a client reads must not depend on it.
pub const FANOUTS: [&str; 2] = ["direct", "handoff"];

/// A server as its clients see it, whatever process it is in.
pub struct Remote {
    pub address: SocketAddr,
}

/// A running server in a process of its own; killed when dropped.
pub struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    pub remote: Remote,
    log: Arc<Mutex<String>>,
}

impl Deref for Server {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Server {
    /// Starts the server with these flags, on a free port of 127.0.0.1, without ticks.
    pub fn start(flags: &[&str]) -> Server {
        Server::start_command(Command::new(PROGRAM), flags)
    }

    /// The same with these environment variables.
    pub fn start_with_environment(variables: &[(&str, &str)], flags: &[&str]) -> Server {
        let mut command = Command::new(PROGRAM);
        command.envs(variables.iter().copied());
        Server::start_command(command, flags)
    }

    /// The same with a limit of open descriptors.
    pub fn start_with_descriptors(limit: usize, flags: &[&str]) -> Server {
        Server::start_limited(&format!("-n {limit}"), flags)
    }

    /// The same with whatever limit `ulimit` can set: `-f 8` for files of 8 blocks.
    pub fn start_limited(limit: &str, flags: &[&str]) -> Server {
        let mut shell = Command::new("sh");
        let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, PROGRAM]);
        Server::start_command(shell, flags)
    }

    fn start_command(mut command: Command, flags: &[&str]) -> Server {
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--tick") {
            command.args(["--tick", "0"]);
        }
        command.args(flags);
        Server::start_process(command)
    }

    /// Starts one of `tests/examples` with these arguments.
    pub fn start_example(name: &str, arguments: &[&str]) -> Server {
        Server::start_process(Server::example(name, arguments))
    }

    /// The command for that.
    pub fn example(name: &str, arguments: &[&str]) -> Command {
        // Cargo puts tests into `deps`, and examples beside that.
        let this = std::env::current_exe().unwrap();
        let program = this.ancestors().nth(2).unwrap().join("examples").join(name);
        assert!(program.exists(), "no example {name}: run 'cargo build --examples'");
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    /// Starts a program that prints its address.
    fn start_process(mut command: Command) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        // Somebody must read the log, or the server would block on a full pipe.
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").map(str::parse);
        let Some(Ok(address)) = address else {
            let _ = child.kill();
            panic!("instead of its address the server printed {line:?}: {}", log.lock().unwrap());
        };
        Server { child, output, remote: Remote { address }, log }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has this text so many times. (What is logged gets here a moment later.)
    pub fn wait_log(&self, text: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.log().matches(text).count() != count {
            assert!(Instant::now() < deadline, "not {count} times {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The next line that the process prints.
    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// The server's threads: the system's numbers and names of them.
    pub fn tasks(&self) -> Vec<(u64, String)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // A thread may end between the listing and the look.
        let look = |task: std::io::Result<std::fs::DirEntry>| {
            let task = task.ok()?;
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            Some((task.file_name().to_str()?.parse().ok()?, name.trim_end().to_owned()))
        };
        tasks.filter_map(look).collect()
    }

    /// How many threads serve a client or a request now. (`/stats` counts all: also those that wait
    /// for something to do.)
    pub fn client_threads(&self) -> usize {
        let roles = ["http ", "sse ", "ws ", "wsw "];
        let serves = |(_, name): &&(u64, String)| roles.iter().any(|role| name.starts_with(role));
        self.tasks().iter().filter(serves).count()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the process to end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server has not ended:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Remote {
    /// A server inside this process.
    pub fn of(server: &threadcast::Server) -> Remote {
        Remote { address: server.address() }
    }

    /// A connection with a read timeout.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection that takes only a few kilobytes ahead of its reader: a slow client is found out
    /// after little data, whatever the system's buffers are.
    pub fn connect_narrow(&self) -> TcpStream {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        // The server's buffer grows with the segment size, and loopback's is 64 KiB.
        socket.set_tcp_mss(1400).unwrap();
        socket.connect(&self.address.into()).expect("the server accepts");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.into()
    }

    /// A connection from this address of the loopback network.
    pub fn connect_from(&self, address: Ipv4Addr) -> TcpStream {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.address.port()));
        socket.connect(&to.into()).expect("the server accepts");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.into()
    }

    /// Sends raw bytes and closes the sending side, so that the server does not wait for another
    /// request. Returns all that comes back until the server closes.
    pub fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server answers and closes");
        answer
    }

    /// Publishes lines of JSON, an event a line.
    pub fn publish_lines(&self, lines: &str) -> Answer {
        let headers = "Content-Type: application/x-ndjson\r\n";
        let answer = self.request("POST", "/publish", headers, lines.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// The same with one response in what comes back.
    pub fn respond(&self, request: impl AsRef<[u8]>) -> Answer {
        Answer::parse(&self.exchange(request.as_ref()))
    }

    /// Sends a request with further header lines (each ended by CRLF) and a body.
    pub fn request(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let length = match body.is_empty() && method != "POST" {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\n{length}{headers}\r\n",
            self.address
        )
        .into_bytes();
        request.extend_from_slice(body);
        Answer::parse(&self.exchange(&request))
    }

    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, "", b"")
    }

    pub fn publish(&self, target: &str, body: &str) -> Answer {
        self.request("POST", target, "", body.as_bytes())
    }

    /// Publishes what must be accepted; returns the event's id.
    pub fn publish_id(&self, target: &str, body: &str) -> String {
        let answer = self.publish(target, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// `/stats`.
    pub fn stats(&self) -> serde_json::Value {
        self.get("/stats").json()
    }

    /// Waits until `/stats` satisfies a condition.
    pub fn wait_stats(&self, what: &str, condition: impl Fn(&serde_json::Value) -> bool) {
        wait_for(what, || condition(&self.stats()));
    }

    /// Waits until so many SSE and WebSocket clients are connected.
    pub fn wait_clients(&self, sse: u64, websocket: u64) {
        self.wait_stats(&format!("{sse} SSE and {websocket} WebSocket clients"), |stats| {
            stats["clients"]["sse"] == sse && stats["clients"]["websocket"] == websocket
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition holds; fails after [`PATIENCE`].
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Fails unless `text` is a time as the contract has it: ISO 8601 in UTC with milliseconds, `Z`.
pub fn assert_timestamp(text: &str) {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form, "0000-00-00T00:00:00.000Z", "{text}");
    humantime::parse_rfc3339(text).expect("a date that exists");
}

/// A folder of its own for one test; removed when dropped.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("threadcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder { path }
    }

    /// Writes a file, with the folders on the way to it. Returns its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// An HTTP answer, taken apart.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no end of the head in {text:?}"));
        let head = String::from_utf8(bytes[..end].to_vec()).expect("the head is ASCII");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    /// The value of a header field; fails if it is there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value);
        assert!(values.next().is_none(), "{name} is there twice:\n{}", self.head);
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The `code` of an error answer, whose form is checked.
    pub fn error_code(&self) -> String {
        assert_eq!(self.header("Content-Type"), Some("application/json"));
        let value = self.json();
        assert!(value["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
        value["error"]["code"].as_str().expect("an error has a code").to_owned()
    }
}
