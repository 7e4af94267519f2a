//! The model of the cache.
//!
//! It records every response of the origin and every invalidation for ever, and compares by brute force. Instead of one
//! answer, it computes which answers are allowed, because the order of events leaves the cache a choice.

use std::fmt;

use http::HeaderMap;
use tower_response_cache::{StaleReason, Timestamp};

use super::demands::Demands;

/// A step of the schedule, and the time of the clock in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub step: u64,
    /// In milliseconds.
    pub time: u64,
}

impl Moment {
    pub fn at(step: u64, time: Timestamp) -> Self {
        Self { step, time: time.as_millis() }
    }
}

/// The Cache-Control directives of a response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// In seconds.
    pub max_age: Option<u64>,
    pub stale_while_revalidate: u64,
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
}

impl Control {
    pub fn text(&self) -> String {
        let mut words = Vec::new();
        let flags = [
            (self.no_store, "no-store"),
            (self.no_cache, "no-cache"),
            (self.private, "private"),
            (self.public, "public"),
            (self.must_revalidate, "must-revalidate"),
        ];
        words.extend(flags.iter().filter(|(is_said, _)| *is_said).map(|(_, word)| (*word).to_owned()));
        words.extend(self.max_age.map(|secs| format!("max-age={secs}")));
        if self.stale_while_revalidate > 0 {
            words.push(format!("stale-while-revalidate={}", self.stale_while_revalidate));
        }
        words.join(", ")
    }
}

/// The properties of a request besides its URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub is_head: bool,
    pub is_post: bool,
    pub upgrades: bool,
    pub range: Option<(u64, u64)>,
    pub max_age_zero: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    /// The version that its own If-None-Match names.
    pub has_version: Option<usize>,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            (self.is_head, "HEAD"),
            (self.is_post, "POST"),
            (self.upgrades, "upgrade"),
            (self.max_age_zero, "max-age=0"),
            (self.no_cache, "no-cache"),
            (self.only_if_cached, "only-if-cached"),
        ];
        flags.iter().filter(|(is_said, _)| *is_said).try_for_each(|(_, word)| write!(f, "{word} "))?;
        self.range.map_or(Ok(()), |(from, to)| write!(f, "bytes={from}-{to} "))?;
        self.has_version.map_or(Ok(()), |version| write!(f, "if-none-match v{version}"))
    }
}

