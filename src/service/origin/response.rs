//! Decides whether a response may be stored, and stores it while its caller reads it.
//!
//! # Invariants
//!
//! - Every response, new or freshened, is assessed by [`assess`], so that the same rules apply to both.
//! - A request without options, in a layer without rules, costs no allocation here before the response is stored.
//! - A response that is not shared because of its own request does not keep other requests from sharing the next one.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request, response};
use http_body::{Body, SizeHint};

use super::fetcher::Unstorable;
use super::parts;
use super::{FetchContext, FetchResult, Times};
use crate::body::CacheBody;
use crate::control::{CacheOptions, CacheStatus, Outcome, Stored};
use crate::entry::{self, Membership, StoredResponse};
use crate::error::Result;
use crate::key::EffectiveUri;
use crate::policy::{
    self, Freshness, IgnoredSelectors, NamedGroups, NotStored, RequestDirectives, ResponseDirectives,
    RuleTtl, SelectingFields, UnstoredFields, Verdict,
};
use crate::rules::{RuledResponse, Rules};
use crate::service::body::{Download, Reader};
use crate::service::coalesce::FlightOutcome;
use crate::service::config::Config;
use crate::service::directives::{is_background, options};
use crate::service::records::{
    GroupName, Snapshot, Writer, is_by_content, report_ignored_groups, variant_in,
};
use crate::service::respond::{self, RequestView};
use crate::service::shared::Shared;
use crate::storage::{Key, Record, Stamp, Storage};
use crate::time::Timestamp;

/// How a response may be stored.
pub(super) struct Assessment {
    pub(super) freshness: Freshness,
    /// The lifetime that a rule or the request's options give.
    pub(super) given: Option<RuleTtl>,
    /// The request fields that select the response, by Vary and by settings.
    pub(super) names: SelectingFields,
}

/// Holds the groups of a response, among its extensions, until it is stored.
#[derive(Clone)]
struct JoinedGroups(Arc<[Membership]>);

/// A response without its body, in the form in which it is stored.
struct Storable {
    names: SelectingFields,
    response: StoredResponse,
    /// The fields that are not stored, and are left out of the trailers too.
    unstored: UnstoredFields,
    until: Timestamp,
    freshness: Freshness,
}

impl<S: Storage> Shared<S> {
    /// Returns the current rules.
    ///
    /// It clones the `Arc`, so that the lock is not held while the user's closures in the rules run.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the rules for all further requests.
    pub(crate) fn set_rules(&self, rules: Rules) -> Result<()> {
        rules.check()?;
        // A recording keeps every response, whatever lifetimes the new rules set.
        let rules = if self.config.recording().is_some() { rules.for_a_recording() } else { rules };
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(())
    }
}

/// Decides whether a response may be stored.
///
/// `directives` are those of the response.
///
/// # Errors
///
/// Returns the reason why it may not, and its freshness without rules.
pub(super) fn assess<S: Storage>(
    shared: &Shared<S>,
    method: &Method,
    ruled: &RuledResponse<'_>,
    directives: &ResponseDirectives,
    freshness: Freshness,
) -> std::result::Result<Assessment, (Freshness, NotStored)> {
    let (config, policy_options) = (&shared.config, &shared.config.policy);
    let &RuledResponse { request, status, headers, .. } = ruled;
    let request_directives = config.directives(request);
    // A recording keeps every response, whatever the options of a request say.
    let options = options(request).filter(|_| config.recording().is_none());
    let own = options.and_then(CacheOptions::given_ttl);
    let url = || config.ruled_uri(request, headers);
    let decision = shared.rules().decision(own, url, ruled);
    // The response to a request that is selected by its content is stored under the request's method, even where it is
    // assessed as the response to a GET.
    let by_content = is_by_content(request);
    let method = if by_content { &request.method } else { method };
    let request = &request.headers;
    let exchanged = policy::HttpExchange { method, by_content, request, status, response: headers };
    let given = match decision.rule_ttl(status, headers, directives, &freshness, policy_options) {
        Ok(given) => given,
        Err(reason) => return Err((freshness, reason)),
    };
    let freshness = freshness.with_rule_ttl(given);
    let storable = policy::storable(
        exchanged,
        &request_directives,
        directives,
        &freshness,
        given,
        &decision,
        policy_options,
    );
    let names = storable
        .and_then(|()| policy::selecting_names(headers, directives, policy_options, decision.despite));
    match names {
        // Checked last, so that a response that could not be stored anyway is reported with its own reason.
        Ok(_) if request_directives.read_only => Err((freshness, NotStored::ReadOnly)),
        Ok(names) => {
            let ignored_selectors = IgnoredSelectors::by(policy_options, headers, decision.despite, &names);
            Ok(Assessment { freshness, given, names: SelectingFields { names, ignored_selectors } })
        }
        Err(reason) => Err((freshness, reason)),
    }
}

