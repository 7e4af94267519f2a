//! Answers a follower from the outcome of another request's fetch.
//!
//! # Invariants
//!
//! - An outcome answers a follower only if the same response would answer it from the storage.
//! - An outcome answers a follower only if it was fetched for the same key, and nothing was written there since.
//! - A follower that cannot use an outcome goes on at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use super::exchange::{Exchange, Step};
use crate::control::{MissReason, Outcome, Stored};
use crate::entry::{StoredResponse, decode};
use crate::policy::{self, NotStored, RequestDirectives, StaleReason, Verdict};
use crate::service::body::{Download, Reader};
use crate::service::coalesce::{Flight, FlightOutcome};
use crate::service::origin::{Fetcher, Need, stale_on_error};
use crate::service::records::{GroupState, variant_in};
use crate::service::respond::{self, RequestView, stored_status};
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

/// Tells whether the response of a flight answers a follower.
enum Fit {
    Yes,
    /// It is another variant than the follower's, whose key this is.
    Other(Key),
    /// It is stale, or belongs to a group that has been invalidated or expired: it answers no further request.
    Ended,
    No,
}

impl<S: Storage, F: Fetcher> Exchange<S, F> {
    /// Returns the next step of a follower after a flight has ended with an outcome.
    pub(super) async fn follow(
        &mut self,
        flight: Arc<Flight<FlightOutcome<S>>>,
        flight_outcome: FlightOutcome<S>,
    ) -> Step<S, F::Body> {
        match flight_outcome {
            FlightOutcome::LookAgain | FlightOutcome::Abandoned => Step::LookAgain,
            // Another lookup would find nothing, and the response to this request will not be stored either.
            FlightOutcome::Private => Step::Fetch,
            FlightOutcome::RequestSpecific(reason) => self.after_refusal(reason),
            FlightOutcome::Failed(code) => self.after_failure(code).await,
            FlightOutcome::Streaming(download) => self.follow_download(flight, download).await,
            FlightOutcome::Freshened(key, record) => self.follow_freshened(key, record).await,
        }
    }

    /// Returns the next step after the leader's own request kept its response from being shared.
    ///
    /// Another leader may get a response that can be shared, but not one whose request is of the same kind.
    fn after_refusal(&mut self, reason: NotStored) -> Step<S, F::Body> {
        let is_alike = reason == NotStored::Authorization && self.is_authorized();
        // Only the kind of `Authorization` can be recognized in a request. After any other refusal, one more leader is
        // tried, or the followers would go to the origin one after another.
        let again = std::mem::replace(&mut self.state.was_refused, reason != NotStored::Authorization);
        if is_alike || again { Step::LookThenFetch } else { Step::LookAgain }
    }

    /// Returns the next step after the origin has failed.
    ///
    /// The follower gets a stale response if one may be served, and otherwise fetches for itself.
    async fn after_failure(&mut self, code: Option<u16>) -> Step<S, F::Body> {
        if let Need::Validate(key, record, _) = &self.state.need {
            let reason = StaleReason::IfError;
            let stale =
                stale_on_error(&self.state.shared, &self.state.parts, *key, record, code, reason).await;
            if let Some(response) = stale {
                return Step::Answer(response);
            }
        }
        Step::LookThenFetch
    }

    /// Answers from a download that is still running, if its response fits.
    async fn follow_download(
        &mut self,
        flight: Arc<Flight<FlightOutcome<S>>>,
        download: Arc<Download<S>>,
    ) -> Step<S, F::Body> {
        if download.writer.part().is_some() {
            // The part of a body is found by the next lookup once all of it has come.
            let token = Arc::clone(&flight);
            if let Some(reader) = Reader::follower(download, token, 0, None) {
                let _ = timeout_at(self.state.until, reader.drain()).await;
            }
            flight.retire();
            return Step::LookAgain;
        }
        match self.fits(&download).await {
            Fit::Other(key) => return Step::LookAtSibling(key, Arc::clone(&download.writer)),
            Fit::Ended => {
                // Requests that come together then share another fetch.
                flight.retire();
                let again = std::mem::replace(&mut self.state.has_met_stale, true);
                return if again { Step::Fetch } else { Step::LookAgain };
            }
            Fit::No => return Step::Fetch,
            Fit::Yes => {}
        }
        let (config, response) = (&self.state.shared.config, download.writer.response());
        let now = config.clock.now();
        let freshness = response.freshness(self.state.shared.records.number, &config.policy);
        let outcome = Outcome::Miss(match &self.state.need {
            Need::Fetch(reason) => *reason,
            Need::Select => MissReason::Vary,
            Need::Complete(..) => MissReason::Partial,
            Need::Validate(_, _, reason) => MissReason::Replaced(*reason),
        });
        let mut status = stored_status(outcome, Stored::Unchanged, &freshness, now);
        status.origin_status = Some(response.status.as_u16());
        status.collapsed = true;
        let (view, token) = (RequestView::of(&self.state.parts), Arc::clone(&flight));
        match respond::from_download(&self.state.shared, view, Arc::clone(&download), token, status) {
            Some(response) => Step::Answer(response),
            None => {
                // It takes no more readers, so that the next request must not find it either.
                flight.retire();
                Step::LookAgain
            }
        }
    }