impl Wish {
    /// Returns whether this is a GET with none of these fields.
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// The request of a caller.
#[derive(Clone, Debug)]
pub struct Asked {
    pub uri: usize,
    pub lang: u8,
    pub user: Option<u8>,
    pub wish: Wish,
    pub began: Moment,
    /// The moment at which it was answered, or its caller was dropped.
    pub over: Option<Moment>,
}

/// A version of a resource at the origin.
///
/// Each response that confirms no earlier version is a new one.
#[derive(Clone, Debug)]
pub struct Version {
    pub uri: usize,
    pub status: u16,
    pub body: Vec<u8>,
    pub has_tag: bool,
    /// The announced Content-Length.
    pub len: Option<usize>,
    /// Whether Content-Length contradicts the body, which then has a transfer coding.
    pub is_contradicted: bool,
    /// Whether its body broke off.
    pub is_broken: bool,
    pub lang: u8,
    pub user: Option<u8>,
}

/// A response of the origin about a version.
///
/// It brings the version itself, or is a 304 or the response to a HEAD.
#[derive(Clone, Debug)]
pub struct Contact {
    pub version: usize,
    pub uri: usize,
    /// The number of the request that was forwarded for it.
    pub owner: usize,
    pub lang: u8,
    pub user: Option<u8>,
    pub control: Control,
    pub began: Moment,
    pub answered: Moment,
    pub is_get: bool,
    pub is_part: bool,
    /// Whether other requests could follow its fetch.
    pub is_led: bool,
    /// Whether it confirmed an earlier version.
    pub is_confirmed: bool,
    /// Whether it was, or may have been, fetched in the background.
    pub is_refresh: bool,
    /// The moment at which a caller first got it. The cache has seen it by then.
    pub received: Option<Moment>,
    /// The moment at which its body ended.
    ///
    /// The first caller had read it to its end, or it broke off, or the cache dropped it.
    pub whole: Option<Moment>,
}

/// A call that has reached the origin.
#[derive(Clone, Debug)]
pub struct Called {
    pub uri: usize,
    pub owner: usize,
    pub began: Moment,
    pub is_post: bool,
    /// Whether other requests may follow it.
    pub is_led: bool,
    pub answered: Option<Moment>,
    pub contact: Option<usize>,
    /// Whether the cache dropped it before the answer.
    pub is_dropped: bool,
}

/// An event that invalidates, or may invalidate, the stored responses of a URI.
#[derive(Clone, Debug)]
pub struct Invalidation {
    pub uri: usize,
    pub began: Moment,
    pub completed: Option<Moment>,
    /// Whether it may still be carried out at any time.
    ///
    /// Its caller has gone, or it was not carried out completely.
    pub is_abandoned: bool,
    /// Whether no response from before it may be served after it.
    pub is_certain: bool,
}

/// A response that was read to its end, and must be found from then on.
#[derive(Clone, Debug)]
struct Settled {
    uri: usize,
    contact: usize,
    since: Moment,
}

/// An event that may have changed the stored responses of a URI.
#[derive(Clone, Copy, Debug)]
struct Event {
    uri: usize,
    step: u64,
    contact: Option<usize>,
}

/// A violated rule.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: &'static str,
    pub text: String,
}

pub type Checked = Result<(), Violation>;

pub fn violation<T>(rule: &'static str, text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { rule, text: text.into() })
}

/// The settings that the rules depend on.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub is_shared: bool,
    /// The seconds for which a stale response may be served if the origin fails.
    pub stale_if_error: u64,
    /// Whether Vary names the language, for each URI.
    pub varies: [bool; 3],
    pub demands: Demands,
}

#[derive(Debug)]
pub struct Model {
    pub setting: Setting,
    pub requests: Vec<Asked>,
    pub versions: Vec<Version>,
    pub contacts: Vec<Contact>,
    pub calls: Vec<Called>,
    pub invalidations: Vec<Invalidation>,
    settled: Vec<Settled>,
    events: Vec<Event>,
    /// Whether the storage may have failed or lost something. What must be found is not known any more.
    pub is_faulty: bool,
    /// Whether requests for each URI, without and with credentials, need not wait for another's fetch.
    ///
    /// They need not after a response that was for its own caller only.
    alone: [[bool; 2]; 3],
    /// The last step in which a fetch of each URI could not be shared.
    ///
    /// It failed, was dropped, or brought a response for its own caller only.
    parted: [u64; 3],
}

/// The length of a chunk in bytes. Long bodies have several chunks.
pub const CHUNK: usize = 8;
/// The time in milliseconds that a request waits for the fetch of another.
const PATIENCE: u64 = 10_000;

impl Model {
    pub fn new(setting: Setting) -> Self {
        Self {
            setting,
            requests: Vec::new(),
            versions: Vec::new(),
            contacts: Vec::new(),
            calls: Vec::new(),
            invalidations: Vec::new(),
            settled: Vec::new(),
            events: Vec::new(),
            is_faulty: false,
            alone: [[false; 2]; 3],
            parted: [0; 3],
        }
    }

    /// Returns whether the response may be stored at all.
    fn is_storable(&self, contact: &Contact) -> bool {
        let (control, version) = (contact.control, &self.versions[contact.version]);
        let may_be_kept = !control.no_store
            && (!self.setting.is_shared || (!control.private && self.is_for_others(contact)));
        let is_of_use = control.max_age.is_some_and(|secs| secs > 0) || version.has_tag;
        version.status == 200 && !contact.is_part && may_be_kept && is_of_use
    }

