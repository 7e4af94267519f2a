//! x
/// x
#[derive(Debug, Clone)]
pub struct SqliteStorage;
/// x
#[derive(Debug, Clone)]
pub struct SqliteStorageBuilder;
