//! Concurrent requests for equivalent queries (No-Vary-Search).

use std::io;
use std::time::Duration;

use tower::ServiceExt;

use super::world::{Got, World, got, read};
use crate::support::get_with;
use crate::support::task::{Task, settle};

const STORED: &[(&str, &str)] =
    &[("cache-control", "max-age=3600"), ("etag", "\"a\""), ("no-vary-search", "params=(\"utm\")")];
const UNSHARED: &[(&str, &str)] = &[("cache-control", "max-age=3600")];

fn ask(world: &World, query: &str) -> Task<io::Result<Got>> {
    let response = world.service.clone().oneshot(get_with(&format!("http://example.com/?{query}"), &[]));
    Task::new(async move { Ok(read(response.await?).await) })
}

/// Returns the response to one request, which the origin answers with this.
async fn fetch(world: &World, query: &str, fields: &[(&str, &str)], body: &'static str) -> Got {
    let mut asked = [ask(world, query)];
    settle(&mut asked).await;
    world.upstream.call().answer(200, fields, body);
    settle(&mut asked).await;
    got(&mut asked).remove(0)
}

/// Returns a cache that knows the field of the path, and has nothing stored that answers other queries.
async fn knowing() -> World {
    let world = World::new();
    fetch(&world, "utm=0", STORED, "first").await;
    world.clock.advance(Duration::from_secs(9 * 60));
    world
}

#[tokio::test(start_paused = true)]
async fn equivalent_queries_share_one_fetch() {
    let world = knowing().await;
    let mut herd: Vec<_> = (1..50).map(|utm| ask(&world, &format!("utm={utm}"))).collect();
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1);
    world.upstream.call().answer(200, STORED, "shared");
    settle(&mut herd).await;
    assert!(got(&mut herd).iter().all(|got| got.body.as_ref().unwrap() == "shared"));
    assert_eq!(world.upstream.count(), 2);
}

/// The leader's response is for its own query alone after all.
#[tokio::test(start_paused = true)]
async fn follower_with_another_query_fetches_for_itself() {
    let ordered: &[(&str, &str)] = &[("cache-control", "max-age=3600"), ("no-vary-search", "key-order")];
    for others in [UNSHARED, ordered] {
        let world = knowing().await;
        let mut herd: Vec<_> = ["utm=1", "utm=2", "utm=1"].map(|query| ask(&world, query)).into();
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 1);
        world.upstream.call().answer(200, others, "one");
        settle(&mut herd).await;
        assert_eq!(world.upstream.waiting(), 1, "the request with the same query follows");
        world.upstream.call().answer(200, others, "two");
        settle(&mut herd).await;
        let bodies: Vec<_> = got(&mut herd).into_iter().map(|got| got.body.unwrap()).collect();
        assert_eq!(bodies, ["one", "two", "one"]);
        // The value was not listed yet at the second fetch, so that no invalidation of an equivalent query would reach its
        // response. It is fetched once more, for all equivalent queries.
        if others == ordered {
            fetch(&world, "utm=2", others, "two").await;
        }
        for (query, body) in [("utm=1", "one"), ("utm=2", "two")] {
            let mut again = [ask(&world, query)];
            settle(&mut again).await;
            let again = got(&mut again).remove(0);
            assert_eq!((again.status.word(), &*again.body.unwrap()), ("hit", body));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn equivalent_stale_requests_share_one_validation() {
    let world = knowing().await;
    fetch(&world, "utm=1", STORED, "shared").await;
    world.clock.advance(Duration::from_secs(3601));
    let mut herd: Vec<_> = (2..9).map(|utm| ask(&world, &format!("utm={utm}"))).collect();
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1);
    let call = world.upstream.call();
    assert_eq!(call.headers["if-none-match"], "\"a\"");
    call.answer(304, STORED, "");
    settle(&mut herd).await;
    let got = got(&mut herd);
    assert!(got.iter().all(|got| got.status.is_revalidated() && got.body.as_ref().unwrap() == "shared"));
}

/// The response of a fetch that began before an invalidation is not stored for any of the equivalent queries.
#[tokio::test(start_paused = true)]
async fn fetch_across_an_invalidation_is_not_stored() {
    for (knows, by_url) in [(true, true), (true, false), (false, true), (false, false)] {
        let world = if knows { knowing().await } else { World::new() };
        let mut before = [ask(&world, "utm=1")];
        settle(&mut before).await;
        let call = world.upstream.call();
        let url = "http://example.com/?utm=2";
        if by_url {
            world.layer.handle().delete_url(url).await.unwrap();
        } else {
            assert_eq!(world.layer.handle().expire_url(url).await.unwrap(), u64::from(knows));
        }
        call.answer(200, STORED, "before");
        settle(&mut before).await;
        assert_eq!(got(&mut before)[0].body.as_ref().unwrap(), "before");
        let after = fetch(&world, "utm=2", STORED, "after").await;
        assert_eq!(after.body.unwrap(), "after", "{knows} {by_url}");
    }
}

/// An unsafe request by another process on the storage ends the responses that are being fetched here.
#[tokio::test(start_paused = true)]
async fn fetch_across_another_processes_invalidation_is_not_stored() {
    let world = knowing().await;
    let mut before = [ask(&world, "utm=1")];
    settle(&mut before).await;
    let call = world.upstream.call();
    let other = World::on(world.layer.handle().storage().clone(), |builder| builder);
    assert_eq!(other.layer.handle().delete_url("http://example.com/?utm=2").await.unwrap(), 1);
    call.answer(200, STORED, "before");
    settle(&mut before).await;
    for utm in [2, 3] {
        let mut after = [ask(&world, &format!("utm={utm}"))];
        settle(&mut after).await;
        if utm == 2 {
            world.upstream.call().answer(200, STORED, "after");
            settle(&mut after).await;
        }
        assert_eq!(got(&mut after)[0].body.as_ref().unwrap(), "after");
    }
}
