//! How many clients there is room for, read off what the system lets this process have.
//!
//! A client costs one descriptor and a thread (a WebSocket in `handoff`
//! mode two), and a thread four memory maps: its stack, the stack that its signal handlers use,
//! and a guard page below each. Whichever runs out first decides. That it does not run out is
//! worth the arithmetic: without a descriptor no connection is accepted, and a thread that gets no
//! map for its signal stack takes the whole process down (Rust's runtime aborts).

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[cfg(target_os = "linux")]
use crate::os::procfs;

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
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// Something that clients use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceLimit {
    name: &'static str,
    limit: u64,
    used: u64,
    spare: u64,
    per_client: u64,
}

impl ResourceLimit {
    /// For how many clients it is enough. Of a small rest at least half is for them.
    pub fn clients(&self) -> usize {
        let free = self.limit.saturating_sub(self.used);
        ((free - self.spare.min(free / 2)) / self.per_client).max(1) as usize
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.limit, self.name)?;
        if self.used > 0 { write!(f, ", {} in use", self.used) } else { Ok(()) }
    }
}

/// For how many there is room.
#[derive(Debug)]
pub struct Room {
    /// What allows the fewest clients.
    pub tightest: ResourceLimit,
    /// How many connections may be pending: an eighth of what there is for all, 1,024 at most. (Of
    /// a small supply [`ResourceLimit::clients`] leaves half.)
    pub max_pending: usize,
}

/// Reads off for how many there is room, where a client has so many threads, and raises what may be raised for it.
pub fn room(threads_per_client: u64) -> Room {
    let descriptors = ResourceLimit {
        name: "open descriptors (RLIMIT_NOFILE)",
        limit: raise_descriptor_limit().unwrap_or(MOST_DESCRIPTORS),
        // Those that are open now are among the spare ones.
        used: 0,
        spare: SPARE_DESCRIPTORS + MAX_PENDING,
        per_client: 1,
    };
    let mut supplies = vec![descriptors];
    supplies.extend(threads(threads_per_client));
    supplies.extend(maps(threads_per_client));
    // A pending connection has one thread, whatever a client has. The same descriptor serves both.
    let pending = |supply: &ResourceLimit| {
        let per_connection = (supply.per_client / threads_per_client).max(1);
        supply.limit.saturating_sub(supply.used) / per_connection
    };
    let fewest = supplies.iter().map(pending).min().unwrap_or(0);
    let max_pending = (fewest / 8).clamp(4, MAX_PENDING) as usize;
    let tightest =
        supplies.into_iter().min_by_key(ResourceLimit::clients).expect("descriptors at least");
    Room { tightest, max_pending }
}

/// The most descriptors that this process may ever have open; `None`: as many as the system allows.
pub fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the soft limit of open descriptors to the hard one: every client costs one or two.
///
/// Returns the limit in force, or `None` where there is none.
pub fn raise_descriptor_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// Every limit of threads that applies.
#[cfg(target_os = "linux")]
fn threads(per_client: u64) -> Vec<ResourceLimit> {
    use linux::{all_threads, cgroup_tasks, nproc_applies, number, text};
    let supply = |name, limit, used| ResourceLimit {
        name,
        limit,
        used,
        spare: SPARE_THREADS + MAX_PENDING,
        per_client,
    };
    let status = procfs::read();
    let mut found = Vec::new();
    if nproc_applies(&status, &text("/proc/self/uid_map")) {
        // It counts the threads of all the user's processes; of those only ours are known.
        let ours = procfs::number(&status, "Threads:").unwrap_or(0);
        let limit = getrlimit(Resource::Nproc).current;
        found.extend(limit.map(|limit| supply("threads of this user (RLIMIT_NPROC)", limit, ours)));
    }
    let all = all_threads(&text("/proc/loadavg")).unwrap_or(0);
    for (name, file) in [
        ("threads of the system (kernel.threads-max)", "/proc/sys/kernel/threads-max"),
        // Every thread has a process id of its own.
        ("process ids of the system (kernel.pid_max)", "/proc/sys/kernel/pid_max"),
    ] {
        found.extend(number(&text(file)).map(|limit| supply(name, limit, all)));
    }
    let groups = cgroup_tasks(std::path::Path::new("/sys/fs/cgroup"), &text("/proc/self/cgroup"));
    let name = "tasks of the control group (pids.max)";
    found.extend(groups.into_iter().map(|(limit, used)| supply(name, limit, used)));
    found
}

#[cfg(target_os = "linux")]
fn maps(threads_per_client: u64) -> Option<ResourceLimit> {
    use linux::{number, text};
    let limit = number(&text("/proc/sys/vm/max_map_count"))?;
    Some(ResourceLimit {
        name: "memory maps (vm.max_map_count)",
        limit,
        used: text("/proc/self/maps").lines().count() as u64,
        spare: (SPARE_THREADS + MAX_PENDING) * MAPS_PER_THREAD,
        per_client: threads_per_client * MAPS_PER_THREAD,
    })
}

/// Elsewhere the limit of the user's threads is the only one that can be read in the same way.
#[cfg(not(target_os = "linux"))]
fn threads(per_client: u64) -> Vec<ResourceLimit> {
    let name = "threads of this user (RLIMIT_NPROC)";
    let limit = getrlimit(Resource::Nproc).current;
    let supply = |limit| ResourceLimit {
        name,
        limit,
        used: 0,
        spare: SPARE_THREADS + MAX_PENDING,
        per_client,
    };
    limit.map(supply).into_iter().collect()
}

#[cfg(not(target_os = "linux"))]
fn maps(_: u64) -> Option<ResourceLimit> {
    None
}