/// Returns whether the stored response could be stored as the response to this request.
///
/// A background refresh needs this: if its request has credentials with which the response may not be stored, the refresh
/// would put the stored response out of use.
pub(crate) fn may_store_for<S: Storage>(shared: &Shared<S>, parts: &request::Parts, record: &Record) -> bool {
    let Some(stored) = variant_in(record).map(|variant| &variant.response) else { return false };
    let freshness = stored.freshness(shared.records.number, &shared.config.policy).into_owned();
    let directives = ResponseDirectives::of(&stored.headers, &shared.config.policy);
    let len = Some(stored.body().len());
    let ruled = RuledResponse { request: parts, status: stored.status, headers: &stored.headers, len };
    assess(shared, &parts.method, &ruled, &directives, freshness).is_ok()
}

/// Returns whether [`filter_and_join`] has anything to do.
///
/// It has not for most responses, which then need no future of its size.
pub(super) fn needs_filter_or_join<S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    response: &HeaderMap,
) -> bool {
    let rules = shared.rules();
    rules.has_filters()
        || rules.has_tags()
        || policy::names_groups(response)
        || shared.config.tag_fn.is_some()
        || policy::has_tag_field(response, &shared.config.policy.tag_fields)
        || options(request).is_some_and(|options| options.tag_names().next().is_some())
}

/// Applies the user's filters to a response, and joins its groups.
///
/// A response that may not be stored is marked in its extensions. Everything that has to wait for a filter or the storage is
/// done here, so that [`store_and_respond`] need not be async.
pub(super) async fn filter_and_join<S: Storage, B: Body>(
    shared: &Arc<Shared<S>>,
    request: &request::Parts,
    snapshot: Option<&Snapshot>,
    requested: Timestamp,
    response: Response<B>,
) -> Response<B> {
    shared.records.invalidate_named(request, response.headers()).await;
    let (mut head, body) = response.into_parts();
    let len = known_len(&head.headers, &body);
    if !passes_filters(shared, request, &head).await {
        head.extensions.insert(Unstorable(NotStored::Filtered));
    }
    if let Some(snapshot) = snapshot {
        let ruled = RuledResponse { request, status: head.status, headers: &head.headers, len };
        let is_storable =
            || Unstorable::reason(&head.extensions).is_none() && is_storable(shared, requested, &ruled);
        match join_groups(shared, snapshot, requested, &ruled, &[], is_storable).await {
            Ok(groups) if groups.is_empty() => {}
            Ok(groups) => drop(head.extensions.insert(JoinedGroups(groups))),
            Err(reason) => drop(head.extensions.insert(Unstorable(reason))),
        }
    }
    Response::from_parts(head, body)
}

/// Returns whether a response should wait until the storage has room for it.
///
/// A response that replaces a stored one is written in any case, see [`store_and_respond`].
pub(super) fn waits_for_room<S: Storage>(shared: &Shared<S>, snapshot: Option<&Snapshot>) -> bool {
    shared.records.storage.makes_wait() && snapshot.is_some_and(|snapshot| snapshot.usable.is_none())
}

/// Waits until the storage has room for a response, if it may be stored.
///
/// So a caller that fetches faster than the storage writes is slowed down for a short time, and its responses are stored. A
/// response for which there is no room in time is marked in its extensions, unless it has followers, as in
/// [`store_and_respond`].
pub(super) async fn wait_for_room<S: Storage, B: Body>(
    shared: &Arc<Shared<S>>,
    request: &request::Parts,
    requested: Timestamp,
    response: Response<B>,
    context: &FetchContext<S>,
) -> Response<B> {
    // Taken apart, since a reference to a response with a body that is not `Sync` could not be held over the wait.
    let (mut head, body) = response.into_parts();
    let records = &shared.records;
    let len = known_len(&head.headers, &body);
    let ruled = RuledResponse { request, status: head.status, headers: &head.headers, len };
    if Unstorable::reason(&head.extensions).is_none()
        && is_storable(shared, requested, &ruled)
        && !records.storage.room().await
        && !context.is_followed()
    {
        records.storage.count_shed();
        head.extensions.insert(Unstorable(NotStored::StorageBusy));
    }
    Response::from_parts(head, body)
}

