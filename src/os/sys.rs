//! System calls for which no maintained crate has a safe function. All of the crate's `unsafe` is
//! here. What is done to a socket goes through a borrowed descriptor: it is open, and stays so,
//! for the length of the call.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// What `TCP_INFO` tells about sent data that the peer has not acknowledged (RFC 9293 section 3.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unacknowledged {
    /// Bytes acknowledged since the connection was made: as long as it grows, the peer is there.
    pub acknowledged: u64,
    /// Whether data, or probes of a closed window, have been sent again without an answer. A peer
    /// that is there and reads nothing answers each probe.
    pub is_overdue: bool,
}

/// What the kernel keeps for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendQueue {
    /// See [`Unacknowledged::acknowledged`].
    pub acknowledged: u64,
    /// Bytes that were written and are not acknowledged.
    pub waiting: u64,
}

/// Asks the kernel; all zero where it does not tell (only Linux does).
pub fn unacknowledged(socket: &impl AsFd) -> Unacknowledged {
    #[cfg(target_os = "linux")]
    if let Some(info) = tcp_info(socket) {
        let is_resent = info.tcpi_unacked > 0 && info.tcpi_retransmits > 0;
        return Unacknowledged {
            acknowledged: info.tcpi_bytes_acked,
            is_overdue: is_resent || info.tcpi_probes > 1,
        };
    }
    let _ = socket;
    Unacknowledged::default()
}

/// Asks the kernel; `None` where it does not tell (only Linux does).
pub fn send_queue(socket: &impl AsFd) -> Option<SendQueue> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // In this order: bytes that are acknowledged in between are missing in both, not counted twice.
        let acknowledged = tcp_info(socket)?.tcpi_bytes_acked;
        let mut waiting: libc::c_int = 0;
        // SAFETY: the kernel writes one `c_int` (tcp(7): SIOCOUTQ).
        let result =
            unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
        let waiting = u64::try_from(waiting).ok().filter(|_| result == 0)?;
        Some(SendQueue { acknowledged, waiting })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

#[cfg(target_os = "linux")]
fn tcp_info(socket: &impl AsFd) -> Option<libc::tcp_info> {
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

/// Keeps connections that have not sent anything out of `accept` for up to `timeout`
/// (`TCP_DEFER_ACCEPT`). Does nothing where the option does not exist.
///
/// # Errors
/// What the system says.
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

/// Sets the allocator up for a server (glibc; elsewhere nothing is done): large blocks go back to the
/// system when they are freed, also after the first, and there are no more arenas than processors.
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

/// Gives freed memory that the allocator keeps back to the system (glibc; elsewhere nothing).
pub fn trim_allocator() {
    // SAFETY: `malloc_trim` takes the allocator's own locks and moves nothing that is in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Enlarges the kernel's hash table of this process's sleeping threads (Linux 6.16 and later give
/// each process one of its own, of 16 chains on two processors; thousands of threads sleep here).
pub fn enlarge_futex_hash() {
    #[cfg(target_os = "linux")]
    {
        // include/uapi/linux/prctl.h: PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, 1024 slots.
        const ZERO: libc::c_ulong = 0;
        // SAFETY: integers only; a kernel that does not know the option refuses it.
        unsafe { libc::prctl(78, 1 as libc::c_ulong, 1024 as libc::c_ulong, ZERO, ZERO) };
    }
}
