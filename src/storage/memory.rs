//! x
/// x
#[derive(Debug, Clone)]
pub struct MemoryStorage;
/// x
#[derive(Debug, Clone)]
pub struct MemoryStorageBuilder;
