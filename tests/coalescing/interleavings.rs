//! Every order in which three requests, the store and the origin can go on, and in which one request can be dropped.
//!
//! What is polled is only what was woken, so that a lost wake-up shows as a request that never ends.