/// Joins the groups that a response names, and the tags that it is given.
///
/// `before` are the groups of the stored response that it freshens, whose tags it keeps. A response that is not storable
/// joins no group, so that no group record is written for it.
///
/// # Errors
///
/// Returns why the response may not be stored.
pub(super) async fn join_groups<S: Storage>(
    shared: &Arc<Shared<S>>,
    snapshot: &Snapshot,
    requested: Timestamp,
    ruled: &RuledResponse<'_>,
    before: &[Membership],
    is_storable: impl FnOnce() -> bool + Send,
) -> std::result::Result<Arc<[Membership]>, NotStored> {
    // A recording is never invalidated.
    if shared.config.recording().is_some() {
        return Ok(Arc::default());
    }
    let named = named_groups(shared, ruled, before)?;
    if named.is_empty() || !is_storable() {
        return Ok(Arc::default());
    }
    shared.records.join(snapshot, requested, named).await
}

/// Returns the names of the groups and tags of a response.
///
/// # Errors
///
/// Returns why the response may not be stored: a tag cannot be kept.
fn named_groups<S: Storage>(
    shared: &Shared<S>,
    ruled: &RuledResponse<'_>,
    before: &[Membership],
) -> std::result::Result<Vec<GroupName>, NotStored> {
    let &RuledResponse { request, status, headers, .. } = ruled;
    let group = |name| GroupName { is_tag: false, name };
    let tag = |name: &str| GroupName { is_tag: true, name: name.to_owned() };
    let NamedGroups { names, ignored } = policy::groups(headers);
    report_ignored_groups("cache-groups", ignored);
    let mut named: Vec<GroupName> = names.into_iter().map(group).collect();
    named.extend(options(request).into_iter().flat_map(CacheOptions::tag_names).map(tag));
    let uri = || shared.config.ruled_uri(request, headers);
    shared.rules().tags(uri, ruled, |name| named.push(tag(name)));
    named.extend(policy::field_tags(headers, &shared.config.policy.tag_fields)?.into_iter().map(tag));
    if let Some(tags_of) = &shared.config.tag_fn {
        let (mut response, ()) = Response::new(()).into_parts();
        (response.status, response.headers) = (status, headers.clone());
        for name in tags_of(request, &response) {
            policy::check_tag(&name)?;
            named.push(GroupName { is_tag: true, name });
        }
    }
    named.extend(before.iter().filter(|group| group.is_tag).map(|group| tag(&group.name)));
    // Without duplicates, since joining a group costs a storage operation.
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

/// Returns whether the user's filters permit to store a response.
async fn passes_filters<S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    head: &response::Parts,
) -> bool {
    let rules = shared.rules();
    !rules.has_filters() || rules.admit(request, head).await
}

/// Returns whether the user's filters permit to store a freshened response.
///
/// The filters get the response as it would be stored: `from` with the status and the fields of the stored response.
pub(super) async fn freshened_passes_filters<S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    from: &response::Parts,
    status: StatusCode,
    headers: &HeaderMap,
) -> bool {
    if !shared.rules().has_filters() {
        return true;
    }
    let mut head = from.clone();
    (head.status, head.headers) = (status, headers.clone());
    passes_filters(shared, request, &head).await
}

/// Returns whether a response may be stored, by the current time.
fn is_storable<S: Storage>(shared: &Shared<S>, requested: Timestamp, ruled: &RuledResponse<'_>) -> bool {
    let &RuledResponse { request, status, headers, .. } = ruled;
    let (now, options) = (shared.config.clock.now(), &shared.config.policy);
    let directives = ResponseDirectives::of(headers, options);
    let freshness = Freshness::by_directives(status, headers, &directives, requested, now, options);
    assess(shared, &request.method, ruled, &directives, freshness).is_ok()
}

/// A response of the origin, which may be being stored.
pub(super) enum Begun<S: Storage, B> {
    Unstored {
        response: Response<CacheBody<B>>,
        status: CacheStatus,
        flight_outcome: FlightOutcome<S>,
    },
    Storing {
        head: response::Parts,
        /// Reads the body for the caller.
        reader: Reader<S>,
        download: Arc<Download<S>>,
        status: CacheStatus,
        placeholder: Option<Stamp>,
    },
}

