//! System calls for which no maintained crate has a safe function: all of the crate's `unsafe`.
//!
//! A socket comes as a borrowed descriptor, so it is open for the length of the call. No call waits.
//! Elsewhere than on Linux each of them does nothing.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// The kernel's account of a TCP connection (tcp(7): `TCP_INFO`).
#[cfg(target_os = "linux")]
pub(super) fn tcp_info(socket: &impl AsFd) -> Option<libc::tcp_info> {
    use std::os::fd::AsRawFd;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the structure is integers only, for which zero is a value; the kernel writes at most
    // `length` bytes of it.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let target = (&raw mut info).cast();
        let result = libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, target, &mut length);
        (result == 0).then_some(info)
    }
}

/// Bytes that were written to the socket and are not acknowledged (tcp(7): `SIOCOUTQ`).
#[cfg(target_os = "linux")]
pub(super) fn unacknowledged_bytes(socket: &impl AsFd) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one `c_int`. SIOCOUTQ is TIOCOUTQ by another name.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    u64::try_from(bytes).ok().filter(|_| result == 0)
}

/// Keeps connections that have not sent anything out of `accept` for up to `timeout` (tcp(7):
/// `TCP_DEFER_ACCEPT`): whoever is accepted has most likely sent its request.
///
/// # Errors
/// What `setsockopt` says.
pub fn defer_accept(listener: &impl AsFd, timeout: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let seconds = timeout.as_secs().clamp(1, 3600) as libc::c_int;
        let (fd, length) = (listener.as_fd().as_raw_fd(), size_of::<libc::c_int>());
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        let value = (&raw const seconds).cast();
        // SAFETY: the kernel reads one `c_int`, whose length is told.
        if unsafe { libc::setsockopt(fd, level, option, value, length as libc::socklen_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let _ = (listener, timeout);
    Ok(())
}

/// What threads have taken so far (getrusage(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on processors.
    pub cpu: Duration,
    /// How often one went to sleep.
    pub voluntary: u64,
    /// How often the kernel gave its processor to another thread.
    pub involuntary: u64,
}

impl std::ops::Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }
}

/// What the threads of this process have taken but for the calling one.
#[cfg(feature = "page")]
pub fn usage_of_others() -> Usage {
    #[cfg(target_os = "linux")]
    {
        let of = |who| {
            // SAFETY: the structure is integers only, for which zero is a value; the kernel fills it in.
            let usage = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                libc::getrusage(who, &raw mut usage);
                usage
            };
            let time = |time: libc::timeval| {
                Duration::from_secs(time.tv_sec.unsigned_abs())
                    + Duration::from_micros(time.tv_usec.unsigned_abs())
            };
            Usage {
                cpu: time(usage.ru_utime) + time(usage.ru_stime),
                voluntary: usage.ru_nvcsw.unsigned_abs(),
                involuntary: usage.ru_nivcsw.unsigned_abs(),
            }
        };
        // This one first: what it takes meanwhile counts as the others', and the difference is never below zero.
        let own = of(libc::RUSAGE_THREAD);
        of(libc::RUSAGE_SELF) - own
    }
    #[cfg(not(target_os = "linux"))]
    Usage::default()
}

/// Sets glibc's allocator up for a server: large blocks go back to the system when they are freed,
/// also after the first, and there are no more arenas than processors.
pub fn set_up_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: `mallopt` sets numbers.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
            libc::mallopt(libc::M_ARENA_MAX, processors as libc::c_int);
        }
    }
}

/// Gives memory that was freed, and that glibc's allocator keeps, back to the system.
pub(super) fn trim_allocator() {
    // SAFETY: `malloc_trim` takes the allocator's own locks and moves nothing that is in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Enlarges the kernel's hash table of this process's sleeping threads. Linux 6.16 and later give
/// each process one of its own, which has 16 chains on two processors. 5,000 SSE clients, one after
/// another: 260 to 278 µs of the server's CPU time each; with 1,024 chains 205 to 229.
pub fn enlarge_futex_hash() {
    #[cfg(target_os = "linux")]
    {
        // include/uapi/linux/prctl.h: PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, 1024 slots.
        const ZERO: libc::c_ulong = 0;
        // SAFETY: integers only; a kernel that does not know the option refuses it.
        unsafe { libc::prctl(78, 1 as libc::c_ulong, 1024 as libc::c_ulong, ZERO, ZERO) };
    }
}
