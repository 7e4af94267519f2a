//! The peak memory of this process, as Linux counts it.

/// A measurement of the peak memory, from its beginning on.
pub struct Peak {
    before: u64,
}

impl Peak {
    pub fn begin() -> Self {
        let _ = std::fs::write("/proc/self/clear_refs", "5"); // resets VmHWM (proc(5)), and other systems show 0
        Self { before: field("VmRSS:") }
    }

    /// Returns by how many bytes the peak exceeds the memory at the beginning.
    pub fn end(self) -> u64 {
        field("VmHWM:").saturating_sub(self.before)
    }
}

fn field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0) * 1024
}
