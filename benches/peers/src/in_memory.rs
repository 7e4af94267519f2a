//! Hits and misses of the caches in memory.

use std::sync::Arc;

use peers::SIZES;
use peers::origin::{LowerBound, URI};
use peers::peers::{Origin, http_cache_moka, http_cache_streaming, ours_in_memory, tower_http_cache};
use peers::report::Table;
use peers::sample::{Candidate, Plan, Requests, Urls, compare};

use crate::{TASKS, columns};

pub async fn tables(is_quick: bool) -> Vec<Table> {
    let plan = Plan::new(is_quick, 50);
    let mut hits = Table::new("Hits in memory", "One URL.", columns());
    let mut misses = Table::new(
        "Misses in memory, stored",
        "A new URL each time, from an origin that answers at once.",
        columns(),
    );
    let folder = tempfile::tempdir().unwrap();
    for (len, size) in SIZES {
        let origin = Origin::new(len);
        let requests = |urls: Urls| Through { urls, len };
        let hot = requests(Urls::Hot);
        let streaming = http_cache_streaming(origin.clone(), &folder.path().join(size)).await;
        let candidates = [
            hot.candidate("no cache", origin.clone()),
            hot.candidate("lower bound", LowerBound::new(URI, len)),
            hot.candidate("this crate", ours_in_memory(origin.clone())),
            hot.candidate("tower-http-cache", tower_http_cache(origin.clone(), len)),
            hot.candidate("http-cache-tower, moka", http_cache_moka(origin.clone(), len)),
            hot.candidate("http-cache-tower, streaming", streaming.clone()),
        ];
        fill_and_check(&candidates, &origin).await;
        for tasks in TASKS {
            hits.push_times(
                &candidates.each_ref().map(|one| one.name),
                &compare(plan, tasks, &candidates).await,
            );
        }

        let cold = requests(Urls::Cold(Arc::default()));
        let candidates = [
            cold.candidate("no cache", origin.clone()),
            cold.candidate("this crate", ours_in_memory(origin.clone())),
            cold.candidate("tower-http-cache", tower_http_cache(origin.clone(), len)),
            cold.candidate("http-cache-tower, moka", http_cache_moka(origin.clone(), len)),
            cold.candidate("http-cache-tower, streaming", streaming),
        ];
        // Until every cache has reached its bound, for before that most of the time goes to the system's memory.
        compare(plan.once(10), 1, &candidates).await;
        for tasks in TASKS {
            misses.push_times(
                &candidates.each_ref().map(|one| one.name),
                &compare(plan, tasks, &candidates).await,
            );
        }
    }
    vec![hits, misses]
}

/// A plan of requests, for any service.
struct Through {
    urls: Urls,
    len: usize,
}

impl Through {
    fn candidate<S>(&self, name: &'static str, service: S) -> Candidate
    where
        Requests<S>: peers::sample::Work,
    {
        Candidate::new(name, Requests { service, urls: self.urls.clone(), len: self.len })
    }
}

/// Stores the URL in each cache, and checks that each but the first answers the next request by itself.
async fn fill_and_check(candidates: &[Candidate], origin: &Origin) {
    compare(Plan::QUICK, 1, candidates).await;
    for candidate in &candidates[1..] {
        let before = origin.fetches();
        compare(Plan::QUICK, 1, std::slice::from_ref(candidate)).await;
        assert_eq!(origin.fetches(), before, "{} does not answer from its cache", candidate.name);
    }
}