    /// Answers from a stored response that the flight has freshened.
    ///
    /// The response must also be the one that the follower selects.
    async fn follow_freshened(&mut self, key: Key, record: Record) -> Step<S, F::Body> {
        let Need::Validate(at, old, reason) = &self.state.need else { return Step::LookAgain };
        let (Some(variant), Some(old)) = (variant_in(&record), variant_in(old)) else {
            return Step::LookAgain;
        };
        if key != *at || variant.selection != old.selection {
            return Step::LookAgain;
        }
        let (config, records) = (&self.state.shared.config, &self.state.shared.records);
        let now = config.clock.now();
        let freshness = variant.response.freshness(records.number, &config.policy);
        let directives = self.directives_since(&variant.response);
        if policy::decide(&directives, &freshness, now) != Verdict::Serve
            || decode(&record).is_none_or(|fetched| self.state.snapshot.has_expired(fetched))
            || !records
                .group_state(&variant.response.groups, now)
                .await
                .is_ok_and(|state| state == GroupState::Current)
        {
            return Step::Fetch;
        }
        let mut status = stored_status(Outcome::Revalidated(*reason), Stored::Unchanged, &freshness, now);
        status.collapsed = true;
        match respond::from_record(
            &self.state.shared,
            RequestView::of(&self.state.parts),
            key,
            &record,
            status,
        )
        .await
        {
            Some(response) => Step::Answer(response),
            None => Step::LookAgain,
        }
    }

    /// Returns whether the response of a download answers this request.
    async fn fits(&mut self, download: &Download<S>) -> Fit {
        let (writer, records) = (&download.writer, &self.state.shared.records);
        // The response to another query does not answer this one after all.
        let Some(snapshot) = self.state.snapshot.at(writer.key_text()) else { return Fit::No };
        let selection = records.selection(writer.names(), &self.state.parts);
        if selection != writer.selection() {
            return Fit::Other(writer.sibling(selection));
        }
        // A deletion since the fetch began may concern this response. That is decided only once the response is complete.
        if writer.deletes_since() {
            return Fit::No;
        }
        let config = &self.state.shared.config;
        let freshness = writer.response().freshness(records.number, &config.policy);
        let (directives, now) = (self.directives_since(writer.response()), config.clock.now());
        if policy::decide(&directives, &freshness, now) != Verdict::Serve {
            let is_stale = policy::decide(&RequestDirectives::default(), &freshness, now) != Verdict::Serve;
            return if is_stale { Fit::Ended } else { Fit::No };
        }
        if writer.is_expired_by(snapshot) {
            return Fit::Ended;
        }
        match records.group_state(&writer.response().groups, now).await {
            Ok(GroupState::Current) => Fit::Yes,
            Ok(GroupState::Expired(_) | GroupState::Ended) => Fit::Ended,
            Err(_) => Fit::No,
        }
    }

    /// Returns the directives that apply to a response that was fetched meanwhile.
    ///
    /// A `max-age=0` request accepts a response fetched after it arrived, however long the fetch took, unless the response
    /// was too old already when the origin sent it.
    fn directives_since(&self, fetched: &StoredResponse) -> RequestDirectives {
        since_began(self.state.directives.clone(), fetched, self.state.began_at)
    }
}

/// Removes `max-age` if a response fulfils it by being fetched after the request began.
fn since_began(
    mut directives: RequestDirectives,
    fetched: &StoredResponse,
    began_at: Timestamp,
) -> RequestDirectives {
    // The resolution of the Date field, from which an age is computed.
    const SECOND: Duration = Duration::from_secs(1);
    let age = Duration::from_millis(fetched.initial_age_ms);
    // Without the time of the fetch itself, which the origin is not responsible for.
    let age = age.saturating_sub(fetched.response_time.since(fetched.request_time)).saturating_sub(SECOND);
    if fetched.response_time >= began_at && directives.max_age.is_some_and(|max_age| age <= max_age) {
        directives.max_age = None;
    }
    directives
}