    /// Returns whether a shared cache may store the response despite credentials (RFC 9111 §3.5).
    fn is_for_others(&self, contact: &Contact) -> bool {
        contact.user.is_none() || contact.control.public || contact.control.must_revalidate
    }

    /// Returns whether only the credentials of its request keep a response from others.
    ///
    /// Such a response says nothing about requests without credentials.
    fn is_for_credentials(&self, contact: &Contact) -> bool {
        let without = Contact { user: None, ..contact.clone() };
        self.setting.demands.leaders_with_credentials
            && self.setting.is_shared
            && !self.is_for_others(contact)
            && self.is_usable(&without)
            && contact.is_get
    }

    /// Returns whether the response answers other requests without validation.
    fn is_usable(&self, contact: &Contact) -> bool {
        let control = contact.control;
        let lifetime = 1000 * control.max_age.unwrap_or_default();
        let is_fresh = contact.answered.time - contact.began.time < lifetime;
        self.is_storable(contact) && is_fresh && !control.no_cache
    }

    /// Returns whether a request's fields select the response to another one (RFC 9111 §4.1).
    fn selects(&self, uri: usize, (lang, user): (u8, Option<u8>), contact: &Contact) -> bool {
        (!self.setting.varies[uri] || lang == contact.lang)
            && (self.setting.is_shared || user == contact.user)
    }

    // --- events ------------------------------------------------------------------------------------------------------

    /// Records a call that has reached the origin, and checks that it was needed.
    pub fn arrives(&mut self, mut called: Called) -> Checked {
        let asked = self.requests[called.owner].clone();
        let has_parted =
            self.parted[called.uri] >= asked.began.step || self.is_parting(called.uri, asked.began.step);
        // A request that finds a fetch of no use to it fetches by itself.
        let has_missed = !self.setting.demands.stale_flights
            && self.has_stale_flight(called.uri, asked.began.step, called.began);
        called.is_led = asked.wish.is_plain() && !self.is_alone(&asked) && !has_parted && !has_missed;
        let checked = self.check_arrival(&called, &asked);
        self.calls.push(called);
        checked
    }

    fn check_arrival(&self, called: &Called, asked: &Asked) -> Checked {
        let owner = called.owner;
        if asked.wish.only_if_cached && !called.is_post {
            return violation("only-if-cached", format!("request {owner} wants only what is stored"));
        }
        if let Some(found) = self.must_be_found(asked, called.began) {
            let text =
                format!("request {owner} goes to the origin, though contact {found} was read to its end");
            return violation("a needless fetch", text);
        }
        // A response with no-cache is validated by every request that uses it.
        if self.contacts.iter().any(|one| one.uri == asked.uri && one.control.no_cache) {
            return Ok(());
        }
        // Background refreshes have rules of their own.
        if self.is_faulty || asked.over.is_some() || !asked.wish.is_plain() || self.is_alone(asked) {
            return Ok(());
        }
        // If all responses so far were for requests with credentials only, they do not matter to requests without.
        let is_nothing = |contact: usize| {
            let mut all = self.contacts.iter().filter(|one| one.uri == asked.uri);
            asked.user.is_none()
                && self.is_for_credentials(&self.contacts[contact])
                && all.all(|one| self.is_for_credentials(one))
        };
        for other in self.calls.iter().filter(|other| other.uri == called.uri && other.owner != owner) {
            let of = &self.requests[other.owner];
            let is_alike = of.wish.is_plain()
                && !other.is_dropped
                && (!self.setting.varies[asked.uri] || of.lang == asked.lang)
                && of.user == asked.user;
            let began = of.began.step.min(asked.began.step);
            let is_disturbed = self.parted[asked.uri] >= began
                || self.is_parting(asked.uri, began)
                || self.has_unled(asked.uri, began)
                || self.has_ended(asked.uri, of.began.time.min(asked.began.time), called.began.time)
                || (!self.setting.demands.stale_flights
                    && self.has_stale_flight(asked.uri, began, called.began))
                || (!self.setting.demands.variants_beside && self.has_other_flight(asked, began))
                || self.is_touched_since(asked.uri, of.began.step)
                || self.events.iter().any(|event| {
                    event.uri == asked.uri
                        && event.step >= began
                        && event.contact != other.contact
                        && !event.contact.is_some_and(is_nothing)
                });
            // A fetch that some request has waited for this long gets no more followers.
            let waited = called.began.time - of.began.time.min(asked.began.time);
            if waited < PATIENCE && is_alike && !is_disturbed && self.is_coming(other, asked, called.began) {
                let text = format!("request {owner} fetches what request {} fetches already", other.owner);
                return violation("two fetches for one key", text);
            }
        }
        Ok(())
    }

