//! Who takes part: what it is, how it is built, and what it cannot do.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compare::build;
use crate::compare::process::{Port, Running, free_port};
use crate::compare::workloads::Job;
use crate::error::{Failure, Result};
use crate::target::{Target, Transport};

/// Everybody's names, in the order of the tables. The first is the one others are compared with.
pub const NAMES: [&str; 7] =
    ["threadcast", "handoff", "axum", "axum-default", "node", "nchan", "floor"];

/// One server, or the floor.
pub struct Peer {
    /// Its name.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// How it runs.
    pub kind: Kind,
    /// Its program, where it has one of its own.
    pub program: Option<PathBuf>,
}

/// How a peer runs.
pub enum Kind {
    /// A program that chooses its port and prints it.
    Program { program: PathBuf, arguments: Vec<String> },
    /// nginx, with its configuration still to be filled in.
    Nchan { template: String, module: PathBuf, folder: PathBuf },
    /// The helper processes of this program.
    Floor,
    /// A reader's own server, already running.
    Running { target: Target, pid: Option<u32> },
}

/// Somebody who cannot take part, and why.
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Peer {
    /// Why `job` cannot be asked of it; `None` if it can.
    pub fn cannot(&self, job: &Job) -> Option<&'static str> {
        match (self.name.as_str(), job) {
            ("axum" | "axum-default" | "node", Job::Replay) => Some("this peer keeps no history"),
            ("handoff", Job::Echo { .. }) => Some("an echo does not fan out: see threadcast"),
            ("nchan", Job::Echo { .. }) => Some("nchan has no echo"),
            ("floor", Job::Replay) => Some("the floor keeps no history"),
            ("floor", Job::Churn) => Some("the floor does not notice who leaves"),
            ("floor", Job::Fanout { transport: Transport::Ws, .. }) => {
                Some("the floor sends the same bytes whatever they are: see the SSE fan-out")
            }
            ("floor", Job::Idle { transport: Transport::Ws, .. }) => {
                Some("the floor's connections are all alike: see idle SSE clients")
            }
            _ => None,
        }
    }

    /// The command that starts it, without the folders it is in.
    pub fn command(&self) -> String {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        match &self.kind {
            Kind::Program { program, arguments } => {
                let words = arguments.iter().map(|word| base(word));
                let program = base(&program.to_string_lossy());
                [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
            }
            Kind::Nchan { .. } => "nginx -c target/bench/nginx/nginx.conf".to_owned(),
            Kind::Floor => "threadcast-bench floor-child".to_owned(),
            Kind::Running { .. } => "its owner".to_owned(),
        }
    }

    /// Starts it; `None` for the floor, whose processes belong to single runs.
    pub fn start(&self, logs: &Path) -> Result<Option<Running>> {
        let log = logs.join(format!("{}.log", self.name));
        let (command, port) = match &self.kind {
            Kind::Program { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments);
                (command, Port::Printed)
            }
            Kind::Nchan { template, module, folder } => {
                let port = free_port()?;
                (nginx(template, module, folder, port)?, Port::Given(port))
            }
            Kind::Floor | Kind::Running { .. } => return Ok(None),
        };
        Running::start(command, &port, &log).map(Some)
    }

    /// What clients of it have to know.
    pub fn target(&self, running: Option<&Running>) -> Option<Target> {
        match (&self.kind, running) {
            (Kind::Running { target, .. }, _) => Some(target.clone()),
            (Kind::Nchan { .. }, Some(running)) => {
                let mut target = Target::local(running.address);
                (target.greets, target.batches) = (false, false);
                Some(target)
            }
            (_, Some(running)) => Some(Target::local(running.address)),
            (_, None) => None,
        }
    }

    /// How events get into it.
    pub fn publishing(&self) -> &'static str {
        match self.kind {
            Kind::Floor => "its parent tells it the schedule before the run; no request per event",
            Kind::Nchan { .. } => {
                "one POST per event over a connection that is kept; it takes no batches, so where \
                 others get several events in one request it gets as many requests"
            }
            _ => {
                "one POST per event over a connection that is kept as long as the server keeps it; \
                 NDJSON, several events in one POST, above 200 requests a second (saturate) and \
                 for replay"
            }
        }
    }
}

