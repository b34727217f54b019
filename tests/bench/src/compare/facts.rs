//! What does not depend on load: the machine, and how big the programs are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::compare::build;
use crate::compare::peers::{Kind, Peer};
use crate::compare::results::Results;
use crate::procfs::field;
use crate::report::median;

/// Facts about this machine and its tools, as name and value.
pub fn machine(root: &Path) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) as f64 / 1048576.0;
    let first = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root).output().ok()?;
        // nginx tells its version on stderr.
        let all = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&all).lines().next().unwrap_or("").trim().to_owned();
        (output.status.success() && !line.is_empty()).then_some(line)
    };
    let say = |program: &str, arguments: &[&str]| {
        first(program, arguments).unwrap_or_else(|| "not there".to_owned())
    };
    [
        ("date", say("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("processor", format!("{}, {cores} cores", model.unwrap_or("unknown").trim())),
        ("memory", format!("{memory:.1} GiB")),
        ("kernel", say("uname", &["-sr"])),
        ("Rust", say("rustc", &["--version"])),
        ("Node", say("node", &["--version"])),
        ("nginx", say("nginx", &["-v"])),
        ("this source", say("git", &["describe", "--always", "--dirty"])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// A peer's size, as far as it is known.
pub struct Size {
    /// Who.
    pub peer: String,
    /// From its start to its first answered request in milliseconds, median of all rounds.
    pub start_ms: Option<f64>,
    /// What has to be copied to run it.
    pub binary: String,
    /// What it is made of.
    pub parts: String,
    /// How long a clean build takes, in seconds, where that was asked for.
    pub build_seconds: Option<f64>,
}

/// The sizes of all that are programs. `build_times` builds each once more, from nothing.
pub fn sizes(
    root: &Path,
    out: &Path,
    peers: &[Peer],
    results: &Results,
    build_times: bool,
) -> Vec<Size> {
    let programs = peers.iter().filter(|peer| match peer.kind {
        Kind::Floor | Kind::Running { .. } => false,
        // The same program with another flag.
        _ => !matches!(peer.name.as_str(), "handoff" | "axum-default"),
    });
    let size = |peer: &Peer| {
        let starts: Vec<f64> = results
            .0
            .iter()
            .filter(|record| record.peer == peer.name)
            .filter_map(|record| record.json.get("start_ms")?.as_f64())
            .collect();
        Size {
            peer: peer.name.clone(),
            start_ms: (!starts.is_empty()).then(|| median(&starts)),
            binary: binary(root, peer),
            parts: parts(root, &peer.name).unwrap_or_else(|| "unknown".to_owned()),
            build_seconds: if build_times { clean_build(root, out, &peer.name) } else { None },
        }
    };
    programs.map(size).collect()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn binary(root: &Path, peer: &Peer) -> String {
    let length = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
    let which = |program: &str| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
    };
    match (peer.name.as_str(), &peer.kind) {
        ("node", _) => {
            let modules = folder_size(&root.join("tests/peers/node/node_modules"));
            let node = which("node").map_or(0, |file| length(&file));
            format!("{} node + {} modules", megabytes(node), megabytes(modules))
        }
        (_, Kind::Nchan { module, .. }) => {
            let nginx = which("nginx").map_or(0, |file| length(&file));
            format!("{} nginx + {} nchan", megabytes(nginx), megabytes(length(module)))
        }
        _ => peer.program.as_deref().map_or_else(String::new, |file| megabytes(length(file))),
    }
}

fn folder_size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => folder_size(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |data| data.len()),
        _ => 0,
    };
    entries.map(size).sum()
}

fn parts(root: &Path, name: &str) -> Option<String> {
    match name {
        "threadcast" => crates(root),
        "axum" => crates(&root.join("tests/peers/axum")),
        "node" => {
            let lock = fs::read(root.join("tests/peers/node/package-lock.json")).ok()?;
            Some(format!("{} npm packages", npm_packages(&serde_json::from_slice(&lock).ok()?)?))
        }
        _ => Some("packages of the system".to_owned()),
    }
}

/// Crates that a build compiles, procedural macros included, without the one itself.
fn crates(folder: &Path) -> Option<String> {
    let mut command = Command::new("cargo");
    command.args(["tree", "--locked", "-e", "normal", "--prefix", "none"]).current_dir(folder);
    let output = build::output(&mut command).ok()?;
    Some(format!("{} crates", count_crates(&String::from_utf8_lossy(&output.stdout))))
}

fn count_crates(tree: &str) -> usize {
    let name = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    let all: std::collections::HashSet<_> = tree.lines().filter_map(name).collect();
    all.len().saturating_sub(1)
}

fn npm_packages(lock: &Value) -> Option<usize> {
    let packages = lock["packages"].as_object()?;
    Some(packages.keys().filter(|path| !path.is_empty()).count())
}

fn clean_build(root: &Path, out: &Path, name: &str) -> Option<f64> {
    let folder = out.join("clean-build");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).ok()?;
    eprintln!("building {name} from nothing");
    let start = Instant::now();
    match name {
        "threadcast" => drop(build::cargo(root, Some(&folder)).ok()?),
        "axum" => drop(build::cargo(&root.join("tests/peers/axum"), Some(&folder)).ok()?),
        "node" => {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(root.join("tests/peers/node").join(file), folder.join(file)).ok()?;
            }
            build::npm_ci(&folder).ok()?;
        }
        _ => return None,
    }
    let took = start.elapsed().as_secs_f64();
    let _ = fs::remove_dir_all(&folder);
    Some(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_once_and_the_root_not() {
        let tree = "own v0.1.0 (/x)\na v1.0.0\nb v1.0.0\na v1.0.0 (*)\na v2.0.0\n";
        assert_eq!(count_crates(tree), 3);
    }

    #[test]
    fn packages_of_a_lock_file() {
        let lock = serde_json::json!({"packages": {"": {}, "node_modules/a": {}}});
        assert_eq!(npm_packages(&lock), Some(1));
        assert_eq!(npm_packages(&Value::Null), None);
    }
}