    /// Returns whether a request can share the response to another request's call.
    ///
    /// It can if the call is unanswered. It also can if the response began before this request and is still coming,
    /// because its body can then be read from its beginning.
    fn is_coming(&self, call: &Called, asked: &Asked, now: Moment) -> bool {
        let Some(answered) = call.answered else { return true };
        let Some(contact) = call.contact.map(|contact| &self.contacts[contact]) else { return false };
        call.is_led
            && answered.step < asked.began.step
            && contact.whole.is_none()
            && self.is_usable(contact)
            && now.time < contact.began.time + 1000 * contact.control.max_age.unwrap_or_default()
    }

    /// Returns whether a request need not wait for another's fetch.
    fn is_alone(&self, asked: &Asked) -> bool {
        self.alone[asked.uri][usize::from(asked.user.is_some())]
    }

    /// Returns whether a response that no request may follow was still coming at that step.
    ///
    /// It may be stored before a response that requests share.
    fn has_unled(&self, uri: usize, step: u64) -> bool {
        let is_coming = |one: &Contact| one.whole.is_none_or(|whole| whole.step >= step);
        self.contacts.iter().any(|one| one.uri == uri && !one.is_led && is_coming(one))
    }

    /// Returns whether a response became stale between two times.
    ///
    /// A lookup before that saw something else than a lookup after it.
    fn has_ended(&self, uri: usize, from: u64, to: u64) -> bool {
        self.contacts.iter().any(|one| {
            let end = one.began.time + 1000 * one.control.max_age.unwrap_or_default();
            one.uri == uri && (from..=to).contains(&end)
        })
    }

    /// Returns whether followers may have learned since a step that they cannot share a fetch.
    ///
    /// The fetch failed, or its response is for its own caller only.
    fn is_parting(&self, uri: usize, step: u64) -> bool {
        self.calls.iter().any(|call| {
            let is_shared = call.contact.is_some_and(|contact| {
                let contact = &self.contacts[contact];
                (self.is_usable(contact) && self.can_have_own(contact)) || self.is_for_credentials(contact)
            });
            let over = self.requests[call.owner].over;
            call.uri == uri
                && call.answered.is_some()
                && !is_shared
                && over.is_none_or(|over| over.step >= step)
        })
    }

    /// Returns whether a response of no use to new requests was still coming at a step.
    ///
    /// It is stale by now, invalidated, or of no use to others, or the origin has answered too long ago.
    fn has_stale_flight(&self, uri: usize, step: u64, now: Moment) -> bool {
        self.contacts.iter().any(|one| {
            let lifetime = 1000 * one.control.max_age.unwrap_or_default();
            let waits = now.time - one.answered.time;
            one.uri == uri
                && one.whole.is_none_or(|whole| whole.step >= step)
                && !self.is_for_credentials(one)
                && (!self.is_usable(one)
                    || self.is_touched_since(uri, one.began.step)
                    || now.time - one.began.time >= lifetime
                    || waits >= PATIENCE)
        })
    }

