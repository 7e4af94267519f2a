//! Following: the outcome of another request's fetch, and whether it answers this one.
//!
//! # Invariants
//!
//! - An outcome answers a request here if it would from the storage, and only if it was fetched for the same key, where
//!   nothing was written since.
//! - A request that cannot use an outcome goes on at once.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::{Exchange, Step};
use crate::control::{MissReason, Outcome, Stored};
use crate::entry::StoredResponse;
use crate::policy::{self, NotStored, RequestDirectives, StaleReason, Verdict};
use crate::service::body::Download;
use crate::service::coalesce::{Flight, Landed};
use crate::service::origin::{Fetcher, Need, stale_on_error};
use crate::service::records::variant_in;
use crate::service::respond::{self, Asked, stored_status};
use crate::storage::{Key, Record, Storage};
use crate::time::Timestamp;

/// Says whether a response that has just come answers a request that follows it.
enum Fit {
    Yes,
    /// It is another variant; the request's own would be at this key.
    Other(Key),
    No,
}

impl<S: Storage, F: Fetcher> Exchange<S, F> {
    /// Returns what the outcome of a flight is good for.
    pub(super) async fn follow(
        &mut self,
        flight: Arc<Flight<Landed<S>>>,
        landed: Landed<S>,
    ) -> Step<S, F::Body> {
        match landed {
            Landed::Look | Landed::Abandoned => Step::Look,
            // No lookup finds a response for this request, and its own will not be stored either.
            Landed::Private => Step::Alone,
            Landed::OfRequest(reason) => self.after_refusal(reason),
            Landed::Failed(code) => self.after_failure(code).await,
            Landed::Streaming(download) => self.follow_download(flight, download).await,
            Landed::Freshened(key, record) => self.follow_freshened(key, record).await,
        }
    }

    /// The leader's response was the leader's alone, by the fault of its own request: another leader may do better. A
    /// request of the same kind would not.
    fn after_refusal(&mut self, reason: NotStored) -> Step<S, F::Body> {
        let is_alike = reason == NotStored::Authorization && self.is_authorized();
        // Once is enough where nothing tells whether this request is of the same kind: otherwise those who wait would go to
        // the origin one after another.
        let again = std::mem::replace(&mut self.was_refused, reason != NotStored::Authorization);
        if is_alike || again { Step::LookThenAlone } else { Step::Look }
    }

    /// The origin failed: a stale response may do, and otherwise each request has its own try.
    async fn after_failure(&mut self, code: Option<u16>) -> Step<S, F::Body> {
        if let Need::Validate(key, record, _) = &self.need {
            let reason = StaleReason::IfError;
            let stale = stale_on_error(&self.shared, &self.parts, *key, record, code, reason).await;
            if let Some(response) = stale {
                return Step::Answer(response);
            }
        }
        Step::LookThenAlone
    }

    async fn follow_download(
        &mut self,
        flight: Arc<Flight<Landed<S>>>,
        download: Arc<Download<S>>,
    ) -> Step<S, F::Body> {
        match self.fits(&download).await {
            Fit::Other(key) => return Step::Beside(key, Arc::clone(&download.writer)),
            Fit::No => return Step::Alone,
            Fit::Yes => {}
        }
        let (config, response) = (&self.shared.config, download.writer.response());
        let now = config.clock.now();
        let freshness = response.freshness(self.shared.records.number, &config.policy);
        let outcome = Outcome::Miss(match &self.need {
            Need::Fetch(reason) => *reason,
            Need::Select => MissReason::Vary,
            Need::Validate(_, _, reason) => MissReason::Replaced(*reason),
        });
        let mut status = stored_status(outcome, Stored::Unchanged, &freshness, now);
        status.origin_status = Some(response.status.as_u16());
        status.collapsed = true;
        let (asked, token) = (Asked::by(&self.parts), Arc::clone(&flight));
        match respond::from_download(&self.shared, asked, Arc::clone(&download), token, status) {
            Some(response) => Step::Answer(response),
            None => {
                flight.retire(); // it has ended, or nothing comes of it
                Step::Look
            }
        }
    }

    async fn follow_freshened(&mut self, key: Key, record: Record) -> Step<S, F::Body> {
        let Need::Validate(at, old, reason) = &self.need else { return Step::Look };
        let (Some(variant), Some(old)) = (variant_in(&record), variant_in(old)) else { return Step::Look };
        if key != *at || variant.selection != old.selection {
            return Step::Look;
        }
        let (config, records) = (&self.shared.config, &self.shared.records);
        let now = config.clock.now();
        let freshness = variant.response.freshness(records.number, &config.policy);
        let directives = self.directives_since(&variant.response);
        if policy::decide(&directives, &freshness, now) != Verdict::Serve
            || !records.belongs(&variant.response.groups).await.unwrap_or(false)
        {
            return Step::Alone;
        }
        let mut status = stored_status(Outcome::Revalidated(*reason), Stored::Unchanged, &freshness, now);
        status.collapsed = true;
        match respond::from_record(&self.shared, Asked::by(&self.parts), key, &record, status).await {
            Some(response) => Step::Answer(response),
            None => Step::Look,
        }
    }

    async fn fits(&mut self, download: &Download<S>) -> Fit {
        let (writer, records) = (&download.writer, &self.shared.records);
        let selection = records.selection(writer.names(), &self.parts);
        if selection != writer.selection() {
            return Fit::Other(writer.sibling(selection));
        }
        // A filter may have chosen this response for deletion: that shows when it is whole.
        if writer.deletes_since() {
            return Fit::No;
        }
        let config = &self.shared.config;
        let freshness = writer.response().freshness(records.number, &config.policy);
        let directives = self.directives_since(writer.response());
        match policy::decide(&directives, &freshness, config.clock.now()) {
            Verdict::Serve if records.belongs(&writer.response().groups).await.unwrap_or(false) => Fit::Yes,
            _ => Fit::No,
        }
    }

    /// Returns the request's directives about a response. A request that limits the age (`max-age=0`) accepts a response
    /// that came after it had asked, however long the origin took, if that was not old by then.
    fn directives_since(&self, came: &StoredResponse) -> RequestDirectives {
        since_asked(self.directives.clone(), came, self.asked_at)
    }
}

fn since_asked(
    mut directives: RequestDirectives,
    came: &StoredResponse,
    asked_at: Timestamp,
) -> RequestDirectives {
    // Dates have no more than seconds.
    const SECOND: Duration = Duration::from_secs(1);
    let age = Duration::from_millis(came.initial_age_ms);
    let age = age.saturating_sub(came.response_time.since(came.request_time)).saturating_sub(SECOND);
    if came.response_time >= asked_at && directives.max_age.is_some_and(|most| age <= most) {
        directives.max_age = None;
    }
    directives
}
