//! What the rules, the request and the layer say together about a request and its response.
//!
//! Promises: a request without options, in a layer without rules, costs nothing here; whoever stores or freshens a
//! response asks here first, so that nothing is stored by one way that the other would refuse.

use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError};

use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header, request, response};

use super::config::Tape;
use super::core::Core;
use super::fetcher::Unstorable;
use super::lookup::Place;
use crate::control::{CacheOptions, Scope, Stored};
use crate::entry::{Head, Membership};
use crate::error::Result;
use crate::key::{self, EffectiveUri};
use crate::policy::{self, Freshness, Given, Interest, NotStored, RequestDirectives};
use crate::rules::Rules;
use crate::storage::Storage;
use crate::time::Timestamp;

/// What is settled about a response that may be stored.
pub(super) struct Judged {
    pub(super) freshness: Freshness,
    pub(super) given: Option<Given>,
    /// The fields that select it.
    pub(super) names: Vec<HeaderName>,
}

/// What the content of a request is that is told apart by it, among its extensions.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "content-keys"), allow(dead_code))]
pub(super) struct ContentKey(pub(super) [u8; 32]);

/// The groups of a response, among its extensions until it is stored.
#[derive(Clone)]
pub(super) struct Joined(pub(super) Arc<[Membership]>);

/// Among the extensions of a request that the cache of this number makes for its store alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside(pub(super) u64);

/// Among the extensions of a request to which a client adds fields that the cache does not know: no response to another
/// client's is its answer.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))]
pub(crate) struct Untold;

/// Stands among the names for such a client.
const UNTOLD: HeaderName = HeaderName::from_static("*client");

/// Whether a request is told apart by its method and content.
pub(crate) fn is_by_content(request: &request::Parts) -> bool {
    request.extensions.get::<ContentKey>().is_some()
}

/// Takes a request for one that is not told apart by its content; whether it was.
pub(super) fn forget_content(request: &mut request::Parts) -> bool {
    request.extensions.remove::<ContentKey>().is_some()
}

impl<S: Storage> Core<S> {
    /// Which entry a request is about.
    pub(crate) fn identify<'a>(&'a self, parts: &'a request::Parts) -> Option<EffectiveUri<'a>> {
        let name = options(parts).and_then(CacheOptions::key_text);
        self.config.identity.of(parts, name, &self.config.defaults)
    }

    /// The URI of a request, where its key is another text.
    pub(super) fn plain_text(&self, key: &EffectiveUri<'_>, parts: &request::Parts) -> Option<Box<str>> {
        if self.config.identity.is_plain() && !key.is_named() {
            return None;
        }
        self.plain_uri(parts).map(String::into_boxed_str)
    }

    /// The URI of a request, as text.
    pub(super) fn plain_uri(&self, parts: &request::Parts) -> Option<String> {
        Some(EffectiveUri::of(parts, &self.config.defaults)?.to_text())
    }

    /// The URI that rules see: without what does not count, so that a stranger who adds that chooses no other rule for the
    /// response of all.
    pub(super) fn ruled_uri(&self, parts: &request::Parts) -> String {
        let uri = EffectiveUri::of(parts, &self.config.defaults);
        uri.map(|uri| self.config.identity.plain(uri).to_text()).unwrap_or_default()
    }

    /// Takes the scope into the request, since others may go on with it; true: the cache is not to be asked.
    pub(crate) fn enter(&self, parts: &mut request::Parts) -> bool {
        let scope = Scope::current();
        if !scope.is_none() {
            let within = options(parts).cloned().unwrap_or_default().within(scope);
            parts.extensions.insert(within);
        }
        if self.config.tape == Some(Tape::Record) {
            policy::strip_conditions(&mut parts.headers);
            parts.headers.remove(header::RANGE);
        }
        let Some(options) = options(parts).cloned() else { return self.is_disabled() };
        options.tell(&mut parts.headers);
        options.bypasses() || self.is_disabled()
    }

