//! What the kernel knows of a TCP connection's peer. Nothing here waits.

use std::os::fd::AsFd;

#[cfg(target_os = "linux")]
use super::sys;

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
    if let Some(info) = sys::tcp_info(socket) {
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
        // In this order: bytes acknowledged in between are missing in both, not counted twice.
        let acknowledged = sys::tcp_info(socket)?.tcpi_bytes_acked;
        let waiting = sys::unacknowledged_bytes(socket)?;
        Some(SendQueue { acknowledged, waiting })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}
