//! A macro for storages of tests that wrap another storage.

#![allow(unused_imports)] // each test binary forwards only some methods

pub use futures_util::Stream;
pub use tower_response_cache::storage::{Key, Record, Retain};
pub use tower_response_cache::{Result, Timestamp};

/// Implements the named methods by calling those of the storage in a field.
///
/// It is written as `forward!(inner: read, delete)` within an `impl Storage`. The other methods are the provided ones
/// of the trait, as in a storage that implements only what is required.
macro_rules! forward {
    ($inner:tt: $($method:ident),+ $(,)?) => {
        $(forward!(@$method $inner);)+
    };
    (@read $inner:tt) => {
        async fn read(
            &self,
            key: $crate::support::forward::Key,
        ) -> $crate::support::forward::Result<Option<$crate::support::forward::Record>> {
            self.$inner.read(key).await
        }
    };
    (@write $inner:tt) => {
        async fn write(
            &self,
            key: $crate::support::forward::Key,
            record: $crate::support::forward::Record,
        ) -> $crate::support::forward::Result<()> {
            self.$inner.write(key, record).await
        }
    };
    (@delete $inner:tt) => {
        async fn delete(
            &self,
            key: $crate::support::forward::Key,
        ) -> $crate::support::forward::Result<bool> {
            self.$inner.delete(key).await
        }
    };
    (@clear $inner:tt) => {
        async fn clear(&self) -> $crate::support::forward::Result<()> {
            self.$inner.clear().await
        }
    };
    (@keys $inner:tt) => {
        fn keys(
            &self,
        ) -> impl $crate::support::forward::Stream<
            Item = $crate::support::forward::Result<$crate::support::forward::Key>,
        > + Send {
            self.$inner.keys()
        }
    };
    (@retain $inner:tt) => {
        async fn retain(
            &self,
            keys: &[$crate::support::forward::Key],
            retain: $crate::support::forward::Retain,
        ) -> $crate::support::forward::Result<u64> {
            self.$inner.retain(keys, retain).await
        }
    };
    (@contains_all $inner:tt) => {
        async fn contains_all(
            &self,
            keys: &[$crate::support::forward::Key],
        ) -> $crate::support::forward::Result<bool> {
            self.$inner.contains_all(keys).await
        }
    };
    (@delete_expired $inner:tt) => {
        async fn delete_expired(
            &self,
            now: $crate::support::forward::Timestamp,
        ) -> $crate::support::forward::Result<u64> {
            self.$inner.delete_expired(now).await
        }
    };
    (@max_record_len $inner:tt) => {
        fn max_record_len(&self) -> usize {
            self.$inner.max_record_len()
        }
    };
}

pub(crate) use forward;
