//! The settings of reporting: where the cache shows what it did.

use super::CacheLayerBuilder;
use crate::storage::Storage;

/// # Reporting
///
/// Where the cache shows what it did. Spans, events and metrics are described in [`observe`](crate::observe).
impl<S: Storage> CacheLayerBuilder<S> {
    /// Puts a [`CacheStatus`](crate::CacheStatus) into the extensions of each response.
    ///
    /// It costs three allocations. The response's body has the status in any case.
    ///
    /// Default: `true`.
    pub fn status_in_extensions(mut self, put: bool) -> Self {
        self.config.extensions = put;
        self
    }

    /// Adds a Cache-Status field (RFC 9211) to each response, under this name of the cache.
    ///
    /// A name that is not a token is written as a string. The parameter `stored` is present only if the storage has the
    /// response already, so not while its body is still to come.
    ///
    /// Default: none is added.
    pub fn status_field(mut self, name: impl Into<String>) -> Self {
        self.config.status_field = Some(structured_name(name.into()));
        self
    }

    /// Sets the label `cache` of this cache's metrics.
    ///
    /// It tells several caches of one program apart.
    ///
    /// Default: `default`.
    #[cfg(feature = "metrics")]
    pub fn metrics_label(mut self, name: impl Into<String>) -> Self {
        self.config.metrics_label = name.into();
        self
    }
}

/// Returns a name as a token or string of Structured Fields (RFC 9651 §3.3.3, §3.3.4).
fn structured_name(name: String) -> String {
    if sfv::TokenRef::from_str(&name).is_ok() {
        return name;
    }
    let mut string = String::from("\"");
    for letter in name.chars() {
        match letter {
            '"' | '\\' => string.extend(['\\', letter]),
            ' '..='~' => string.push(letter),
            _ => string.push('?'),
        }
    }
    string.push('"');
    string
}