    /// Whether the filters that have to wait want the cache to be asked about a request.
    pub(super) fn admits(&self, parts: &request::Parts) -> impl Future<Output = bool> + Send + use<S> {
        let waiting: Vec<_> = self.config.async_filters.iter().map(|filter| filter(parts)).collect();
        async move {
            for answer in waiting {
                if !answer.await {
                    return false;
                }
            }
            true
        }
    }

    /// Whether this cache makes a request for the store alone: a refresh in the background.
    pub(super) fn is_beside(&self, request: &request::Parts) -> bool {
        request.extensions.get::<Beside>().is_some_and(|Beside(number)| *number == self.number)
    }

    /// What a request asks of the cache, by its fields and by its options.
    pub(crate) fn directives(&self, parts: &request::Parts) -> RequestDirectives {
        self.directives_of(parts, Interest { control: true, credentials: true, host: true })
    }

    /// The same for who knows what kinds of fields it has.
    pub(crate) fn directives_of(&self, parts: &request::Parts, interest: Interest) -> RequestDirectives {
        let mut asked = match interest.control && !self.config.ignore_request_directives {
            true => RequestDirectives::of(&parts.headers),
            false => RequestDirectives::default(),
        };
        match self.config.tape {
            Some(Tape::Record) => (asked.reload, asked.no_cache) = (true, true),
            Some(Tape::Replay) => (asked.force, asked.only_if_cached) = (true, true),
            None => {}
        }
        asked.only_if_cached |= self.config.only_if_cached;
        asked.read_only |= self.config.read_only;
        if let Some(options) = options(parts) {
            options.apply(&mut asked);
        }
        asked
    }

    /// The hash of the request's values of the fields that tell variants apart, and of what else its target is.
    pub(crate) fn selection(&self, names: &[HeaderName], request: &request::Parts) -> [u8; 16] {
        let target = [key::HOST_BESIDE, key::REWRITTEN, UNTOLD];
        let ignored = &self.config.policy.ignored_fields;
        self.keyer.selection(names.iter().chain(&target), |name| match name {
            name if *name == policy::CONTENT => {
                let ContentKey(digest) = request.extensions.get()?;
                Some([request.method.as_str().as_bytes(), b" ", digest].concat())
            }
            name if *name == key::HOST_BESIDE => {
                self.has_host_beside(request).then(|| policy::lines(&request.headers, &header::HOST))?
            }
            name if *name == key::REWRITTEN => {
                let uri = key::rewritten(request).filter(|_| !self.is_named(request))?;
                Some(self.config.identity.rewritten(uri).into_bytes())
            }
            name if *name == UNTOLD => request.extensions.get::<Untold>().map(|_| Vec::new()),
            name => policy::selecting_value(name, &request.headers, ignored),
        })
    }

    /// Whether the Host field of a request selects its response.
    fn has_host_beside(&self, request: &request::Parts) -> bool {
        let uri = || EffectiveUri::of(request, &self.config.defaults);
        request.headers.contains_key(header::HOST)
            && !self.config.policy.ignored_fields.contains(&header::HOST)
            && uri().is_some_and(|uri| uri.host_selects(request))
            && !self.is_named(request)
    }

    /// Whether a name stands in the place of a request's URI.
    fn is_named(&self, request: &request::Parts) -> bool {
        self.config.identity.names(request, options(request).and_then(CacheOptions::key_text))
    }

    /// Whether the request is told apart by what its origin cannot know of: the credentials of a user, what the user of
    /// the cache put into the key, or its target. Another's entity tag is then nothing to ask about.
    pub(super) fn stands_apart(&self, names: &[HeaderName], request: &request::Parts) -> bool {
        let has = |name: &HeaderName| *name == policy::ALL_FIELDS || request.headers.contains_key(name);
        policy::is_personal(names, &request.headers)
            || self.config.policy.key_fields.iter().any(has)
            || is_by_content(request)
            || request.extensions.get::<Untold>().is_some()
            || self.has_host_beside(request)
            || (key::rewritten(request).is_some() && !self.is_named(request))
    }

