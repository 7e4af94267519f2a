//! How many clients are served, and how slow they and the origin may be.

use std::time::Duration;

use crate::pace::Slowest;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections of clients are open at most.
    pub connections: usize,
    /// How long a client may take for the head of a request, and for a TLS handshake.
    pub head: Duration,
    /// How long a connection may be open without a request.
    pub idle: Duration,
    /// How slowly a client may send the content of a request, or read a response.
    pub client: Slowest,
    /// How long the origin may send nothing, before and in the middle of a response.
    pub origin: Duration,
    /// How long requests may go on after a signal to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: default_connections(),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            client: Slowest::new(Duration::from_secs(60), 500),
            origin: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// Returns 4096, or fewer where so many would need more open files than the system permits.
///
/// A client's connection may need another to the origin. Some files are left for the storage.
fn default_connections() -> usize {
    const MOST: usize = 4096;
    const OTHER_FILES: usize = 40;
    let Ok(text) = std::fs::read_to_string("/proc/self/limits") else { return MOST };
    let files = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    files.map_or(MOST, |files| (files.saturating_sub(OTHER_FILES) / 2).clamp(1, MOST))
}
