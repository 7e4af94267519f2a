//! Demands on the cache that it is known to violate, or has violated lately.

/// Which of the demands a run makes.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// A POST with Upgrade invalidates as any other POST does.
    pub upgrades: bool,
    /// In a shared cache, requests without credentials share a fetch, even after one with credentials.
    pub leaders_with_credentials: bool,
    /// No body is read without a caller.
    ///
    /// This also holds if callers leave while a stored response is validated.
    pub leaving_while_validating: bool,
    /// A body with a transfer coding may be longer than its Content-Length.
    pub contradicted_lengths: bool,
    /// A request with `only-if-cached` may meet a response that is served stale.
    pub stale_for_only_if_cached: bool,
    /// The runtime may be dropped, and another one started.
    pub runtimes: bool,
    /// The runtime may be dropped while a task finishes a body whose caller is gone.
    pub finishing_at_shutdown: bool,
    /// A request that arrives while a fetch reserves the key follows that fetch.
    pub strict_followers: bool,
    /// A variant that was read to its end is found.
    ///
    /// It is found even if the body of the entry's first variant is still coming, or the first variant has expired.
    pub variants_beside: bool,
    /// No lease is left if its caller goes away while it is acquired.
    pub leaving_with_leases: bool,
    /// Requests share a new fetch if the current one is no use to them.
    ///
    /// Its response is stale by now, or comes too slowly.
    pub stale_flights: bool,
    /// A request that repeats an invalidation under way invalidates nothing that comes after it.
    pub doubled_tombstones: bool,
    /// A response that a filter deletes while it arrives is not found.
    ///
    /// This holds within the process that deletes it too.
    pub deletions_by_filter: bool,
    /// A body can be read to its end once a reader has begun.
    ///
    /// This also holds if its response is invalidated before it is stored.
    pub bodies_on_their_way: bool,
    /// A listing returns an error if the storage panics during it.
    pub panics_in_listings: bool,
}

/// The demands that are not made yet. Each of these breaks some seed in a few thousand.
const WITHOUT: &str = "leaving-while-validating,strict-followers,variants-beside,stale-flights,doubled-tombstones,\
                       deletions-by-filter";

impl Demands {
    /// Returns all demands but those that `MODEL_WITHOUT` names.
    pub fn of_run() -> Self {
        let without = std::env::var("MODEL_WITHOUT").unwrap_or_else(|_| WITHOUT.to_owned());
        let is_demanded = |name: &str| !without.split(',').any(|left_out| left_out == name);
        Self {
            upgrades: is_demanded("upgrades"),
            leaders_with_credentials: is_demanded("leaders-with-credentials"),
            leaving_while_validating: is_demanded("leaving-while-validating"),
            contradicted_lengths: is_demanded("contradicted-lengths"),
            stale_for_only_if_cached: is_demanded("stale-for-only-if-cached"),
            runtimes: is_demanded("runtimes"),
            finishing_at_shutdown: is_demanded("finishing-at-shutdown"),
            strict_followers: is_demanded("strict-followers"),
            variants_beside: is_demanded("variants-beside"),
            leaving_with_leases: is_demanded("leaving-with-leases"),
            stale_flights: is_demanded("stale-flights"),
            doubled_tombstones: is_demanded("doubled-tombstones"),
            deletions_by_filter: is_demanded("deletions-by-filter"),
            bodies_on_their_way: is_demanded("bodies-on-their-way"),
            panics_in_listings: is_demanded("panics-in-listings"),
        }
    }
}