/// Returns the origin's response for the caller, and stores it if it may be stored.
///
/// `snapshot` says where it is stored; `None` if the storage failed, so that it is not known what is there.
pub(super) fn store_and_respond<S, B>(
    shared: &Arc<Shared<S>>,
    request: &request::Parts,
    snapshot: Option<Snapshot>,
    response: Response<CacheBody<B>>,
    times: Times,
    outcome: Outcome,
    context: &mut FetchContext<S>,
) -> FetchResult<S, B>
where
    S: Storage,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (head, reader, download, status, placeholder) =
        match store(shared, request, snapshot, response, times, outcome, context) {
            Begun::Unstored { response, status, flight_outcome } => {
                return FetchResult::new(respond::finish(shared, response, status), flight_outcome);
            }
            Begun::Storing { head, reader, download, status, placeholder } => {
                (head, reader, download, status, placeholder)
            }
        };
    let is_narrowed = head.status == StatusCode::OK && context.strips_conditions;
    // The caller wants only a part of the body, and the followers may want the rest. The caller's part is read by another
    // reader, and the leading reader is left to the download.
    let part = is_narrowed.then(|| context.flight.upgrade().unwrap_or_else(|| Arc::new(())));
    let part = part.and_then(|token| {
        respond::from_download(shared, RequestView::of(request), Arc::clone(&download), token, status)
    });
    let response = match part {
        Some(response) => {
            reader.leave_to_others();
            response
        }
        None => {
            let body = CacheBody::from_source(Box::new(reader));
            respond::finish(shared, Response::from_parts(head, body), status)
        }
    };
    FetchResult { response, flight_outcome: FlightOutcome::Streaming(download), placeholder }
}

/// Begins to store a response of the origin, if it may be stored.
///
/// `snapshot` says where it is stored; `None` if the storage failed, so that it is not known what is there.
pub(super) fn store<S, B>(
    shared: &Arc<Shared<S>>,
    request: &request::Parts,
    snapshot: Option<Snapshot>,
    response: Response<CacheBody<B>>,
    times: Times,
    outcome: Outcome,
    context: &mut FetchContext<S>,
) -> Begun<S, B>
where
    S: Storage,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (config, records) = (&shared.config, &shared.records);
    let (mut head, body) = response.into_parts();
    let groups =
        head.extensions.remove::<JoinedGroups>().map(|JoinedGroups(groups)| groups).unwrap_or_default();
    let hint = body.size_hint();
    let mut expected = known_len(&head.headers, &body);
    let entry = snapshot.as_ref().map(|snapshot| snapshot.head);
    let snapshot = snapshot.map(|snapshot| snapshot.for_response(&head.headers));
    let mut status = CacheStatus::new(outcome, Stored::No(NotStored::StorageFailed));
    status.origin_status = Some(head.status.as_u16());
    status.is_background = is_background(request, records.number);
    let storable = snapshot.ok_or(NotStored::StorageFailed).and_then(|snapshot| {
        let (storable, part) = if head.status == StatusCode::PARTIAL_CONTENT && config.store_parts {
            let about = parts::part(shared, request, &snapshot, &head, expected)?;
            expected = Some(about.len);
            let about_whole = ((&about.head, groups), (expected, hint), times);
            let storable = storable(shared, request, &snapshot, about_whole.0, about_whole.1, about_whole.2)?;
            (storable, Some(about.part))
        } else {
            (storable(shared, request, &snapshot, (&head, groups), (expected, hint), times)?, None)
        };
        // A storage with a full backlog gets no further response, with two exceptions. A response that has followers reaches
        // them only by being stored. One that replaces a stored response is written, or the older one would be served again.
        if snapshot.usable.is_none() && !context.is_followed() && records.storage.is_busy() {
            records.storage.count_shed();
            return Err(NotStored::StorageBusy);
        }
        Ok((snapshot, storable, part))
    });
    let (snapshot, storable, part) = match storable {
        Ok(storable) => storable,
        Err(reason) => {
            status.stored = Stored::No(reason);
            let flight_outcome =
                outcome_for_followers(shared, entry.filter(|_| context.is_led), &status, times.responded);
            return Begun::Unstored { response: Response::from_parts(head, body), status, flight_outcome };
        }
    };
    let Storable { names, response, unstored, until, freshness } = storable;
    status.stored = Stored::Storing;
    status.set_ttl(freshness.ttl(times.responded));
    let about = (response, unstored);
    if !snapshot.is_for_queries() {
        let began = snapshot.at.min(times.requested);
        records.list_value((&snapshot.key_text, began), &head.headers, until);
    }
    let writer =
        Writer::new(Arc::clone(records), snapshot, names, request, about, until, context.lease.take());
    let writer = match part {
        Some(part) => writer.with_part(part),
        None => writer,
    };
    let freshness = writer.response().freshness(records.number, &config.policy);
    update_coalescing(shared, writer.head(), &freshness, times.responded);
    if let Some(other) = entry.filter(|entry| *entry != writer.head()) {
        update_coalescing(shared, other, &freshness, times.responded);
    }
    let placeholder = writer.placeholder_stamp();
    // Not every body says, at the end of its data, that its trailers are still to come.
    let awaits_trailers = head.headers.contains_key(header::TRAILER);
    let download = Download::new(Arc::new(writer), body, expected, awaits_trailers);
    let reader = Reader::leader(Arc::clone(&download), context.flight.upgrade(), context.is_background);
    Begun::Storing { head, reader, download, status, placeholder }
}

