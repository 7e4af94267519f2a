//! A storage of one's own.
fn main() {}
