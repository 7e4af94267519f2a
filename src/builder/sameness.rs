//! The settings that say which requests are the same.

use std::sync::Arc;

use http::{HeaderName, request};

use super::CacheLayerBuilder;
use crate::policy;
use crate::storage::Storage;

/// What counts as the same request.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Leaves these query parameters out of the key, so that requests that differ in them alone are the same: tokens,
    /// campaign tags. Names are compared as they are behind percent escapes, letter case included. Their values are in
    /// nothing that is stored. The request goes out as it is. Default: all count.
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.config.identity.ignored_query.extend(names.into_iter().map(Into::into));
        self
    }

    /// Takes requests whose query parameters stand in another order as the same. Values of one name keep their order,
    /// which may mean something. Default: the order counts.
    pub fn sort_query(mut self) -> Self {
        self.config.identity.sorted_query = true;
        self
    }

    /// Tells requests apart by these fields, whatever Vary says. Their values are stored as a keyed hash. What is
    /// invalidated goes with all its variants. Default: by those that Vary names.
    pub fn key_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.config.policy.key_fields.extend(names);
        self
    }

    /// Tells requests apart by all their fields, but for those that are about the cache and the connection
    /// (Cache-Control, conditions, ranges, Connection and the like) or that are [ignored](Self::ignore_headers).
    /// Default: by those that Vary names.
    pub fn key_all_headers(mut self) -> Self {
        self.config.policy.key_fields.push(policy::ALL_FIELDS);
        self
    }

    /// Does not tell requests apart by these fields, whatever Vary says. The risk: a response that was made for one
    /// value is served for another; with Authorization, to another user. Default: all that Vary names count.
    pub fn ignore_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.config.policy.ignored_fields.extend(names);
        self
    }

    /// Names what a request is about, in place of its URI; `None`: the URI does, without what is ignored. Requests of one
    /// name share what is stored (Vary and, in a private cache, the credentials still tell them apart), so the name
    /// should hold the method only if that matters, and no secrets: it is stored. Invalidation uses it too: for an unsafe
    /// request, and for that request with the URI that the response names in Location and Content-Location. Default:
    /// none.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// // All mirrors of a file are one.
    /// let layer = CacheLayer::builder(MemoryStorage::new())
    ///     .key(|request| Some(request.uri.path().strip_prefix("/mirror/")?.split_once('/')?.1.to_owned()))
    ///     .build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn key(mut self, naming: impl Fn(&request::Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        self.config.identity.naming = Some(Arc::new(naming));
        self
    }

    /// Does not heed the requests' own Cache-Control and Pragma: for a server whose clients are not to be trusted with
    /// `no-cache` and the like. They are passed on, and [`CacheOptions`](crate::CacheOptions) still count. Default: they
    /// are heeded, as RFC 9111 §5.2.1 says.
    pub fn ignore_request_directives(mut self) -> Self {
        self.config.ignore_request_directives = true;
        self
    }
}
