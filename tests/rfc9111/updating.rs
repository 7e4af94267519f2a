//! updating
