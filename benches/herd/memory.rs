//! The peak of this process's memory, as Linux counts it.

/// A measurement of the peak, from its beginning on.
pub struct Peak {
    before: u64,
}

impl Peak {
    pub fn begin() -> Self {
        let _ = std::fs::write("/proc/self/clear_refs", "5"); // resets VmHWM (proc(5)); other systems show zeros
        Self { before: field("VmRSS:") }
    }

    /// Returns how many bytes more the peak had than the beginning.
    pub fn end(self) -> u64 {
        field("VmHWM:").saturating_sub(self.before)
    }
}

fn field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0) * 1024
}