    /// Whether a head tells apart what this cache has to; one that was stored under other settings may not.
    pub(crate) fn tells_apart(&self, head: &Head) -> bool {
        self.config.policy.key_fields.iter().all(|name| head.names.contains(name))
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_rules(&self, rules: Rules) -> Result<()> {
        rules.check()?;
        // Else what is recorded from then on would not be kept.
        let rules = if self.config.tape.is_some() { rules.for_a_tape() } else { rules };
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(())
    }

    /// Asks the filters about a response, and which groups it belongs to; what may not be stored is marked.
    pub(super) async fn admit<B>(
        self: &Arc<Self>,
        request: &request::Parts,
        place: Option<&Place>,
        requested: Timestamp,
        response: Response<B>,
    ) -> Response<B> {
        self.invalidate_named(request, response.headers()).await;
        let (mut head, body) = response.into_parts();
        if !self.passes_response_filters(request, &head).await {
            head.extensions.insert(Unstorable(Stored::No(NotStored::Filtered)));
        }
        if let Some(place) = place {
            let is_storable = || {
                Unstorable::reason(&head.extensions).is_none() && self.is_storable(request, requested, &head)
            };
            let joined =
                self.join(place, request, requested, (head.status, &head.headers), &[], is_storable).await;
            match joined {
                Ok(groups) if groups.is_empty() => {}
                Ok(groups) => drop(head.extensions.insert(Joined(groups))),
                Err(reason) => drop(head.extensions.insert(Unstorable(reason))),
            }
        }
        Response::from_parts(head, body)
    }

    /// Whether the user's filters let a response be stored, as it would be then.
    async fn passes_response_filters(&self, request: &request::Parts, head: &response::Parts) -> bool {
        let rules = self.rules();
        if !rules.has_filters() {
            return true;
        }
        rules.admit(request, head).await
    }

    /// The same for a stored response that another one freshens.
    pub(super) async fn passes_freshened(
        &self,
        request: &request::Parts,
        from: &response::Parts,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> bool {
        if !self.rules().has_filters() {
            return true;
        }
        let mut head = from.clone();
        (head.status, head.headers) = (status, headers.clone());
        self.passes_response_filters(request, &head).await
    }

    /// Whether rules, request and response allow to store the response.
    fn is_storable(&self, request: &request::Parts, requested: Timestamp, head: &response::Parts) -> bool {
        let (now, options) = (self.config.clock.now(), &self.config.policy);
        let freshness = Freshness::new(head.status, &head.headers, requested, now, options);
        self.judge(request, &request.method, head.status, &head.headers, freshness).is_ok()
    }

    /// Whether a response may be stored, and what is settled then; else the freshness that it has by itself.
    pub(super) fn judge(
        &self,
        request: &request::Parts,
        method: &Method,
        status: StatusCode,
        headers: &HeaderMap,
        freshness: Freshness,
    ) -> std::result::Result<Judged, (Freshness, NotStored)> {
        let options = &self.config.policy;
        let asked = self.directives(request);
        // A tape keeps everything for ever, whatever is said for one request.
        let options_of = self::options(request).filter(|_| self.config.tape.is_none());
        let own = options_of.and_then(CacheOptions::given_ttl);
        let url = || self.ruled_uri(request);
        let terms = self.rules().terms(own, url, status, headers);
        let by_content = is_by_content(request);
        let method = if by_content { &request.method } else { method };
        let request = &request.headers;
        let exchanged = policy::Exchanged { method, by_content, request, status, response: headers };
        let given = match terms.settle(status, headers, &freshness, options) {
            Ok(given) => given,
            Err(reason) => return Err((freshness, reason)),
        };
        let freshness = freshness.with(given);
        let names = policy::storable(exchanged, &asked, &freshness, given, &terms, options)
            .and_then(|()| policy::selecting_names(headers, options, terms.despite));
        match names {
            Ok(_) if asked.read_only => Err((freshness, NotStored::ReadOnly)),
            Ok(names) => Ok(Judged { freshness, given, names }),
            Err(reason) => Err((freshness, reason)),
        }
    }
}

fn options(parts: &request::Parts) -> Option<&CacheOptions> {
    parts.extensions.get()
}
