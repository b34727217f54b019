//! The few kernel calls the standard library does not offer: clocks, timers, limits.
//!
//! This is the only file with `unsafe` in it. Every block passes plain integers or a pointer to a
//! local variable that outlives the call; nothing here keeps a pointer.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::procfs::Switches;

/// Nanoseconds since an arbitrary start, the same for every process of this machine.
///
/// `std::time::Instant` is the same clock but hides its value, and the stamp of an event has to
/// cross a process boundary as a number.
pub fn monotonic_ns() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// CPU time of the calling thread, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

/// CPU time of this whole process, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or(0)
}

fn read_clock(id: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call; an unknown clock id
    // makes the call fail, it does not make it write elsewhere.
    let answer = unsafe { libc::clock_gettime(id, &mut time) };
    (answer == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The CPU clock of another process: all its threads, the ended ones too, in nanoseconds.
///
/// Nothing else gives both. `/proc/PID/stat` counts in ticks of 10 ms, `/proc/PID/schedstat` knows
/// the first thread only, and a sum over `/proc/PID/task` forgets threads that have ended, which in
/// a server with a thread per request is where part of the work was done.
#[derive(Clone, Copy)]
pub struct ProcessClock(libc::clockid_t);

impl ProcessClock {
    /// Finds the clock of `pid`; `None` if the kernel does not hand it out.
    pub fn of(pid: u32) -> Option<Self> {
        let mut id: libc::clockid_t = 0;
        // SAFETY: `id` is a valid, writable clockid_t for the length of the call.
        let answer = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut id) };
        let clock = Self(id);
        (answer == 0 && clock.read().is_some()).then_some(clock)
    }

    /// Its value now; `None` once the process is gone.
    pub fn read(self) -> Option<u64> {
        read_clock(self.0)
    }
}

/// Length of one tick of `/proc/PID/stat` in nanoseconds.
pub fn tick_ns() -> u64 {
    // SAFETY: takes and returns plain integers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(per_second).unwrap_or(100).max(1)
}

/// Lifts the soft limit on open descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable rlimit for the length of the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit, read only.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0 {
        limit.rlim_max
    } else {
        before
    }
}

/// Makes the calling thread's sleeps end on time: the default slack lets them run 50 µs over.
pub fn precise_sleeps() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and touches only the calling thread's slack.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Restricts the calling thread, and all it starts, to the CPUs for which `wanted` says yes.
pub fn run_on(wanted: impl Fn(usize) -> bool) -> io::Result<()> {
    // SAFETY: a cpu_set_t is an array of integers, for which all zeros is a valid value: no CPU.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in (0..libc::CPU_SETSIZE as usize).filter(|&cpu| wanted(cpu)) {
        // SAFETY: `set` is valid, and `cpu` is below CPU_SETSIZE, the number of bits in it.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is valid for reading, and its true size is given; 0 is the calling thread.
    let answer = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the kernel end what `command` starts when the calling thread ends, however it ends.
pub fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let ask = || {
        // SAFETY: takes integers and touches only the calling process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) };
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; `ask` is one system
    // call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: takes integers. Callers name processes they have started.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Takes leave of a child that has ended: its context switches, all threads, all its life, and
/// those of its own children. `None` while it still runs.
pub fn reap(pid: u32) -> Option<Switches> {
    let mut status = 0;
    // SAFETY: a rusage consists of integers, for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `status` and `usage` are valid and writable for the length of the call.
    let answer = unsafe { libc::wait4(pid as libc::pid_t, &mut status, libc::WNOHANG, &mut usage) };
    if answer == 0 {
        return None;
    }
    // An error means that it has been waited for already: it is gone, its account too.
    Some(Switches {
        voluntary: usage.ru_nvcsw as u64,
        involuntary: usage.ru_nivcsw as u64,
        waited: 0,
    })
}

/// A timer that makes a descriptor readable, for an event loop that needs better than the
/// milliseconds of `epoll_wait`.
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set yet.
    pub fn new() -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: takes and returns plain integers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Fires once at `at` on the clock of [`monotonic_ns`]; a time already past fires at once.
    pub fn set(&self, at: u64) -> io::Result<()> {
        // A zero would switch the timer off.
        let at = at.max(1);
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: (at / 1_000_000_000) as libc::time_t,
                tv_nsec: (at % 1_000_000_000) as libc::c_long,
            },
        };
        let fd = self.0.as_raw_fd();
        // SAFETY: `fd` is our open timer, `spec` is valid and only read, the old value is not asked
        // for (null is allowed there).
        let answer = unsafe {
            libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &spec, std::ptr::null_mut())
        };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_clock_by_pid_agrees_with_the_direct_one() {
        let clock = ProcessClock::of(std::process::id()).expect("own clock");
        let before = own_cpu_ns();
        let by_pid = clock.read().expect("own clock");
        assert!(by_pid >= before && by_pid <= own_cpu_ns());
    }

    #[test]
    fn a_timer_fires_not_before_its_time() {
        let timer = Timer::new().expect("timerfd");
        let mut poll = mio::Poll::new().expect("epoll");
        let source = timer.as_raw_fd();
        poll.registry()
            .register(&mut mio::unix::SourceFd(&source), mio::Token(0), mio::Interest::READABLE)
            .expect("register");
        let at = monotonic_ns() + 3_000_000;
        timer.set(at).expect("set");
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(std::time::Duration::from_secs(2))).expect("poll");
        assert!(!events.is_empty() && monotonic_ns() >= at);
    }
}
