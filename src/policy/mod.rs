//! What RFC 9111 says, as pure functions.
