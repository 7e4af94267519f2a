//! What is demanded of the cache that it is known not to do, or was known not to do lately.

/// Whether each is demanded.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// A POST that asks for another protocol invalidates as any other does.
    pub upgrades: bool,
    /// In a shared cache, requests without credentials share a fetch, also after one with credentials.
    pub leaders_with_credentials: bool,
    /// Callers may go away while a stored response is validated: no body is read for nobody.
    pub leaving_while_validating: bool,
    /// A body may be longer than its Content-Length, under a transfer coding.
    pub contradicted_lengths: bool,
    /// A request for only what is stored may meet a response that is served stale.
    pub stale_for_only_if_cached: bool,
    /// The runtime may go away, and another come.
    pub runtimes: bool,
    /// A runtime may go away while a body is read to its end that its caller has dropped.
    pub finishing_at_shutdown: bool,
    /// A request that comes while a new entry's place is being taken follows the fetch that it is taken for.
    pub strict_followers: bool,
    /// A variant that was read to its end is found, also where the body of the entry's first one is still coming, or that one
    /// has expired meanwhile.
    pub variants_beside: bool,
    /// A caller may go away while its lease is being taken: none is left.
    pub leaving_with_leases: bool,
    /// Requests that find a fetch whose response is stale by now, or came too slowly, share another one.
    pub stale_flights: bool,
    /// A request that carries out an invalidation which is under way ends nothing that comes after it.
    pub doubled_tombstones: bool,
    /// What is deleted by a filter while it comes is not found in this process either.
    pub deletions_by_filter: bool,
    /// A body that a reader has begun comes to its end, also where what it is of is invalidated before it is stored.
    pub bodies_on_their_way: bool,
    /// A panic of the storage while it is listed is an error of the listing.
    pub panics_in_listings: bool,
}

/// What is not demanded yet. Each of these breaks some seed in a few thousand.
const WITHOUT: &str = "leaving-while-validating,strict-followers,variants-beside,stale-flights,doubled-tombstones,\
                       deletions-by-filter";

impl Demands {
    /// All but what `MODEL_WITHOUT` names.
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