    /// Returns whether another variant was still coming at a step.
    fn has_other_flight(&self, asked: &Asked, step: u64) -> bool {
        self.contacts.iter().any(|one| {
            one.uri == asked.uri
                && one.whole.is_none_or(|whole| whole.step >= step)
                && !self.is_for_credentials(one)
                && !self.selects(asked.uri, (asked.lang, asked.user), one)
        })
    }

    /// Records that a body broke off, or was dropped before its end.
    pub fn ends(&mut self, version: usize, at: Moment) {
        for contact in self.contacts.iter_mut().filter(|one| one.version == version && !one.is_confirmed) {
            contact.whole.get_or_insert(at);
        }
        self.parted[self.versions[version].uri] = at.step;
    }

    /// Returns whether an invalidation was under way at a step, or came after it.
    fn is_touched_since(&self, uri: usize, step: u64) -> bool {
        let is_since = |moment: Option<Moment>| moment.is_none_or(|moment| moment.step >= step);
        self.invalidations.iter().filter(|one| one.uri == uri).any(|one| {
            let is_under_way = one.is_abandoned || is_since(one.completed);
            // A request that began before it was completed may carry it out once more.
            is_under_way
                || (!self.setting.demands.doubled_tombstones
                    && self.requests.iter().any(|asked| {
                        let began_before = one.completed.is_some_and(|done| asked.began.step < done.step);
                        asked.uri == uri && began_before && is_since(asked.over)
                    }))
        })
    }

    /// Records that the origin answered a call, or failed it (`None`).
    ///
    /// The response may be stored, or change what is stored.
    pub fn answers(&mut self, call: usize, at: Moment, contact: Option<usize>) {
        let called = &mut self.calls[call];
        called.answered = Some(at);
        called.contact = contact;
        let uri = called.uri;
        let Some(number) = contact else {
            self.parted[uri] = at.step;
            return;
        };
        let contact = self.contacts[number].clone();
        let is_usable = self.is_usable(&contact);
        let is_failure = self.versions[contact.version].status >= 500;
        let is_for_one = self.is_for_credentials(&contact);
        if (!is_usable || !contact.is_get) && !is_for_one {
            self.parted[uri] = at.step;
        }
        if is_failure {
            return;
        }
        let is_usable = is_usable && self.can_have_own(&contact);
        self.alone[uri][1] |= !is_usable;
        if !is_for_one {
            self.alone[uri][0] |= !is_usable;
        }
        self.events.push(Event { uri, step: at.step, contact: Some(number) });
        let keeps = is_usable && contact.is_get;
        let settled = std::mem::take(&mut self.settled);
        self.settled = settled
            .into_iter()
            .filter(|one| one.uri != uri || (keeps && self.are_apart(&contact, &self.contacts[one.contact])))
            .collect();
    }

    /// Records that a caller has the head of a response.
    ///
    /// The cache knows the head too. If others may use the response, later fetches may be shared again.
    pub fn receives(&mut self, number: usize, now: Moment) {
        let contact = &mut self.contacts[number];
        if contact.received.is_some() {
            return;
        }
        contact.received = Some(now);
        let contact = contact.clone();
        let is_late = now.time - contact.began.time >= 1000 * contact.control.max_age.unwrap_or_default();
        // The cache may have seen this response before its caller did, and then a later one that cannot be shared.
        let is_last = !self.contacts.iter().any(|one| {
            let came_after = one.answered.step > contact.answered.step;
            one.uri == contact.uri && came_after && !self.is_usable(one)
        });
        if contact.is_get && !contact.is_confirmed && !is_late && is_last && self.is_usable(&contact) {
            self.alone[contact.uri] = [false; 2];
        }
    }

    /// Records that time has passed.
    ///
    /// A response that the cache has not seen yet may be stale when it does, and is then not shared.
    pub fn passes(&mut self, now: Moment) {
        for contact in self.contacts.iter().filter(|contact| contact.received.is_none()) {
            let lifetime = 1000 * contact.control.max_age.unwrap_or_default();
            if now.time - contact.began.time >= lifetime {
                self.alone[contact.uri] = [true; 2];
            }
        }
    }

