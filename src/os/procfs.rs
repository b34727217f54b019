//! `/proc/self`, where Linux tells what this process uses. Elsewhere there is nothing to read.

/// Memory and threads of this process; 0 where the system does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessInfo {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Threads that have not ended, the kernel's view: one per client, and the server's own.
    pub threads: u64,
}

impl ProcessInfo {
    /// Reads `/proc/self/status`.
    pub fn read() -> ProcessInfo {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name| number(&status, name).unwrap_or(0);
        ProcessInfo { resident_bytes: number("VmRSS:") * 1024, threads: number("Threads:") }
    }
}

/// The number behind a name, which is given with its colon, in the text of `status`.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Open descriptors of this process: counted one by one, so not for those who ask often. 0 where
/// the system does not tell.
pub fn open_descriptors() -> u64 {
    // The listing's own descriptor does not count.
    std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let status = "Name:\tThreads: 9\nVmRSS:\t    1234 kB\nThreads:\t7\nFDSize:\n";
        assert_eq!(number(status, "VmRSS:"), Some(1234));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(number(status, "Name:"), None);
        assert_eq!(number(status, "FDSize:"), None);
        assert_eq!(number("", "VmRSS:"), None);
    }
}
