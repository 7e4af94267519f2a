//! The settings of keys: which requests are for the same entry.

#[cfg(feature = "content-keys")]
use std::error::Error;
use std::sync::Arc;

use http::{HeaderName, Method, request, response};
#[cfg(feature = "content-keys")]
use http_body::Body;

use super::CacheLayerBuilder;
#[cfg(feature = "content-keys")]
use crate::error::Result;
use crate::key::Named;
use crate::policy;
use crate::rules::IntoUrlPattern;
#[cfg(feature = "content-keys")]
use crate::service::ReplayedContent;
use crate::storage::Storage;

/// # Keys
///
/// Which requests are for the same entry, and which variant of it they get.
impl<S: Storage> CacheLayerBuilder<S> {
    /// Leaves these query parameters out of the key.
    ///
    /// Requests that differ in these parameters alone share an entry; use it for tokens and campaign tags. In a name a star
    /// stands for any text (`utm_*`). Names are compared after percent-decoding, with letter case. The values are in no
    /// record of the storage, and [rules](Self::rules) do not see them. The request is forwarded unchanged. A query with a
    /// semicolon counts as it is, since some servers split at semicolons and would find a parameter within an ignored one.
    /// Names add up.
    ///
    /// The risk: if a parameter matches on which the response does depend, the response to one of its values is served for
    /// all others. A star matches parameters that the origin will have one day, too.
    ///
    /// Invalidation and the [handle](crate::CacheLayer::handle) ignore the same parameters. Responses that were stored under
    /// other settings for their URL are not served any more: each such entry is a miss once.
    ///
    /// Default: every parameter counts.
    pub fn ignore_query_params<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.config.identity.query.add(None, Named::Ignored, names.into_iter().map(Into::into).collect());
        self
    }

    /// Leaves these query parameters out of the key, for the URLs that match a pattern.
    ///
    /// Otherwise like [`ignore_query_params`](Self::ignore_query_params), to whose names they are added. The pattern is
    /// matched with the URL without its query, and is refused if it has one. It is a glob as text, or a
    /// [`UrlPattern`](crate::UrlPattern). A malformed pattern is an error when the cache is built.
    ///
    /// Default: none.
    pub fn ignore_query_params_for<N: Into<String>>(
        mut self,
        pattern: impl IntoUrlPattern,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.config.identity.query.add(Some(pattern.into_url_pattern()), Named::Ignored, names);
        self
    }

    /// Leaves all query parameters except these out of the key.
    ///
    /// In a name a star stands for any text. Names are compared loosely, so that no server can take an ignored parameter
    /// for one that counts: letter case does not matter, nor whether a name has a dot, a space or `_`, and `filter[a]`
    /// counts with `filter`. An empty list ignores the whole query. A parameter that
    /// [`ignore_query_params`](Self::ignore_query_params) names does not count all the same, and what is said there of
    /// records, semicolons and changed settings holds here too. Names add up.
    ///
    /// The risk is greater than with `ignore_query_params`: if a name is forgotten, or the origin begins to read another
    /// parameter, the response to one of its values is served for all others. With a forgotten `user`, that is one user's
    /// page for every user. Prefer [`only_query_params_for`](Self::only_query_params_for) with a narrow pattern.
    ///
    /// Default: every parameter counts.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// let layer = CacheLayer::builder(MemoryStorage::new())
    ///     .ignore_query_params(["utm_*", "fbclid"])
    ///     .only_query_params_for("example.com/list", ["page", "sort"])
    ///     .only_query_params_for::<&str>("example.com/static/**", [])
    ///     .build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn only_query_params<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.config.identity.query.add(None, Named::Only, names.into_iter().map(Into::into).collect());
        self
    }

    /// Leaves all query parameters except these out of the key, for the URLs that match a pattern.
    ///
    /// Otherwise like [`only_query_params`](Self::only_query_params), to whose names they are added. The pattern is matched
    /// with the URL without its query, and is refused if it has one. It is a glob as text, or a
    /// [`UrlPattern`](crate::UrlPattern). A malformed pattern is an error when the cache is built.
    ///
    /// Default: none.
    pub fn only_query_params_for<N: Into<String>>(
        mut self,
        pattern: impl IntoUrlPattern,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.config.identity.query.add(Some(pattern.into_url_pattern()), Named::Only, names);
        self
    }

    /// Ignores the order of query parameters.
    ///
    /// Values of one name keep their order, which may mean something. So does a query with a semicolon, since some servers
    /// split at semicolons.
    ///
    /// Default: `false`. The order counts.
    pub fn sort_query(mut self, sort: bool) -> Self {
        self.config.identity.query.sort(sort);
        self
    }

    /// Lets a response answer requests with other queries, as its field No-Vary-Search says.
    ///
    /// The origin says there which query parameters do not matter (draft-ietf-httpbis-no-vary-search): `params=("utm_source")`
    /// names those that do not, `except=("id")` those that alone do, and with `key-order` their order does not matter. All
    /// equivalent requests then share one entry, with its variants, its fetch and its invalidation: an unsafe request to one
    /// of the URLs, or [`delete_url`](crate::CacheHandle::delete_url) for it, ends the response for all of them.
    ///
    /// - The older form that browsers have implemented is accepted too, where `params` is a boolean: `params` alone ignores
    ///   all parameters, and `params, except=("id")` all but one.
    /// - A malformed field has no effect, nor has one that is longer than 1 KiB or names more than 64 parameters.
    /// - The response answers requests to its own scheme, host and path only, in its own [partition](Self::partition), and
    ///   everything else that tells requests apart still does. Parameters that [settings](Self::ignore_query_params) ignore
    ///   are ignored before. A request that is [named](Self::key_fn) is answered by its name alone.
    /// - A query with a semicolon is equivalent to no other, since some servers split at semicolons. For the same reason a
    ///   parameter counts by `except` if a server could take it for a named one (see
    ///   [`only_query_params`](Self::only_query_params)).
    /// - The last values of each path are kept in a record of the storage. It is read on a miss, unless there was none a
    ///   moment ago, and by each invalidation. A hit for a URL that was requested before costs nothing more.
    /// - Only the newest value of a path finds responses. If a response with another value comes, those with the former one
    ///   are misses for other queries until the former value comes again.
    ///
    /// Give all caches on one storage the same setting: an invalidation by a cache with `false` reaches what is stored for
    /// its very URL, and no response that answers several queries.
    ///
    /// Default: `true`. With `false` the field has no effect, and neither has it while [recording](Self::record) or
    /// [replaying](Self::replay).
    pub fn no_vary_search(mut self, follow: bool) -> Self {
        self.config.no_vary_search = follow;
        self
    }

    /// Gives requests that differ in these fields variants of their own, whatever Vary says.
    ///
    /// The values are stored as a keyed hash. An invalidation of the entry ends all its variants. Names add up.
    ///
    /// Default: only fields that Vary names count.
    pub fn key_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.config.policy.key_fields.extend(names);
        self
    }

    /// Gives requests that differ in any field variants of their own.
    ///
    /// Fields about the cache or the connection do not count (Cache-Control, conditions, ranges, Connection and the like),
    /// nor do [ignored](Self::ignore_headers) ones.
    ///
    /// Default: `false`. Only fields that Vary names count.
    pub fn key_all_headers(mut self, all: bool) -> Self {
        self.config.policy.key_fields.retain(|name| *name != policy::ALL_FIELDS);
        if all {
            self.config.policy.key_fields.push(policy::ALL_FIELDS);
        }
        self
    }

    /// Ignores these request fields where Vary names them.
    ///
    /// The risk: a response that was made for one value is served for another; with Authorization, to another user. Once a
    /// field counts again, responses that were stored while it was ignored are not served any more. Names add up.
    ///
    /// Default: every field that Vary names counts.
    pub fn ignore_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.config.policy.ignored_fields.extend(names);
        self
    }

    /// Shares responses between requests with different Cookie fields, in a private cache.
    ///
    /// Authorization still counts. Once the setting is `false` again, responses that were stored under it are not served
    /// any more.
    ///
    /// Default: `false`. Cookie counts.
    pub fn ignore_cookie(mut self, ignore: bool) -> Self {
        self.config.policy.ignore_cookie = ignore;
        self
    }

    /// Compares only these cookies where the field Cookie tells requests apart.
    ///
    /// Cookie does so in a private cache, and where Vary or [`key_headers`](Self::key_headers) names it. Requests that differ
    /// in other cookies then share a response; the request is forwarded with all of them. Names are compared loosely, as by
    /// [`only_query_params`](Self::only_query_params), without stars. A field that servers may read in different ways (with an
    /// odd quote, or a comma before one of these cookies) is compared as a whole. Names add up.
    ///
    /// The risk: if a cookie is forgotten on which the response depends, one visitor's response is served to others. In a
    /// private cache with a forgotten session cookie, or in a shared cache behind an origin that says `Vary: Cookie` for the
    /// sake of the session, that is one user's page for every user.
    ///
    /// Responses that were stored under other names are not served any more.
    ///
    /// Default: the whole field is compared.
    pub fn key_cookies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.config.key_cookies.get_or_insert_default().extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets the response fields whose values are tags.
    ///
    /// All responses with one tag are [invalidated](crate::CacheLayer::invalidate_tag) together. Tags are separated by commas,
    /// in `surrogate-key` by spaces, and in `xkey` by spaces or commas. They are compared with letter case, and added to those
    /// of [rules](crate::Rule::tag) and [options](crate::CacheOptions::tags). A response with more than 128 tags in all, or
    /// with a tag that is longer than 1,024 bytes or not UTF-8, is not stored
    /// ([`TooManyGroups`](crate::NotStored::TooManyGroups), [`UnusableTag`](crate::NotStored::UnusableTag)). Names add up.
    ///
    /// The fields are stored, so that a response which a cache without this setting has stored is not served by a cache that
    /// reads tags in it: a miss stores it with its tags. Give all caches on one storage the same fields.
    ///
    /// Default: none.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// let layer = CacheLayer::builder(MemoryStorage::new())
    ///     .shared(true)
    ///     .tag_fields(["surrogate-key", "cache-tag", "xkey"])
    ///     .remove_tag_fields(true)
    ///     .build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn tag_fields<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.config.tag_fields.extend(names.into_iter().map(Into::into));
        self
    }

    /// Removes the [`tag_fields`](Self::tag_fields) from each response that the cache returns.
    ///
    /// A response to a request that bypasses the cache keeps them.
    ///
    /// Default: `false`. The fields are passed on.
    pub fn remove_tag_fields(mut self, remove: bool) -> Self {
        self.config.removes_tag_fields = remove;
        self
    }

    /// Sets the function that returns further tags of a response.
    ///
    /// It is called when a response is about to be stored, and again when a stored response is freshened by a 304, which
    /// keeps its tags and adds these. The bounds are those of [`tag_fields`](Self::tag_fields). The extensions and the version
    /// of the response are not there.
    ///
    /// Default: none.
    pub fn tags_of(
        mut self,
        tags: impl Fn(&request::Parts, &response::Parts) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.config.tag_fn = Some(Arc::new(tags));
        self
    }

    /// Sets the function that names the resource of a request, in place of its URI.
    ///
    /// Where it returns `None`, the URI counts, without what is ignored. Requests of one name share an entry; Vary and, in
    /// a private cache, the credentials still tell them apart. The name should contain the method only if that matters,
    /// and no secrets, since it is stored. Invalidation uses it too: for an unsafe request, and for that request with the
    /// URI in the response's Location and Content-Location.
    ///
    /// Default: none. The URI counts.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use tower_response_cache::{CacheLayer, storage::MemoryStorage};
    ///
    /// // All mirrors of a file share an entry.
    /// let layer = CacheLayer::builder(MemoryStorage::new())
    ///     .key_fn(|request| Some(request.uri.path().strip_prefix("/mirror/")?.split_once('/')?.1.to_owned()))
    ///     .build()?;
    /// # }
    /// # Ok::<_, tower_response_cache::Error>(())
    /// ```
    pub fn key_fn(
        mut self,
        name: impl Fn(&request::Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.config.identity.key_fn = Some(Arc::new(name));
        self
    }

    /// Sets the secret that keys are hashed with.
    ///
    /// Processes that share a storage need the same secret. Set your own if someone with access to the storage's keys must
    /// not be able to confirm that a guessed URL is cached.
    ///
    /// Default: a constant of this crate.
    pub fn key_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.config.key_secret = secret.into();
        self
    }

    /// Sets the methods of the requests that the cache answers.
    ///
    /// Methods other than GET and HEAD need the feature `content-keys`. Their requests are told apart by method and
    /// content. Content counts in a normal form, so that equivalent spellings share an entry: JSON with its members in
    /// another order, a form with other escapes, multipart content with another boundary. These requests invalidate
    /// nothing, since naming the method says that they are safe; those that a [filter](Self::filter_request) excludes
    /// invalidate as usual.
    ///
    /// Their responses need a lifetime, of their own or by a rule. A heuristic lifetime is given only to responses to
    /// QUERY and other safe methods (SEARCH, REPORT, PROPFIND). A request goes to the inner service, and its response is
    /// not stored, if its content is longer than [`max_content_bytes`](Self::max_content_bytes), if its body type cannot be
    /// made anew (see [`replay_content`](Self::replay_content)), or if it has conditions or a range. Those of QUERY are answered
    /// from the stored response, as they are about the result of the query (RFC 10008 §2.6, §2.8).
    ///
    /// Default: GET and HEAD.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.config.methods = methods.into_iter().collect();
        self
    }

    /// Sets the length of the longest request content that is read for the key, in bytes.
    ///
    /// Default: 256 KiB.
    #[cfg(feature = "content-keys")]
    pub fn max_content_bytes(mut self, longest: u64) -> Self {
        self.config.contents.max_len = longest;
        self
    }

    /// Leaves these fields of request content out of the key.
    ///
    /// A plain name (`token`) stands for a field at every depth of a JSON document, of a form and of multipart content. A
    /// path (`auth.token`, `items.*.id`; a dot within a name is written `\\.`) stands for one place of a JSON document.
    /// An ignored field is ignored with all that is in it, except for `persistedQuery` in GraphQL's `extensions`, which
    /// identifies the query: it is ignored only by its own name. Ignored fields are in no record of the storage. The
    /// request is forwarded unchanged. Names add up.
    ///
    /// Default: every field counts.
    ///
    /// # Errors
    /// Returns [`Config`](crate::ErrorKind::Config) if a name or path is malformed.
    #[cfg(feature = "content-keys")]
    pub fn ignore_content_fields<N: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self> {
        self.config.contents.ignored.add(names)?;
        Ok(self)
    }

    /// Sets the function that makes a request body of type `B` from content that the cache has read.
    ///
    /// The function gets a [`ReplayedContent`]. Where the cache has read all content,
    /// [`into_bytes`](ReplayedContent::into_bytes) returns it; otherwise the `ReplayedContent` is itself a body that
    /// yields what was read and then the rest as it comes.
    ///
    /// Default: `Full<Bytes>`, `UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>`, axum's `Body` (feature `axum`) and
    /// reqwest's `Body` (feature `reqwest`, where it is in memory) are known.
    #[cfg(feature = "content-keys")]
    pub fn replay_content<B>(mut self, make: impl Fn(ReplayedContent) -> B + Send + Sync + 'static) -> Self
    where
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.config.contents.replay(make);
        self
    }
}