    /// Returns whether two responses are variants that do not replace each other.
    fn are_apart(&self, one: &Contact, other: &Contact) -> bool {
        // In a private cache, Cookie does not select a `public` response, and other selecting fields begin a new
        // generation.
        let has_same_fields = self.setting.is_shared || one.control.public == other.control.public;
        has_same_fields && !self.selects(other.uri, (one.lang, one.user), other)
    }

    /// Returns whether a response of a URI may be refreshed in the background.
    pub fn may_be_refreshed(&self, uri: usize) -> bool {
        let is_of_it = |one: &Contact| one.uri == uri && one.control.stale_while_revalidate > 0;
        self.setting.stale_if_error > 0 || self.contacts.iter().any(is_of_it)
    }

    /// Records that a request is answered, or its caller has gone.
    pub fn is_over(&mut self, request: usize, at: Moment) {
        self.requests[request].over.get_or_insert(at);
    }

    /// Records that the cache dropped a call before the answer.
    pub fn gives_up(&mut self, call: usize, step: u64) {
        self.calls[call].is_dropped = true;
        let uri = self.calls[call].uri;
        self.parted[uri] = step;
    }

    /// Records that a body broke off or a caller left.
    ///
    /// The requests that shared the fetch may each fetch by themselves.
    pub fn parts(&mut self, uri: usize, step: u64) {
        self.parted[uri] = step;
    }

    /// Records the beginning of an invalidation, and returns its number.
    ///
    /// If it `is_certain`, nothing that was fetched before may be served afterwards.
    pub fn invalidates(&mut self, uri: usize, began: Moment, is_certain: bool) -> usize {
        self.disturb(uri, began.step);
        self.invalidations.push(Invalidation {
            uri,
            began,
            completed: None,
            is_abandoned: false,
            is_certain,
        });
        self.invalidations.len() - 1
    }

    pub fn has_invalidated(&mut self, number: usize, completed: Moment) {
        let one = &mut self.invalidations[number];
        one.completed = Some(completed);
        let uri = one.uri;
        self.disturb(uri, completed.step);
    }

    /// Records that an invalidation was not carried out, or only in part.
    pub fn has_not_invalidated(&mut self, number: usize) {
        let one = &mut self.invalidations[number];
        (one.is_abandoned, one.is_certain) = (true, false);
    }

    fn disturb(&mut self, uri: usize, step: u64) {
        self.settled.retain(|one| one.uri != uri);
        self.events.push(Event { uri, step, contact: None });
    }

    /// Stops demanding that stored responses are found.
    pub fn forget(&mut self) {
        self.is_faulty = true;
        self.settled.clear();
    }

    /// Records that a caller has a whole response.
    ///
    /// It has the last byte, or the head if the body was stored before.
    pub fn has_whole(&mut self, number: usize, at: Moment) {
        self.contacts[number].whole.get_or_insert(at);
        let contact = &self.contacts[number];
        let uri = contact.uri;
        if self.is_faulty || !contact.is_get || !self.is_usable(contact) || !self.can_have_own(contact) {
            return;
        }
        let is_disturbed = self.is_touched_since(uri, contact.began.step)
            || self.events.iter().any(|event| {
                event.uri == uri
                    && event.contact != Some(number)
                    && match event.contact {
                        None => event.step >= contact.began.step,
                        Some(other) => self.disturbs(other, event.step, contact),
                    }
            });
        if !is_disturbed && !self.settled.iter().any(|one| one.contact == number) {
            self.settled.push(Settled { uri, contact: number, since: at });
        }
    }