/// Returns the outcome for the followers of a response that is not stored.
///
/// An entry whose response must not be shared is remembered as uncoalescable, until it gets a response that can be shared.
/// `entry` is `None` if the request leads no flight.
pub(super) fn outcome_for_followers<S: Storage>(
    shared: &Shared<S>,
    entry: Option<Key>,
    status: &CacheStatus,
    now: Timestamp,
) -> FlightOutcome<S> {
    let Some(entry) = entry else { return FlightOutcome::Private };
    match (status.origin_status.filter(|code| *code >= 500), status.stored) {
        // A failure says nothing about the responses to come.
        (failed @ Some(_), _) => FlightOutcome::Failed(failed),
        // An interim response is the answer to no request (RFC 9110 §15.2).
        _ if matches!(status.origin_status, Some(100..=199)) => {
            FlightOutcome::RequestSpecific(NotStored::StatusNotCacheable)
        }
        // A busy storage says nothing about the entry: the followers look again, and one of them leads.
        (None, Stored::No(NotStored::StorageBusy)) => FlightOutcome::Abandoned,
        // Nor does a reason that lies in the request. One unusual request must not send all followers to the origin.
        (None, Stored::No(reason)) if reason.is_request_specific(status.origin_status) => {
            if reason == NotStored::Authorization {
                shared.records.uncoalescable_authorized.add(entry, now, None);
            }
            FlightOutcome::RequestSpecific(reason)
        }
        (None, _) => {
            shared.records.uncoalescable.add(entry, now, None);
            FlightOutcome::Private
        }
    }
}

/// Updates whether requests for an entry wait for each other.
///
/// A response that is stale at once, or has to be validated for each request, cannot answer followers. Requests for its
/// entry then do not wait for each other.
pub(super) fn update_coalescing<S: Storage>(
    shared: &Shared<S>,
    head: Key,
    freshness: &Freshness,
    now: Timestamp,
) {
    match policy::decide(&RequestDirectives::default(), freshness, now) {
        Verdict::Serve => {
            shared.records.uncoalescable.forget(head);
            shared.records.uncoalescable_authorized.forget(head);
        }
        _ => shared.records.uncoalescable.add(head, now, None),
    }
}

