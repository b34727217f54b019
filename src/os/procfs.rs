//! `/proc/self`, where Linux tells what this process has. Elsewhere there is nothing to read.

/// The text of `status`; empty where there is none.
pub fn read() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// The first word behind a name, which is given with its colon, in such a text.
pub fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
}

/// The same as a number.
pub fn number(status: &str, name: &str) -> Option<u64> {
    field(status, name).and_then(|word| word.parse().ok())
}

/// What the system knows of this process; 0 where it does not tell (only Linux does).
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessInfo {
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessInfo {
    /// Looks now.
    pub fn read() -> ProcessInfo {
        let status = read();
        let number = |name| number(&status, name).unwrap_or(0);
        ProcessInfo { resident_bytes: number("VmRSS:") * 1024, threads: number("Threads:") }
    }
}

/// Open descriptors of this process: counted one by one, so not for those who ask often. 0 where
/// the system does not tell.
pub fn open_descriptors() -> u64 {
    // The listing's own does not count.
    std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let status = "Name:\tThreads: 9\nVmRSS:\t    1234 kB\nThreads:\t7\nFDSize:\n";
        assert_eq!(field(status, "VmRSS:"), Some("1234"));
        assert_eq!(number(status, "VmRSS:"), Some(1234));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(number(status, "Name:"), None);
        assert_eq!(field(status, "FDSize:"), None);
        assert_eq!(field("", "VmRSS:"), None);
    }
}