    /// Returns whether the response can be stored in a record of its own.
    ///
    /// A long body that is confirmed for another variant too is not copied.
    fn can_have_own(&self, contact: &Contact) -> bool {
        let version = &self.versions[contact.version];
        let is_same = version.user == contact.user
            && (!self.setting.varies[contact.uri] || version.lang == contact.lang);
        is_same || version.body.len() <= CHUNK
    }

    /// Returns whether another response may have replaced this one, or kept it from being stored.
    ///
    /// The other one came in the given step.
    fn disturbs(&self, other: usize, step: u64, contact: &Contact) -> bool {
        let other = &self.contacts[other];
        let asked = &self.requests[contact.owner];
        let was_there = other.whole.is_some_and(|whole| whole.step < asked.began.step);
        if !other.is_get || !self.is_usable(other) || !self.are_apart(other, contact) {
            return step >= contact.began.step || !was_there;
        }
        // If two variants are fetched at the same time and the entry is empty, one of them is kept. Requests that share
        // a fetch notice that, and store the other variant as well.
        let share = asked.wish.is_plain() && self.requests[other.owner].wish.is_plain();
        !(was_there || (share && self.setting.demands.variants_beside))
    }

    /// Returns the stored response that must answer this request, if there is one.
    fn must_be_found(&self, asked: &Asked, now: Moment) -> Option<usize> {
        let wish = asked.wish;
        if self.is_faulty || asked.over.is_some() || wish.is_post || wish.no_cache || wish.max_age_zero {
            return None;
        }
        let found = self.settled.iter().find(|one| {
            let contact = &self.contacts[one.contact];
            one.uri == asked.uri
                && !self.is_touched_since(asked.uri, contact.began.step)
                && (self.setting.demands.variants_beside || !self.is_beside_expired(contact, now))
                && one.since.step < asked.began.step
                && self.selects(asked.uri, (asked.lang, asked.user), contact)
                && now.time < contact.began.time + 1000 * contact.control.max_age.unwrap_or_default()
        });
        found.map(|one| one.contact)
    }

    /// Returns a contact that may answer a request and whose version satisfies `is_such`.
    pub fn allowed(
        &self,
        request: usize,
        stale: Option<StaleReason>,
        is_such: impl Fn(usize, &Version) -> bool,
    ) -> Option<usize> {
        let all = self.contacts.iter().enumerate().rev();
        all.filter(|(_, one)| is_such(one.version, &self.versions[one.version]))
            .map(|(number, _)| number)
            .find(|number| self.check_answer(request, *number, stale).is_ok())
    }

    /// Returns whether another variant of the same URI has expired.
    fn is_beside_expired(&self, contact: &Contact, now: Moment) -> bool {
        self.contacts.iter().any(|one| {
            let end = one.began.time + 1000 * one.control.max_age.unwrap_or_default();
            one.uri == contact.uri && end <= now.time && self.are_apart(one, contact)
        })
    }

    /// Returns whether a version may have been invalidated since it was first fetched.
    pub fn may_be_ended(&self, version: usize) -> bool {
        let first = self.contacts.iter().find(|one| one.version == version);
        first.is_some_and(|one| {
            self.invalidations.iter().any(|gone| {
                gone.uri == one.uri && gone.completed.is_none_or(|completed| completed.step >= one.began.step)
            })
        })
    }

    // --- answers to callers ------------------------------------------------------------------------------------------

    /// Checks that the cache was right to refuse a request.
    pub fn check_refusal(&self, request: usize, now: Moment) -> Checked {
        let asked = &self.requests[request];
        if !asked.wish.only_if_cached {
            return violation(
                "a wrong refusal",
                format!("request {request} did not ask for only what is stored"),
            );
        }
        match self.must_be_found(asked, now) {
            Some(found) => violation(
                "a wrong refusal",
                format!("request {request}: contact {found} was read to its end"),
            ),
            None => Ok(()),
        }
    }

