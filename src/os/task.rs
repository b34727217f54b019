//! What the kernel tells about the threads of this process: `/proc/self/task` (proc(5)). A process may always
//! read this about itself. Only Linux tells it; elsewhere there is nothing to read. Nothing here waits.

use std::time::Duration;

/// How long a thread has run and waited for a processor, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// On a processor.
    pub cpu: Duration,
    /// Runnable, waiting for a processor.
    pub queued: Duration,
    /// How often it got one.
    pub turns: u64,
}

/// What a thread is, and how often it has left its processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name; the kernel keeps 15 bytes.
    pub name: String,
    /// `R` runs or waits for a processor, `S` sleeps, `D` sleeps and cannot be woken by a signal; see ps(1).
    pub state: char,
    /// How often it went to sleep, where the kernel tells.
    pub voluntary: Option<u64>,
    /// How often the kernel gave its processor to another thread, where it tells.
    pub involuntary: Option<u64>,
}

/// What a thread waits for, as far as its system call says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// In none: it runs, or waits for a processor.
    Running,
    /// Bytes.
    Read,
    /// Room for bytes, or a disk that takes them.
    Write,
    /// Another thread of this process: a lock, a condition, or to be unparked.
    Futex,
    /// One of several descriptors.
    Poll,
    /// A connection.
    Accept,
    /// A time.
    Sleep,
    /// Something else.
    Other,
}

/// The kernel's number of the calling thread, by which [`list`] names it; 0 where there is none.
pub fn this_thread() -> u32 {
    #[cfg(target_os = "linux")]
    return rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    #[cfg(not(target_os = "linux"))]
    0
}

/// All threads of this process.
pub fn list() -> Vec<u32> {
    let all = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    all.filter_map(|one| one.file_name().to_str()?.parse().ok()).collect()
}

/// The cheapest of these questions. A thread whose times have not changed has not run; `None` where it has
/// ended, or the kernel does not tell.
pub fn times(thread: u32) -> Option<Times> {
    parse_times(&read(thread, "schedstat")?)
}

/// See [`Status`]; `None` where the thread has ended.
pub fn status(thread: u32) -> Option<Status> {
    parse_status(&read(thread, "status")?)
}

/// What the thread waits for, and the name of its system call where that is a usual one; `None` where the
/// thread has ended, or the kernel does not tell.
pub fn call(thread: u32) -> Option<(Wait, Option<&'static str>)> {
    parse_call(&read(thread, "syscall")?)
}

/// How long ago the thread was started; `None` where it has ended.
pub fn age(thread: u32) -> Option<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let age = uptime - parse_start(&read(thread, "stat")?)?;
    Some(Duration::from_secs_f64(age.max(0.0)))
}

fn read(thread: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok()
}

fn parse_times(text: &str) -> Option<Times> {
    let mut numbers = text.split_whitespace().map(|one| one.parse::<u64>());
    let mut next = || numbers.next()?.ok();
    let (cpu, queued) = (Duration::from_nanos(next()?), Duration::from_nanos(next()?));
    Some(Times { cpu, queued, turns: next()? })
}

fn parse_status(text: &str) -> Option<Status> {
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    Some(Status {
        name: value("Name")?.to_owned(),
        state: value("State")?.chars().next()?,
        voluntary: value("voluntary_ctxt_switches").and_then(|count| count.parse().ok()),
        involuntary: value("nonvoluntary_ctxt_switches").and_then(|count| count.parse().ok()),
    })
}

/// The first word is the call's number: -1 for a thread that is blocked outside of one, `running` for one
/// that runs. What follows are arguments and addresses, which nobody is told.
fn parse_call(text: &str) -> Option<(Wait, Option<&'static str>)> {
    let word = text.split_whitespace().next()?;
    if word == "running" {
        return Some((Wait::Running, None));
    }
    let number: i64 = word.parse().ok()?;
    let known = CALLS.iter().find(|(known, ..)| *known == number);
    Some(known.map_or((Wait::Other, None), |(_, name, wait)| (*wait, Some(*name))))
}

