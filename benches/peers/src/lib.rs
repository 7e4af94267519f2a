//! Compares tower-response-cache with other caches and with raw drivers.

#[path = "../../origin/mod.rs"]
pub mod origin;
pub mod peers;
pub mod raw;
pub mod report;
pub mod sample;
#[path = "../../../tests/servers/mod.rs"]
pub mod servers;

/// The lengths of the bodies that are measured.
pub const SIZES: [(usize, &str); 3] = [(1024, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];
