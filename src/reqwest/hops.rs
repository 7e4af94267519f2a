//! What the redirect follower tells about the way of a request.

use ::reqwest::{Response, StatusCode, Url};

use crate::control::CacheStatus;

/// The redirects that [`FollowRedirects`](super::FollowRedirects) followed to a response, the first one first. In the
/// extensions of each response that it gives, if there were any.
///
/// ```
/// use tower_response_cache::reqwest::{Hops, reqwest_client::Response};
///
/// fn report(response: &Response) {
///     for hop in response.extensions().get::<Hops>().map_or(&[][..], Hops::as_slice) {
///         println!("{} {} {:?}", hop.status(), hop.url(), hop.cache().map(|cache| cache.word()));
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Hops(Vec<Hop>);

/// One redirect that was followed.
#[derive(Clone, Debug)]
pub struct Hop {
    url: Url,
    status: StatusCode,
    cache: Option<CacheStatus>,
}

impl Hops {
    /// The redirects, the first one first.
    pub fn as_slice(&self) -> &[Hop] {
        &self.0
    }

    pub(super) fn add(&mut self, response: &Response) {
        let cache = response.extensions().get::<CacheStatus>().copied();
        self.0.push(Hop { url: response.url().clone(), status: response.status(), cache });
    }
}

impl Hop {
    /// The URL that redirected.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The status code of the redirect.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the cache below did about this hop; `None`: there is none.
    pub fn cache(&self) -> Option<&CacheStatus> {
        self.cache.as_ref()
    }
}