/// Field 22 of `stat`, in seconds after the start of the system: the kernel tells it in hundredths. The name
/// in front may hold anything, also `)`.
fn parse_start(text: &str) -> Option<f64> {
    let (_, behind_name) = text.rsplit_once(')')?;
    let ticks: f64 = behind_name.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks / 100.0)
}

/// The calls in which threads of a server wait.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
const CALLS: &[(i64, &str, Wait)] = &[
    (libc::SYS_recvfrom, "recvfrom", Wait::Read),
    (libc::SYS_recvmsg, "recvmsg", Wait::Read),
    (libc::SYS_read, "read", Wait::Read),
    (libc::SYS_readv, "readv", Wait::Read),
    (libc::SYS_sendto, "sendto", Wait::Write),
    (libc::SYS_sendmsg, "sendmsg", Wait::Write),
    (libc::SYS_write, "write", Wait::Write),
    (libc::SYS_writev, "writev", Wait::Write),
    (libc::SYS_sendfile, "sendfile", Wait::Write),
    (libc::SYS_fsync, "fsync", Wait::Write),
    (libc::SYS_fdatasync, "fdatasync", Wait::Write),
    (libc::SYS_futex, "futex", Wait::Futex),
    (libc::SYS_ppoll, "ppoll", Wait::Poll),
    (libc::SYS_epoll_pwait, "epoll_pwait", Wait::Poll),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", Wait::Poll),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait", Wait::Poll),
    (libc::SYS_accept, "accept", Wait::Accept),
    (libc::SYS_accept4, "accept4", Wait::Accept),
    (libc::SYS_nanosleep, "nanosleep", Wait::Sleep),
    (libc::SYS_clock_nanosleep, "clock_nanosleep", Wait::Sleep),
];
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
const CALLS: &[(i64, &str, Wait)] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_understood() {
        let status = "Name:\tws (State: 1\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t7\n\
                      nonvoluntary_ctxt_switches:\t2\n";
        let status = parse_status(status).unwrap();
        assert_eq!((&*status.name, status.state), ("ws (State: 1", 'D'));
        assert_eq!((status.voluntary, status.involuntary), (Some(7), Some(2)));
        let old = parse_status("Name:\ta\nState:\tS (sleeping)\n").unwrap();
        assert_eq!((old.voluntary, old.involuntary), (None, None));
        let times = parse_times("1019232 651616 2\n").unwrap();
        assert_eq!(
            (times.cpu.as_nanos(), times.queued.as_nanos(), times.turns),
            (1_019_232, 651_616, 2)
        );
        assert_eq!(parse_times("1 2"), None);
        let stat =
            "654 (a) b) S 639 639 26286 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0 4072250 3133440 381";
        assert_eq!(parse_start(stat), Some(40_722.5));
    }

    #[test]
    fn only_the_number_of_a_call_counts() {
        assert_eq!(parse_call("running\n"), Some((Wait::Running, None)));
        assert_eq!(parse_call("-1 0x7ffd 0x7f2f\n"), Some((Wait::Other, None)));
        assert_eq!(parse_call("0x3\n"), None);
        assert_eq!(parse_call(""), None);
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        {
            assert_eq!(parse_call("45 0x3 0x7f58\n"), Some((Wait::Read, Some("recvfrom"))));
            assert_eq!(parse_call("202 0x0\n"), Some((Wait::Futex, Some("futex"))));
            assert_eq!(parse_call("9999 0x3\n"), Some((Wait::Other, None)));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_thread_is_among_those_of_the_process() {
        let this = this_thread();
        assert!(list().contains(&this));
        assert_eq!(status(this).unwrap().state, 'R');
        assert!(age(this).unwrap() < Duration::from_secs(3600));
        // This thread has ended, or has never been.
        assert_eq!((status(u32::MAX), times(u32::MAX)), (None, None));
    }
}
