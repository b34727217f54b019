//! What the kernel tells about the server's process.

use std::collections::HashMap;
use std::fs;

use crate::error::{Failure, Result};
use crate::sys::{ProcessClock, tick_ns};

/// The process under test, with all that it has started: a server may have several.
pub struct Server {
    members: Vec<Member>,
}

struct Member {
    pid: u32,
    clock: Option<ProcessClock>,
}

/// Context switches, and what they cost in waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// It waited for something.
    pub voluntary: u64,
    /// It was made to wait.
    pub involuntary: u64,
    /// Nanoseconds it was ready to run and had no CPU. Where this is large, the generator or
    /// somebody else was in the way, and latencies say as much about the machine as about the
    /// server.
    pub waited: u64,
}

/// The threads of a process at one moment.
#[derive(Default)]
pub struct Tasks(HashMap<u32, Switches>);

impl Tasks {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// All switches of the threads that are alive, since each of them began.
    pub fn total(&self) -> Switches {
        self.since(&Self::default())
    }

    /// Switches since `earlier`, of the threads that are alive now. What threads did that ended
    /// in between is not known before the process has ended too: see `compare/process.rs`.
    pub fn since(&self, earlier: &Self) -> Switches {
        self.0.iter().fold(Switches::default(), |sum, (id, now)| {
            let before = earlier.0.get(id).copied().unwrap_or_default();
            Switches {
                voluntary: sum.voluntary + now.voluntary.saturating_sub(before.voluntary),
                involuntary: sum.involuntary + now.involuntary.saturating_sub(before.involuntary),
                waited: sum.waited + now.waited.saturating_sub(before.waited),
            }
        })
    }
}

impl Server {
    /// Looks up `pid`; without one there is nothing to read.
    pub fn find(pid: Option<u32>) -> Result<Option<Self>> {
        let Some(pid) = pid else { return Ok(None) };
        let member = |pid| Member { pid, clock: ProcessClock::of(pid) };
        let server = Self { members: tree(pid).into_iter().map(member).collect() };
        if server.cpu_ns().is_none() {
            return Err(Failure::new(
                format!("there is no process {pid} to read figures from"),
                "give --pid the number of the running server, or leave it out",
            ));
        }
        Ok(Some(server))
    }

    /// CPU time so far, from the best clock there is; `None` once a process of them has ended.
    pub fn cpu_ns(&self) -> Option<u64> {
        self.members.iter().map(Member::cpu_ns).sum()
    }

    /// Which clock that is.
    pub fn clock_name(&self) -> &'static str {
        match self.members.iter().all(|member| member.clock.is_some()) {
            true => "clock_gettime on the process CPU clock (ns)",
            false => "utime + stime in /proc/PID/stat (10 ms ticks)",
        }
    }

    /// How many processes they are.
    pub fn processes(&self) -> usize {
        self.members.len()
    }

    /// Its threads now. Two files per thread: not for moments that are being measured.
    pub fn tasks(&self) -> Tasks {
        Tasks(self.members.iter().flat_map(Member::tasks).collect())
    }

    /// Resident memory in KiB. `smaps_rollup` walks the pages; `VmRSS` is a sum of per-CPU
    /// counters that may be some dozens of pages off. Pages that several processes share count
    /// once: each process has its part of them in `Pss`.
    pub fn rss_kib(&self) -> u64 {
        let name = if self.members.len() == 1 { "Rss:" } else { "Pss:" };
        self.members.iter().map(|member| member.rss_kib(name)).sum()
    }

    /// Open descriptors; `None` where they belong to somebody else.
    pub fn descriptors(&self) -> Option<u64> {
        self.members.iter().map(Member::descriptors).sum()
    }
}

impl Member {
    fn cpu_ns(&self) -> Option<u64> {
        match self.clock {
            Some(clock) => clock.read(),
            None => {
                let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
                Some(stat_ticks(&stat)? * tick_ns())
            }
        }
    }

    fn tasks(&self) -> Vec<(u32, Switches)> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return Vec::new();
        };
        let switches = |entry: fs::DirEntry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let voluntary = field(&status, "voluntary_ctxt_switches:")?;
            let involuntary = field(&status, "nonvoluntary_ctxt_switches:")?;
            let schedstat = fs::read_to_string(entry.path().join("schedstat"));
            let waited = schedstat_wait(&schedstat.unwrap_or_default());
            Some((id, Switches { voluntary, involuntary, waited }))
        };
        entries.flatten().filter_map(switches).collect()
    }

    fn rss_kib(&self, name: &str) -> u64 {
        let read = |file, name| {
            field(&fs::read_to_string(format!("/proc/{}/{file}", self.pid)).ok()?, name)
        };
        read("smaps_rollup", name).or_else(|| read("status", "VmRSS:")).unwrap_or(0)
    }

    fn descriptors(&self) -> Option<u64> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?.count() as u64)
    }
}

/// A process and all its descendants, itself first.
pub fn tree(root: u32) -> Vec<u32> {
    let parent_of = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, parent(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
    };
    let parents: Vec<(u32, u32)> =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(parent_of).collect();
    descendants(root, &parents)
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut members = vec![root];
    let mut next = 0;
    while next < members.len() {
        let of = members[next];
        members.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        next += 1;
    }
    members
}

/// The parent: the second field after the name, which may contain spaces and parentheses.
fn parent(stat: &str) -> Option<u32> {
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok()
}

/// The value after `name` at the start of a line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// utime + stime. The name in field 2 may contain spaces and parentheses.
fn stat_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// How long the calling thread has been ready to run without a CPU, in nanoseconds.
pub fn runqueue_wait_ns() -> u64 {
    schedstat_wait(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

/// The second of: time on a CPU, time waiting for one, number of turns.
fn schedstat_wait(text: &str) -> u64 {
    text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let server = Server::find(Some(std::process::id())).expect("self").expect("given");
        assert!(server.cpu_ns().expect("clock") > 0);
        assert!(server.tasks().count() >= 1);
        assert!(server.rss_kib() > 100);
        assert!(server.descriptors().expect("own") >= 3);
    }

    #[test]
    fn a_missing_process_is_an_error() {
        let error = Server::find(Some(0x7fff_fff0)).err().expect("no such process");
        assert!(error.to_string().contains("--pid"), "{error}");
        assert!(Server::find(None).expect("nothing asked").is_none());
    }

    #[test]
    fn parses_stat_with_a_hostile_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 5 6 7";
        assert_eq!(stat_ticks(stat), Some(42));
        assert_eq!(parent(stat), Some(1));
    }

    #[test]
    fn a_tree_is_all_descendants_and_nobody_else() {
        let parents = [(2, 1), (3, 2), (4, 1), (5, 3), (6, 2)];
        assert_eq!(descendants(2, &parents), [2, 3, 6, 5]);
        assert_eq!(descendants(9, &parents), [9]);
        assert!(tree(std::process::id()).contains(&std::process::id()));
    }

    #[test]
    fn switches_count_new_threads_and_forget_ended_ones() {
        let tasks = |list: &[(u32, u64)]| {
            let entry = |&(id, n): &(u32, u64)| {
                (id, Switches { voluntary: n, involuntary: 1, waited: 100 * n })
            };
            Tasks(list.iter().map(entry).collect())
        };
        let before = tasks(&[(1, 10), (2, 10)]);
        let after = tasks(&[(1, 15), (3, 7)]);
        assert_eq!(after.since(&before), Switches { voluntary: 12, involuntary: 1, waited: 1200 });
    }
}