/// What Linux tells in files. A file that is not there, or says `max`, limits nothing.
#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;

    use crate::os::procfs::field;

    /// The capabilities that lift `RLIMIT_NPROC`, as bits: `CAP_SYS_ADMIN`, `CAP_SYS_RESOURCE`.
    const ABOVE_NPROC: u64 = 1 << 21 | 1 << 24;

    pub fn text(path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    pub fn number(text: &str) -> Option<u64> {
        text.trim().parse().ok()
    }

    /// Whether the limit of the user's threads binds this process: not root, and not those with
    /// one of two capabilities, but only where these are the real ones. In a user namespace (a
    /// container without privileges) root is an ordinary user for this.
    pub fn nproc_applies(status: &str, uid_map: &str) -> bool {
        let is_real = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
        let is_root = field(status, "Uid:") == Some("0");
        let capabilities =
            field(status, "CapEff:").and_then(|all| u64::from_str_radix(all, 16).ok());
        let is_above = capabilities.unwrap_or(0) & ABOVE_NPROC != 0;
        !(is_real && (is_root || is_above))
    }

    /// The threads of the whole system: behind the slash of the fourth word of `/proc/loadavg`.
    pub fn all_threads(loadavg: &str) -> Option<u64> {
        let (_running, all) = loadavg.split_whitespace().nth(3)?.split_once('/')?;
        number(all)
    }

    /// For the control group of this process and each above it: how many tasks there may be, and
    /// how many there are. `cgroup` is `/proc/self/cgroup`, `root` where the groups are mounted.
    pub fn cgroup_tasks(root: &Path, cgroup: &str) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for line in cgroup.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let mount = match controllers {
                // Version 2.
                "" => root.to_owned(),
                _ if controllers.split(',').any(|one| one == "pids") => root.join("pids"),
                _ => continue,
            };
            for group in Path::new(path.trim_start_matches('/')).ancestors() {
                let group = mount.join(group);
                let limit = number(&text(group.join("pids.max")));
                let used = number(&text(group.join("pids.current"))).unwrap_or(0);
                found.extend(limit.map(|limit| (limit, used)));
            }
        }
        found
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const EVERYBODY: &str = "         0          0 4294967295\n";

        #[test]
        fn root_and_the_capable_are_above_the_limit_of_threads() {
            let status = |uid, capabilities| {
                format!("Name:\tx\nUid:\t{uid}\t0\t0\t0\nThreads:\t7\nCapEff:\t{capabilities}\n")
            };
            let nothing = "0000000000000000";
            assert_eq!(field(&status(0, nothing), "Threads:"), Some("7"));
            for (uid, capabilities, uid_map, applies) in [
                (1000, nothing, EVERYBODY, true),
                (1000, "0000000000000400", EVERYBODY, true),
                (0, nothing, EVERYBODY, false),
                (1000, "0000000000200000", EVERYBODY, false),
                (1000, "0000000001000000", EVERYBODY, false),
                (0, "000001ffffffffff", "0 100000 65536\n", true),
                (0, "000001ffffffffff", "0 1000 1\n1 100000 65536\n", true),
            ] {
                let status = status(uid, capabilities);
                assert_eq!(nproc_applies(&status, uid_map), applies, "{status} {uid_map}");
            }
        }

        #[test]
        fn the_load_tells_how_many_threads_there_are() {
            assert_eq!(all_threads("0.71 0.87 4.39 1/205 12964\n"), Some(205));
            assert_eq!(all_threads("0.71 0.87"), None);
            assert_eq!(all_threads(""), None);
        }

        #[test]
        fn control_groups_count_up_to_the_root() {
            let root =
                std::env::temp_dir().join(format!("threadcast-limits-{}", std::process::id()));
            let write = |file: &str, content: &str| {
                let file = root.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, content).unwrap();
            };
            write("a/b.service/pids.max", "max\n");
            write("a/b.service/pids.current", "5\n");
            write("a/pids.max", "400\n");
            write("a/pids.current", "12\n");
            write("pids.max", "9000\n");
            write("pids/old/pids.max", "77\n");
            let tasks = |cgroup| cgroup_tasks(&root, cgroup);
            assert_eq!(tasks("0::/a/b.service\n"), [(400, 12), (9000, 0)]);
            // As in a container: the path is the host's, the files are below the root.
            assert_eq!(tasks("0::/elsewhere/scope\n"), [(9000, 0)]);
            // Version 1, alone, and with version 2 for other controllers.
            assert_eq!(tasks("8:cpu,pids:/old\n1:cpu:/a\n"), [(77, 0)]);
            assert_eq!(tasks("8:pids:/old\n0::/\n"), [(77, 0), (9000, 0)]);
            assert_eq!(tasks("no cgroups\n"), []);
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_is_left_without_the_spare_part() {
        let supply = |limit, used, spare, per_client| {
            ResourceLimit { name: "threads", limit, used, spare, per_client }.clients()
        };
        assert_eq!(supply(20_000, 0, 256, 2), 9_872);
        assert_eq!(supply(65_530, 62, 256, 4), 16_303);
        // Half of a small rest.
        assert_eq!(supply(128, 0, 256, 2), 32);
        assert_eq!(supply(100, 40, 64, 1), 30);
        // A server for nobody is none.
        assert_eq!(supply(10, 400, 64, 1), 1);
    }

    #[test]
    fn more_threads_per_client_leave_room_for_fewer() {
        let [one, two] = [1, 2].map(room);
        assert!(two.tightest.clients() <= one.tightest.clients());
    }
}