    /// Checks that the contact `number` may answer a request.
    ///
    /// `stale` is the reason that the cache gives for serving it stale.
    pub fn check_answer(&self, request: usize, number: usize, stale: Option<StaleReason>) -> Checked {
        let (asked, contact) = (&self.requests[request], &self.contacts[number]);
        let version = &self.versions[contact.version];
        let say = |rule, text: &str| {
            violation(rule, format!("request {request} got contact {number}: {text}; {contact:?} {asked:?}"))
        };
        if contact.uri != asked.uri {
            return say("another URI", "that is another URI's");
        }
        if contact.owner == request && stale.is_none() && contact.began.step >= asked.began.step {
            return Ok(()); // the response to its own call is always right
        }
        if contact.control.no_store || version.status >= 500 || contact.is_part {
            return say("not to be stored", "it was for its caller alone");
        }
        let is_private = contact.control.private || !self.is_for_others(contact);
        if self.setting.is_shared && is_private {
            return say("another user's", "it is one user's");
        }
        if !self.setting.is_shared && asked.user != contact.user {
            return say("another user's", "it is another user's");
        }
        if self.setting.varies[asked.uri] && asked.lang != contact.lang {
            return say("another variant", "it varies");
        }
        for gone in self.invalidations.iter().filter(|gone| gone.uri == asked.uri) {
            if gone.is_certain
                && gone.completed.is_some_and(|completed| completed.step < asked.began.step)
                && contact.began.step < gone.began.step
            {
                return say("invalidated", &format!("it was invalidated: {gone:?}"));
            }
        }
        // The earliest time at which the cache may have judged the response.
        let time = asked.began.time.max(contact.began.time);
        let age = time - contact.began.time;
        let (control, wish) = (contact.control, asked.wish);
        let lifetime = 1000 * control.max_age.unwrap_or_default();
        if (wish.no_cache || control.no_cache) && contact.began.step < asked.began.step {
            return say("not validated", "it was to be validated");
        }
        let came_before = contact.received.is_some_and(|received| received.time < asked.began.time);
        // If the origin fails, a response that is too old may be served (RFC 5861 §4).
        if wish.max_age_zero && age > 0 && came_before && stale.is_none() {
            return say("too old", "it is older than the request wants");
        }
        let window = match stale {
            None => 0,
            Some(_) if control.must_revalidate => 0,
            Some(StaleReason::WhileRevalidate) if !wish.max_age_zero => control.stale_while_revalidate,
            Some(StaleReason::IfError | StaleReason::Failing) if !control.no_cache => {
                self.setting.stale_if_error
            }
            Some(_) => 0,
        };
        if age >= lifetime && (window == 0 || age > lifetime + 1000 * window) {
            return say("stale", &format!("it is stale: {age} ms old"));
        }
        Ok(())
    }

    /// Checks the Age of a response (RFC 9111 §4.2.3), with a tolerance of one second.
    pub fn check_age(&self, request: usize, number: usize, age: u64, now: Moment) -> Checked {
        let (asked, contact) = (&self.requests[request], &self.contacts[number]);
        let least = asked.began.time.saturating_sub(contact.began.time) / 1000;
        let most = (now.time - contact.began.time) / 1000;
        if (least.saturating_sub(1)..=most + 1).contains(&age) {
            return Ok(());
        }
        violation("a wrong age", format!("request {request}: {age} s, and not {least} to {most}"))
    }

    /// Returns the bytes that the body of a response must have.
    pub fn expected(&self, request: usize, version: usize, headers: &HeaderMap, status: u16) -> Vec<u8> {
        if self.requests[request].wish.is_head || matches!(status, 304 | 416) {
            return Vec::new();
        }
        let body = &self.versions[version].body;
        let range = headers.get("content-range").filter(|_| status == 206);
        let Some(range) = range.and_then(|range| range.to_str().ok()) else { return body.clone() };
        let (from, to) = range.trim_start_matches("bytes ").split_once('-').unwrap();
        let to = to.split('/').next().unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        body.get(from..=to).unwrap_or_default().to_vec()
    }
}
