//! Faults that can happen to every storage on a server.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use libtest_mimic::Trial;
use tower_response_cache::{BodyErrorKind, CacheStatus};

use super::test;
use super::world::{PATIENCE, World, patient};
use crate::servers::child::{Data, Server};
use crate::servers::link::Proxy;
use crate::support::get;

/// A storage whose server and link can be given faults.
pub trait FaultTarget: 'static {
    /// Returns the address of the storage, with the link in between.
    fn address(&self) -> String;
    fn server(&mut self) -> &mut Server;
    fn link(&self) -> &Proxy;

    /// Returns the texts of the events that report the beginning and the end of an outage.
    fn events(&self) -> [&'static str; 2] {
        ["the storage keeps failing", "the storage answers again"]
    }
}

/// A path that is invalidated while the storage is down.
///
/// The cache that invalidates it does not request it again.
const OWED: &str = "/1024/owed";
const SMALL: [&str; 3] = ["/1024/a", "/1024/b", "/300000/c"];

type Hurt<H> = fn(&mut H);

/// A fault of a storage, with the functions that start and end it.
struct Outage<H> {
    fault: &'static str,
    inject: Hurt<H>,
    recover: Hurt<H>,
}

pub fn tests<H: FaultTarget>(target: &'static str, start: fn() -> Result<H, String>) -> Vec<Trial> {
    let outages = [
        Outage::<H> {
            fault: "killed, its data lost",
            inject: |target| target.server().kill(),
            recover: |target| target.server().restart(Data::Lost),
        },
        Outage {
            fault: "killed, its data kept",
            inject: |target| target.server().kill(),
            recover: |target| target.server().restart(Data::Kept),
        },
        Outage {
            fault: "ended in good order",
            inject: |target| target.server().terminate(),
            recover: |target| target.server().restart(Data::Kept),
        },
        Outage {
            fault: "stopped for longer than the deadline",
            inject: |target| target.server().stop(),
            recover: |target| target.server().go_on(),
        },
        Outage {
            fault: "link hung",
            inject: |target| target.link().set(|link| link.hangs = true),
            recover: |target| target.link().heal(),
        },
        Outage {
            fault: "link cut, then hung at connect",
            inject: |target| {
                target.link().set(|link| link.hangs = true);
                target.link().cut();
            },
            recover: |target| target.link().heal(),
        },
        Outage {
            fault: "link refuses",
            inject: |target| target.link().set(|link| link.refuses = true),
            recover: |target| target.link().heal(),
        },
    ];
    let mut tests = Vec::new();
    for outage in outages {
        let name = format!("{target}::outage::{}", outage.fault.replace([',', ' '], "_").replace("__", "_"));
        tests.push(test(name, async move || {
            let mut target = start()?;
            passes(&mut target, outage).await;
            Ok(())
        }));
    }
    tests.push(test(format!("{target}::slow_link_delays_at_most_the_deadline"), async move || {
        slow(start()?).await;
        Ok(())
    }));
    tests.push(test(format!("{target}::truncated_reply_is_a_miss_at_worst"), async move || {
        cut(start()?).await;
        Ok(())
    }));
    tests.push(test(format!("{target}::stall_within_deadline_is_waited_for"), async move || {
        stall(start()?).await;
        Ok(())
    }));
    let bodies: [(&str, Hurt<H>); 3] = [
        ("server_killed", |target| target.server().kill()),
        ("server_stopped", |target| target.server().stop()),
        ("link_hung", |target| target.link().set(|link| link.hangs = true)),
    ];
    for (fault, inject) in bodies {
        tests.push(test(format!("{target}::body_in_progress_ends_in_an_error::{fault}"), async move || {
            body_ends(start()?, fault, inject).await;
            Ok(())
        }));
    }
    tests
}

async fn passes<H: FaultTarget>(target: &mut H, outage: Outage<H>) {
    let address = target.address();
    let [down, up] = target.events();
    let world = World::open(&address).await;
    world.warm(&[SMALL[0], SMALL[1], SMALL[2], OWED]).await;
    (outage.inject)(target);
    world.until_event(SMALL[1], down).await;
    world.post(SMALL[0]).await;
    world.post(OWED).await;
    for _ in 0..5 {
        for path in SMALL {
            assert!(!world.get(path).await || path != SMALL[0], "{path} is a hit during the outage");
        }
    }
    (outage.recover)(target);
    world.until_hits(&SMALL).await;
    world.until_answered_again(down, up).await;
    world.events.assert_once_each(down, up);
    // Another process must not find the responses from before the outage that were invalidated.
    world.cache.layer.idle().await;
    let another = world.another(&address).await;
    another.until_hits(&SMALL).await;
    let begun = Instant::now();
    while !another.is_current(OWED).await {
        assert!(begun.elapsed() < PATIENCE, "an invalidation was lost");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    another.until_hits(&[OWED]).await;
    world.report(outage.fault);
}

/// Checks a link that is fast enough for a kibibyte, but not for a mebibyte.
async fn slow<H: FaultTarget>(target: H) {
    let world = World::open(&target.address()).await;
    world.warm(&SMALL[..2]).await;
    target.link().set(|link| link.bytes_per_second = Some(100_000));
    world.until_hits(&SMALL[..2]).await;
    for _ in 0..3 {
        world.get("/1048576/large").await;
        world.post("/1048576/large").await;
    }
    target.link().heal();
    world.until_hits(&["/1048576/large", SMALL[0], SMALL[1]]).await;
    world.report("slow link");
}

async fn cut<H: FaultTarget>(target: H) {
    let world = World::open(&target.address()).await;
    world.warm(&["/100000/a", SMALL[0]]).await;
    for after in [0, 1, 500, 5_000, 50_000, 99_000] {
        target.link().set(|link| link.cut_after = Some(after));
        world.get("/100000/a").await;
        world.get(SMALL[0]).await;
        target.link().heal();
        target.link().cut();
        world.until_hits(&["/100000/a", SMALL[0]]).await;
    }
    world.report("connection cut within a reply");
}

/// Stops the server for times shorter and longer than the deadline.
///
/// A late reply must not be taken for the reply to another request.
async fn stall<H: FaultTarget>(mut target: H) {
    let world = World::open(&target.address()).await;
    let paths: Vec<String> = (0..12).map(|number| format!("/2000/{number}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    world.warm(&paths).await;
    for pause in [50, 200, 700, 100, 900] {
        target.server().stop();
        let begun = Instant::now();
        let all = futures_util::future::join_all(paths.iter().map(|path| world.get(path)));
        let go_on = async {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            target.server().go_on();
        };
        tokio::join!(all, go_on);
        assert!(begun.elapsed() < Duration::from_secs(5));
        world.until_hits(&paths).await;
    }
    world.report("stalls, some longer than the deadline");
}

async fn body_ends<H: FaultTarget>(mut target: H, fault: &str, inject: Hurt<H>) {
    let timeout = Duration::from_secs(1);
    // Only the body is to be late: one from the origin is not affected by the fault.
    let world = World::open_with(&target.address(), |builder| patient(builder).body_timeout(timeout)).await;
    let path = "/5000000/long";
    world.warm(&[path]).await;
    let response = world.cache.send(get(&format!("http://example.com{path}"))).await;
    assert_eq!(response.extensions().get::<CacheStatus>().unwrap().word(), "hit");
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    inject(&mut target);
    let begun = Instant::now();
    let error = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the body ended without an error"),
        }
    };
    assert_eq!(error.kind(), BodyErrorKind::Storage);
    world.took(begun);
    world.report(&format!("a body under way: {fault}"));
}
