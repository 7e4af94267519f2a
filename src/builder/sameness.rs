//! The settings that say which requests are the same.

#[cfg(feature = "content-keys")]
use std::error::Error;
use std::sync::Arc;

use http::{HeaderName, Method, request};
#[cfg(feature = "content-keys")]
use http_body::Body;

use super::CacheLayerBuilder;
#[cfg(feature = "content-keys")]
use crate::error::Result;
use crate::policy;
#[cfg(feature = "content-keys")]
use crate::service::ReplayedContent;
use crate::storage::Storage;

/// What counts as the same request.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Leaves these query parameters out of the key, so that requests that differ in them alone are the same: tokens,
    /// campaign tags. Names are compared as they are behind percent escapes, letter case included. Their values are in
    /// nothing that is stored, and [rules](Self::rule) do not see them. The request goes out as it is. A query with a
    /// semicolon counts as it is: some servers split at it, and would find a parameter in an ignored one. Default: all
    /// count.
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.config.identity.ignored_query.extend(names.into_iter().map(Into::into));
        self
    }

    /// Takes requests whose query parameters stand in another order as the same. Values of one name keep their order,
    /// which may mean something, and so does a query with a semicolon, at which some servers split. Default: the order
    /// counts.
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

    /// Does not tell requests apart by these fields, whatever Vary says.
    ///
    /// The risk: a response that was made for one value is served for another; with Authorization, to another user. A
    /// response that was stored under this setting is not served once one of the fields counts again.
    ///
    /// Default: every field that Vary names counts.
    pub fn ignore_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.config.policy.ignored_fields.extend(names);
        self
    }

    /// The methods of requests that the cache answers. All but GET and HEAD need the feature `content-keys`: their
    /// requests are told apart by method and content, in the form that all spellings of one meaning share (JSON whose
    /// members stand in another order, another escaping of a form, another multipart boundary), and invalidate nothing, since
    /// you say that they read; those that a [filter](Self::filter_request) leaves out do, as they would without this.
    /// Their responses need a lifetime, of their own or by a rule; only for QUERY and its kin (SEARCH, REPORT, PROPFIND)
    /// one may be guessed. A content that is longer than [`max_content_bytes`](Self::max_content_bytes), or of a body type
    /// that cannot be made anew ([`replay_content`](Self::replay_content)), goes to the inner service, and its response is
    /// not stored; so does a request with conditions or a range. Default: GET and HEAD.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.config.methods = methods.into_iter().collect();
        self
    }

    /// The longest content that is read for the key, in bytes. Default: 256 KiB.
    #[cfg(feature = "content-keys")]
    pub fn max_content_bytes(mut self, most: u64) -> Self {
        self.config.contents.most = most;
        self
    }

    /// Leaves these fields of contents out of the key.
    ///
    /// A plain name (`token`) stands for a field at every depth of a JSON document, of a form and of multipart content; a path
    /// (`auth.token`, `items.*.id`; a dot in a name is written `\\.`) for one place of a JSON document. With a field goes all
    /// that is in it, but for the `persistedQuery` in GraphQL's `extensions`, which says what is asked for: it is ignored only
    /// by its own name. Ignored fields are in no record. The request goes out as it is. Names add up.
    ///
    /// Default: all fields count.
    ///
    /// # Errors
    /// A name or path is malformed.
    #[cfg(feature = "content-keys")]
    pub fn ignore_content<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Result<Self> {
        self.config.contents.ignored.add(names)?;
        Ok(self)
    }

    /// How a request's body of this type is made from what the cache has read of it: from the
    /// [bytes](ReplayedContent::into_bytes), where that is all, or else from the [`ReplayedContent`] itself, which is a body
    /// that gives the rest as it comes. Default: `Full<Bytes>`,
    /// `UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>`, axum's `Body` (feature `axum`) and reqwest's (feature
    /// `reqwest`, where it is in memory) are known.
    #[cfg(feature = "content-keys")]
    pub fn replay_content<B>(mut self, make: impl Fn(ReplayedContent) -> B + Send + Sync + 'static) -> Self
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.config.contents.replay(make);
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