/// Returns a response in the form in which it is stored.
///
/// # Errors
///
/// Returns why it is not stored.
fn storable<S: Storage>(
    shared: &Shared<S>,
    request: &request::Parts,
    snapshot: &Snapshot,
    (head, groups): (&response::Parts, Arc<[Membership]>),
    (expected, hint): (Option<u64>, SizeHint),
    times: Times,
) -> std::result::Result<Storable, NotStored> {
    let (config, options) = (&shared.config, &shared.config.policy);
    if config.answers_elsewhere(snapshot, head) {
        return Err(NotStored::Redirected);
    }
    if let Some(reason) = Unstorable::reason(&head.extensions) {
        return Err(reason);
    }
    // Parsed once for everything that follows, since it is a considerable part of the cost of a miss.
    let directives = ResponseDirectives::of(&head.headers, options);
    let Times { requested, responded } = times;
    let freshness =
        Freshness::by_directives(head.status, &head.headers, &directives, requested, responded, options);
    let ruled = RuledResponse { request, status: head.status, headers: &head.headers, len: expected };
    let assessment = assess(shared, &request.method, &ruled, &directives, freshness);
    let Assessment { freshness, given, names } = assessment.map_err(|(_, reason)| reason)?;
    // The body's size hint contradicts the announced length, so that one of them is wrong.
    if expected.is_some_and(|len| hint.lower() > len || hint.upper().is_some_and(|most| most < len)) {
        return Err(NotStored::LengthMismatch);
    }
    if expected.unwrap_or(hint.lower()) > config.max_body_bytes {
        return Err(NotStored::TooLarge);
    }
    if expected.or(hint.upper()).is_some_and(|most| most < config.min_body_bytes) {
        return Err(NotStored::TooSmall);
    }
    let unstored = UnstoredFields::by(&head.headers, &directives, options);
    // Date and Age, and Cache-Status and ETag in the copies of each hit, which keep the size of the index.
    let has_date = head.headers.contains_key(header::DATE);
    let added = 1
        + usize::from(!has_date)
        + usize::from(config.status_field.is_some())
        + usize::from(config.make_etags);
    let mut headers = policy::stored_headers(&head.headers, &unstored, added);
    policy::ensure_date(&mut headers, times.responded);
    // A hit overwrites this value, which is cheaper than adding a field to the map.
    headers.insert(header::AGE, HeaderValue::from_static("0"));
    let headers = entry::fit(headers);
    let initial_age_ms = u64::try_from(freshness.initial_age.as_millis()).unwrap_or(u64::MAX);
    // Lookups would compute the same from the stored fields, so that the first of them need not. Not if a Date was added here,
    // or a rule counts from an age in whole milliseconds: their lifetime would differ by less than a second.
    let is_alike = unstored.is_empty()
        && given.is_none()
        && (has_date || directives.max_age.or(directives.s_maxage).is_some());
    let known = Freshness { initial_age: Duration::from_millis(initial_age_ms), ..freshness.clone() };
    let response = StoredResponse {
        status: head.status,
        headers,
        initial_age_ms,
        request_time: times.requested,
        response_time: times.responded,
        given,
        expired_at: None,
        groups,
        content: OnceLock::new(),
        freshness: if is_alike { OnceLock::from((shared.records.number, known)) } else { OnceLock::new() },
    };
    debug_assert_eq!(
        *response.freshness(shared.records.number, options),
        *StoredResponse { freshness: OnceLock::new(), ..response.clone() }
            .freshness(shared.records.number, options),
    );
    Ok(Storable { names, response, unstored, until: freshness.retain_until(options), freshness })
}

impl Config {
    /// Returns whether a response may be applied to the stored one.
    ///
    /// It may not if it comes from another URI, or if its fetcher says that it must not be stored.
    pub(super) fn is_about(&self, snapshot: &Snapshot, head: &response::Parts) -> bool {
        !self.answers_elsewhere(snapshot, head) && Unstorable::reason(&head.extensions).is_none()
    }

    /// Returns whether the response comes from another URI, because the inner service followed redirects.
    fn answers_elsewhere(&self, snapshot: &Snapshot, head: &response::Parts) -> bool {
        let is_elsewhere =
            |uri: &Uri| !EffectiveUri::of_uri(uri).is_some_and(|uri| uri.is_text(snapshot.uri_text()));
        self.final_uris(head).iter().flatten().any(is_elsewhere)
    }

    /// Returns the URIs from which a response came after redirects, as far as the inner service tells them.
    pub(super) fn final_uris(&self, head: &response::Parts) -> [Option<Uri>; 2] {
        #[cfg(feature = "follow-redirect")]
        let followed =
            head.extensions.get::<tower_http::follow_redirect::RequestUri>().map(|uri| uri.0.clone());
        #[cfg(not(feature = "follow-redirect"))]
        let followed = None;
        [followed, self.final_uri.as_ref().and_then(|final_uri| final_uri(head))]
    }
}

/// Returns the length of a body that has not arrived yet, if it is known.
fn known_len(headers: &HeaderMap, body: &impl Body) -> Option<u64> {
    content_length(headers).or_else(|| body.size_hint().exact())
}

/// Returns the announced length of a body.
///
/// Returns `None` if no length or more than one is announced.
///
/// Transfer-Encoding overrides Content-Length (RFC 9112 §6.3).
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next()?.to_str().ok()?.parse().ok()?;
    lengths.next().is_none().then_some(length)
}
