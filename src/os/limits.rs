//! How many clients there is room for: computed once, at the start, from the limits of this process.
//!
//! A client takes one descriptor and one thread (a WebSocket in `handoff` mode two), and a thread
//! takes four memory maps: its stack, the stack of its signal handlers, and a guard page below each.
//! The limit that runs out first decides. Two of them must not run out: without a descriptor no
//! connection is accepted, and a thread that gets no map for its signal stack takes the whole process
//! down (Rust's runtime aborts). A client that gets no thread is told 503.
//!
//! What other processes use of a limit that they share with this one is not subtracted: it changes
//! while the server runs.

use std::fmt;
use std::path::Path;

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

/// The most connections that may be pending: neither closed nor clients yet. Each may have a
/// descriptor and a thread.
const MAX_PENDING: u64 = 1024;

/// Descriptors kept free besides: the server's own, and files that are read.
const SPARE_DESCRIPTORS: u64 = 64;

/// Threads kept free besides: the server's own, and those that write to a slow WebSocket.
const SPARE_THREADS: u64 = 64;

/// Memory maps of a thread, measured with glibc 2.36: 4,000 more for 1,000 clients.
const MAPS_PER_THREAD: u64 = 4;

/// What Linux allows a process at most (`fs.nr_open`), where the limit itself is 'unlimited'.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// Something that clients use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceLimit {
    name: &'static str,
    limit: u64,
    /// What is kept free for everything but clients.
    spare: u64,
    per_client: u64,
}

impl ResourceLimit {
    /// For how many clients it is enough. Of a low limit at least half is for them.
    pub fn clients(&self) -> usize {
        ((self.limit - self.spare.min(self.limit / 2)) / self.per_client).max(1) as usize
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.limit, self.name)
    }
}

/// For how many there is room.
#[derive(Debug)]
pub struct Room {
    /// What allows the fewest clients.
    pub tightest: ResourceLimit,
    /// How many connections may be pending: an eighth of the lowest limit, 1,024 at most. (Of a low
    /// limit [`ResourceLimit::clients`] leaves half.)
    pub max_pending: usize,
}

/// Reads the limits, for clients of `threads_per_client` threads. The soft limit of descriptors is
/// raised to the hard one first.
pub fn room(threads_per_client: u64) -> Room {
    let mut limits = vec![ResourceLimit {
        name: "open descriptors (RLIMIT_NOFILE)",
        limit: raise_descriptor_limit().unwrap_or(MAX_DESCRIPTORS),
        spare: SPARE_DESCRIPTORS + MAX_PENDING,
        per_client: 1,
    }];
    // Threads limit twice: by their number, and by the maps that they take.
    limits.extend(thread_limits().into_iter().map(|(name, limit)| ResourceLimit {
        name,
        limit,
        spare: SPARE_THREADS + MAX_PENDING,
        per_client: threads_per_client,
    }));
    limits.extend(number("/proc/sys/vm/max_map_count").map(|limit| ResourceLimit {
        name: "memory maps (vm.max_map_count)",
        limit,
        spare: (SPARE_THREADS + MAX_PENDING) * MAPS_PER_THREAD,
        per_client: threads_per_client * MAPS_PER_THREAD,
    }));
    // A pending connection has one thread, whatever a client has, and keeps its descriptor when it
    // becomes a client.
    let pending =
        |limit: &ResourceLimit| limit.limit / (limit.per_client / threads_per_client).max(1);
    let fewest = limits.iter().map(pending).min().unwrap_or(0);
    let max_pending = (fewest / 8).clamp(4, MAX_PENDING) as usize;
    let tightest =
        limits.into_iter().min_by_key(ResourceLimit::clients).expect("descriptors at least");
    Room { tightest, max_pending }
}

/// The most descriptors that this process may ever have open; `None`: as many as the system allows.
pub fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the soft limit of open descriptors to the hard one. Returns the limit in force, or `None`
/// where there is none.
fn raise_descriptor_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        // macOS refuses to go beyond a number of its own.
        Err(_) => current,
    }
}

/// Every limit of threads that applies. Where Linux's files are missing, they limit nothing.
fn thread_limits() -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    // The kernel exempts root. This leaves out root of a user namespace (a container without
    // privileges), who is bound, and others with CAP_SYS_RESOURCE or CAP_SYS_ADMIN, who are not.
    if !geteuid().is_root() {
        let limit = getrlimit(Resource::Nproc).current;
        found.extend(limit.map(|limit| ("threads of this user (RLIMIT_NPROC)", limit)));
    }
    for (name, file) in [
        ("threads of the system (kernel.threads-max)", "/proc/sys/kernel/threads-max"),
        // Every thread has a process id of its own.
        ("process ids of the system (kernel.pid_max)", "/proc/sys/kernel/pid_max"),
    ] {
        found.extend(number(file).map(|limit| (name, limit)));
    }
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = pids_max(Path::new("/sys/fs/cgroup"), &cgroup);
    let name = "tasks of the control group (pids.max)";
    found.extend(limits.into_iter().map(|limit| (name, limit)));
    found
}

/// How many tasks the control group of this process may have, and each group above it (version 2).
/// `cgroup` is the text of `/proc/self/cgroup`, `root` where the groups are mounted.
fn pids_max(root: &Path, cgroup: &str) -> Vec<u64> {
    let Some(path) = cgroup.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    // In a container the path may be the host's. Groups that are not there are passed over.
    let groups = Path::new(path).ancestors();
    groups.filter_map(|group| number(root.join(group).join("pids.max"))).collect()
}

/// The number that is all of a file's text; `None` for another text, such as `max`, or no file.
fn number(file: impl AsRef<Path>) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_is_left_without_the_spare_part() {
        let clients = |limit, spare, per_client| {
            ResourceLimit { name: "threads", limit, spare, per_client }.clients()
        };
        assert_eq!(clients(20_000, 256, 2), 9_872);
        assert_eq!(clients(65_468, 256, 4), 16_303);
        // Half of a low limit.
        assert_eq!(clients(128, 256, 2), 32);
        assert_eq!(clients(60, 64, 1), 30);
        // A server for nobody is none.
        assert_eq!(clients(0, 64, 1), 1);
    }

    #[test]
    fn more_threads_per_client_leave_room_for_fewer() {
        let [one, two] = [1, 2].map(room);
        assert!(two.tightest.clients() <= one.tightest.clients());
    }

    #[test]
    fn control_groups_count_up_to_the_root() {
        let root = std::env::temp_dir().join(format!("threadcast-limits-{}", std::process::id()));
        let write = |file: &str, content: &str| {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        };
        write("a/b.service/pids.max", "max\n");
        write("a/pids.max", "400\n");
        write("pids.max", "9000\n");
        let limits = |cgroup| pids_max(&root, cgroup);
        assert_eq!(limits("0::/a/b.service\n"), [400, 9000]);
        assert_eq!(limits("8:pids:/old\n0::/\n"), [9000]);
        // As in a container: the path is the host's, the files are below the root.
        assert_eq!(limits("0::/elsewhere/scope\n"), [9000]);
        assert!(limits("no cgroups\n").is_empty());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