fn nginx(template: &str, module: &Path, folder: &Path, port: u16) -> Result<Command> {
    let io = |e| Failure::new(format!("cannot write nginx.conf: {e}"), "look at target/bench");
    let text = template
        .replace("@PORT@", &port.to_string())
        .replace("@DIR@", &folder.to_string_lossy())
        .replace("@MODULE@", &module.to_string_lossy());
    let file = folder.join("nginx.conf");
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text)).map_err(io)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    Ok(command)
}

/// Builds who is wanted. The server itself has to build; any other may be missing.
pub fn prepare(root: &Path, out: &Path, wanted: &[String]) -> Result<(Vec<Peer>, Vec<Skipped>)> {
    let mut peers = Vec::new();
    let mut skipped = Vec::new();
    for name in NAMES {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            skipped.push(Skipped { name: name.to_owned(), reason: "not asked for".to_owned() });
            continue;
        }
        eprintln!("preparing {name}");
        match one(name, root, out) {
            Ok(peer) => peers.push(peer),
            Err(reason) if matches!(name, "threadcast" | "handoff") => {
                return Err(Failure::new(reason, "the server has to build"));
            }
            Err(reason) => {
                eprintln!("skipping {name}: {reason}");
                skipped.push(Skipped { name: name.to_owned(), reason });
            }
        }
    }
    Ok((peers, skipped))
}

fn one(name: &str, root: &Path, out: &Path) -> std::result::Result<Peer, String> {
    let program = |program: PathBuf, arguments: &[&str]| {
        let arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        Kind::Program { program, arguments }
    };
    let (about, kind) = match name {
        "threadcast" | "handoff" => {
            let built = build::cargo(root, None)?;
            let mut arguments = vec!["--listen", "127.0.0.1:0", "--tick", "0", "--log", "off"];
            let about = if name == "handoff" {
                arguments.extend(["--fanout", "handoff"]);
                "threadcast --fanout handoff: every event wakes every client's thread"
            } else {
                "this server: one blocking thread per connection, tiny_http + tungstenite"
            };
            (about.to_owned(), program(built, &arguments))
        }
        "axum" | "axum-default" => {
            let built = build::cargo(&root.join("tests/peers/axum"), Some(&build::target(root)))?;
            let (mode, about) = match name {
                "axum" => {
                    ("tuned", "axum on tokio, tuned: nodelay, backlog, small buffers, encoded once")
                }
                _ => ("default", "axum on tokio as its documentation has it, all defaults"),
            };
            (about.to_owned(), program(built, &["--listen", "127.0.0.1:0", "--mode", mode]))
        }
        "node" => {
            let folder = root.join("tests/peers/node");
            let node = build::node(&folder)?;
            let script = folder.join("server.js").to_string_lossy().into_owned();
            (
                "express and ws on Node, one process, encoded once, no compression".to_owned(),
                program(node, &[&script, "--listen", "127.0.0.1:0"]),
            )
        }
        "nchan" => {
            let module = build::nchan()?;
            let template = std::fs::read_to_string(root.join("tests/peers/nchan/nginx.conf"))
                .map_err(|e| format!("tests/peers/nchan/nginx.conf: {e}"))?;
            let kind = Kind::Nchan { template, module, folder: out.join("nginx") };
            ("nginx with nchan, in C, one worker process per core".to_owned(), kind)
        }
        _ => (
            "a process that only calls send(2), or read and write: the physical limit".to_owned(),
            Kind::Floor,
        ),
    };
    let program = match &kind {
        Kind::Program { program, .. } => Some(program.clone()),
        _ => None,
    };
    Ok(Peer { name: name.to_owned(), about, kind, program })
}
