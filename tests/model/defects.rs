//! What the cache is known to do wrong: the schedules leave it out until it is right.

/// Whether the schedules and the rules go so far.
#[derive(Clone, Copy, Debug)]
pub struct Defects {
    /// A POST that asks for another protocol invalidates as any other.
    pub upgrades: bool,
    /// In a shared cache, requests without credentials share a fetch, also after one with credentials.
    pub leaders_with_credentials: bool,
    /// A caller may go away while a stored response is validated, and no body is left that is read for nobody.
    pub leaving_while_validating: bool,
    /// A body that is longer than its Content-Length, under a transfer coding.
    pub contradicted_lengths: bool,
    /// A request for only what is stored meets a response that may be served stale.
    pub stale_for_only_if_cached: bool,
    /// The runtime goes away, and another comes.
    pub runtimes: bool,
    /// The runtime goes away while a body is read to its end that its caller has dropped.
    pub finishing_at_shutdown: bool,
    /// What comes while a new entry's place is being taken follows the fetch that it is taken for.
    pub strict_followers: bool,
    /// A variant that was read to its end is found, also while the body of the entry's first one is still coming.
    pub variants_beside: bool,
    /// A caller may go away while its lease is being taken, and none is left.
    pub leaving_with_leases: bool,
    /// Requests that find a fetch whose response is stale by now, or came too slowly, share another one.
    pub stale_flights: bool,
    /// A request that carries out an invalidation which is under way ends nothing that comes after it.
    pub doubled_tombstones: bool,
}

/// What is left out, by these names. `MODEL_DEFECTS` names others: `none` leaves nothing out.
const LEFT_OUT: &str = "";

impl Defects {
    pub fn known() -> Self {
        let named = std::env::var("MODEL_DEFECTS").unwrap_or_else(|_| LEFT_OUT.to_owned());
        let goes = |name: &str| !named.split(',').any(|left_out| left_out == name);
        Self {
            upgrades: goes("upgrades"),
            leaders_with_credentials: goes("leaders-with-credentials"),
            leaving_while_validating: goes("leaving-while-validating"),
            contradicted_lengths: goes("contradicted-lengths"),
            stale_for_only_if_cached: goes("stale-for-only-if-cached"),
            runtimes: goes("runtimes"),
            finishing_at_shutdown: goes("finishing-at-shutdown"),
            strict_followers: goes("strict-followers"),
            variants_beside: goes("variants-beside"),
            leaving_with_leases: goes("leaving-with-leases"),
            stale_flights: goes("stale-flights"),
            doubled_tombstones: goes("doubled-tombstones"),
        }
    }
}

impl Default for Defects {
    fn default() -> Self {
        Self::known()
    }
}
