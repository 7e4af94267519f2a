//! Coalescing of range requests.

use super::world::{World, got};
use crate::support::byteranges::parts;
use crate::support::task::settle;

const WHOLE: &[(&str, &str)] =
    &[("cache-control", "max-age=60"), ("content-length", "10"), ("etag", "\"a\"")];

#[tokio::test(start_paused = true)]
async fn range_request_on_miss_is_not_coalesced() {
    let world = World::new();
    let mut herd =
        [world.ask(&[]), world.ask(&[("range", "bytes=2-4")]), world.ask(&[("range", "bytes=2-4")])];
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 3);
    let part = &[("cache-control", "max-age=60"), ("content-range", "bytes 2-4/10")];
    world.upstream.call().answer(200, WHOLE, "0123456789");
    world.upstream.call().answer(206, part, "234");
    world.upstream.call().answer(206, part, "234");
    settle(&mut herd).await;
    let got = got(&mut herd);
    assert_eq!([got[0].code, got[1].code, got[2].code], [200, 206, 206]);
    assert!(got.iter().all(|got| !got.status.is_collapsed()));
}

#[tokio::test(start_paused = true)]
async fn fetch_whole_stores_body_and_answers_ranges() {
    let world = World::with(|builder| builder.fetch_whole_for_range(true));
    let mut herd =
        [world.ask(&[("range", "bytes=2-4")]), world.ask(&[("range", "bytes=-3")]), world.ask(&[])];
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1);
    let call = world.upstream.call();
    assert!(!call.headers.contains_key("range"));
    call.answer(200, WHOLE, "0123456789");
    settle(&mut herd).await;
    let got = got(&mut herd);
    let bodies: Vec<_> = got.iter().map(|got| (got.code, got.body.as_ref().unwrap().as_str())).collect();
    assert_eq!(bodies, [(206, "234"), (206, "789"), (200, "0123456789")]);
    assert_eq!(got[0].headers["content-range"], "bytes 2-4/10");
    world.layer.idle().await;
    let hit = world.ask(&[("range", "bytes=0-0")]).run().unwrap().unwrap();
    assert_eq!((hit.status.word(), hit.body.unwrap()), ("hit", "0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn fetch_whole_without_length_answers_whole_body() {
    let world = World::with(|builder| builder.fetch_whole_for_range(true));
    let mut herd = [world.ask(&[("range", "bytes=2-4")]), world.ask(&[("range", "bytes=2-4")])];
    settle(&mut herd).await;
    world.upstream.call().answer(200, &[("cache-control", "max-age=60")], "0123456789");
    settle(&mut herd).await;
    assert!(got(&mut herd).iter().all(|got| (got.code, got.body.as_deref().unwrap()) == (200, "0123456789")));
}

#[tokio::test(start_paused = true)]
async fn range_of_unfinished_body_awaits_only_its_bytes() {
    let world = World::with(|builder| builder.fetch_whole_for_range(true).chunk_bytes(3));
    let mut herd = [world.ask(&[]), world.ask(&[("range", "bytes=4-6")])];
    settle(&mut herd).await;
    let sender = world.upstream.call().head(200, WHOLE);
    sender.data("01234");
    settle(&mut herd).await;
    assert!(herd[1].run().is_none());
    sender.data("56");
    settle(&mut herd).await;
    assert_eq!(herd[1].run().unwrap().unwrap().body.unwrap(), "456");
    sender.data("789");
    drop(sender);
    settle(&mut herd).await;
    assert_eq!(herd[0].run().unwrap().unwrap().body.unwrap(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn several_ranges_of_unfinished_body_get_whole() {
    let world = World::with(|builder| builder.fetch_whole_for_range(true).chunk_bytes(30));
    let several = [("range", "bytes=0-9,190-199")];
    let mut herd = [world.ask(&several), world.ask(&several), world.ask(&[("range", "bytes=5-")])];
    settle(&mut herd).await;
    assert_eq!(world.upstream.waiting(), 1);
    let fields = &[("cache-control", "max-age=60"), ("content-length", "200")];
    let whole = concat!(
        "01234567890123456789012345678901234567890123456789aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbABCDEFGHIJABCDEFGHIJABCDEFGHIJABCDEFGHIJABCDEFGHIJ",
    );
    world.upstream.call().answer(200, fields, whole);
    settle(&mut herd).await;
    let got = got(&mut herd);
    for (got, (code, body)) in got.iter().zip([(200, whole), (200, whole), (206, &whole[5..])]) {
        assert_eq!((got.code, got.body.as_deref().unwrap()), (code, body));
    }
    world.layer.idle().await;
    let hit = world.ask(&several).run().unwrap().unwrap();
    assert_eq!((hit.code, hit.status.word()), (206, "hit"));
    let parts = parts(hit.headers["content-type"].to_str().unwrap(), hit.body.unwrap().as_bytes());
    assert_eq!(parts.iter().map(|part| part.range.clone()).collect::<Vec<_>>(), [0..10, 190..200]);
    assert!(parts.iter().all(|part| part.data == whole.as_bytes()[part.range.clone()]));
}
