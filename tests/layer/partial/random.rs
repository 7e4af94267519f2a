//! Random requests for parts of a file, whose origin changes, lies and breaks off, compared with the file.
//!
//! `PARTS_SEED=x` runs one seed only, and `PARTS_SEEDS=n` runs `n` seeds.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::origin::{Fault, Validator, resolve, text};
use super::{Got, URL, World, bytes, head};
use crate::support::faulty::{Faulty, Mode};
use crate::support::get_with;
use tower_response_cache::storage::{MemoryStorage, Storage};
use tower_response_cache::{NotStored, Stored};

const SEEDS: u64 = 300;
const STEPS: usize = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns the seeds to run, which are so many unless the environment says otherwise.
pub fn seeds(usual: u64) -> Range<u64> {
    match number("PARTS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PARTS_SEEDS").unwrap_or(usual),
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_is_the_bytes_or_an_error() {
    for seed in seeds(SEEDS) {
        run(seed, MemoryStorage::new(), |_| true).await;
    }
}

/// The storage fails, hangs and works in turn.
#[tokio::test(start_paused = true)]
async fn every_answer_is_the_bytes_or_an_error_on_a_faulty_storage() {
    for seed in seeds(SEEDS) {
        let storage = Faulty::new(Mode::Well);
        let modes = [Mode::Well, Mode::Well, Mode::Failing, Mode::HungWrites];
        let of_run = storage.clone();
        let disturb = move |random: &mut fastrand::Rng| {
            of_run.set(modes[random.usize(..4)]);
            false
        };
        run(seed, storage, disturb).await;
    }
}

/// Sends random requests. `disturb` may change the storage before each of them, and returns whether it is sound.
async fn run<S: Storage>(seed: u64, storage: S, disturb: impl Fn(&mut fastrand::Rng) -> bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let len = random.usize(1..400);
    let chunk = [1, 16, 100, 1000][random.usize(..4)];
    let slices = [0, 0, 1, 10, 64, 1000][random.usize(..6)];
    let world =
        World::on(storage, len, |builder| builder.chunk_bytes(chunk).slices(slices).store_parts(true));
    let validator =
        [Validator::Strong, Validator::Strong, Validator::Weak, Validator::None][random.usize(..4)];
    world.origin.change(|file| file.validator = validator);
    let has_faults = random.bool();
    let mut is_clean = !has_faults && validator == Validator::Strong;
    for step in 0..STEPS {
        let context = || format!("seed {seed}, step {step}");
        is_clean &= disturb(&mut random);
        world.origin.change(|file| {
            file.frame = random.usize(1..50);
            file.fault = match random.u32(..20) {
                _ if !has_faults => Fault::None,
                0 => Fault::BreaksAfter(random.u64(..100)),
                1 => Fault::Fails,
                2 => Fault::IgnoresRange,
                3 => Fault::SendsLess,
                4 => Fault::NamesOthers,
                5 => Fault::OtherLength,
                6 => Fault::IgnoresIfRange,
                _ => Fault::None,
            };
        });
        match random.u32(..40) {
            0 if has_faults => {
                let len = random.usize(1..400);
                let version = world.origin.0.lock().unwrap().versions.len();
                world.origin.replace(bytes(len + version * 1000)[version * 1000..].to_vec());
            }
            1 => world.clock.advance(Duration::from_secs(random.u64(..8000))),
            2 => {
                let _ = world.layer.handle().delete_url(URL).await; // the storage may fail
                is_clean = false;
            }
            _ => {}
        }
        let at = |random: &mut fastrand::Rng| random.u64(..len as u64 + 10);
        let (first, last) = (at(&mut random), at(&mut random));
        let range = match random.u32(..6) {
            0 => None,
            1 => Some(format!("bytes={first}-")),
            2 => Some(format!("bytes=-{last}")),
            _ => Some(format!("bytes={}-{}", first.min(last), first.max(last))),
        };
        let mut fields = Vec::new();
        if let Some(range) = &range {
            fields.push(("range", &**range));
        }
        if random.u32(..10) == 0 {
            fields.push(("cache-control", "no-cache"));
        }
        let tag = format!("\"v{}\"", random.usize(1..=world.origin.0.lock().unwrap().versions.len()));
        if range.is_some() && random.u32(..6) == 0 {
            fields.push(("if-range", &tag));
        }
        let frames = if random.u32(..5) == 0 { random.usize(..6) } else { usize::MAX };
        let request = if random.u32(..12) == 0 { head(URL) } else { get_with(URL, &fields) };
        let is_head = request.method() == http::Method::HEAD;
        let got = world.read(request, frames).await;
        check(&world, &got, range.as_deref(), is_head, frames == usize::MAX, has_faults, &context());
        if random.bool() {
            world.layer.idle().await;
        }
    }
    let file = world.origin.0.lock().unwrap();
    // A dropped body has been asked for as a whole, so that its rest is asked for again: at most once for each drop. Without
    // drops, no byte comes twice. Drops are a fifth of the requests, so that only the sum can be bounded.
    if is_clean {
        let most = file.counts.iter().max().copied().unwrap_or(0);
        assert!(most <= 1 + STEPS as u32 / 2, "seed {seed}: a byte came {most} times");
    }
}

fn check<S: Storage>(
    world: &World<S>,
    got: &Got,
    range: Option<&str>,
    is_head: bool,
    is_read: bool,
    has_faults: bool,
    context: &str,
) {
    let file = world.origin.0.lock().unwrap();
    let sent = |code: u16| file.sent.last().is_some_and(|sent| sent.status == code);
    match got.code {
        503 => assert!(sent(503), "{context}"),
        416 => assert!(range.is_some(), "{context}"),
        200 | 206 => {
            // The versions that the response may be of.
            let tag = text(&got.headers, "etag").map(|tag| tag.trim_start_matches("W/").to_owned());
            let versions = (1..=file.versions.len())
                .filter(|version| tag.as_ref().is_none_or(|tag| *tag == format!("\"v{version}\"")));
            let mut fits = false;
            for version in versions {
                let bytes = &file.versions[version - 1];
                let len = bytes.len() as u64;
                let wanted = match (got.code, text(&got.headers, "content-range")) {
                    (200, None) => 0..len,
                    (206, Some(field)) => {
                        let of = field.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
                        let (first, last) = of.0.split_once('-').unwrap();
                        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
                        let asked = resolve(range.expect("a range was asked for"), len);
                        // A range that the origin itself sends wrongly is passed on.
                        let is_asked = asked.as_ref().is_some_and(|asked| asked.start == first);
                        if has_faults && (of.1 != len.to_string() || last >= len || !is_asked) {
                            return;
                        }
                        if !has_faults {
                            assert_eq!(asked, Some(first..last + 1), "{context}");
                        }
                        first..last + 1
                    }
                    other => panic!("{context}: {other:?}"),
                };
                let wanted = &bytes[wanted.start as usize..wanted.end as usize];
                let length: Option<usize> =
                    text(&got.headers, "content-length").map(|len| len.parse().unwrap());
                fits |= match is_head {
                    // The origin may have lied about the length, which no request for other bytes has shown yet.
                    true => {
                        let is_len = length == Some(bytes.len());
                        got.bytes.is_empty() && (is_len || (has_faults && length == Some(bytes.len() + 1)))
                    }
                    false if is_read && got.error.is_none() => {
                        got.bytes == *wanted && length == Some(wanted.len())
                    }
                    false => wanted.starts_with(&got.bytes),
                };
            }
            // A range that the origin itself names wrongly is passed on.
            let is_passed_on = has_faults && got.status.stored() == Stored::No(NotStored::ContentRange);
            let (sent, lens) = (&file.sent, file.versions.iter().map(Bytes::len).collect::<Vec<_>>());
            assert!(
                fits || is_passed_on,
                "{context}: {} with {} bytes and {:?}, {:?}, of {lens:?}; the origin sent {sent:?}",
                got.code,
                got.bytes.len(),
                got.error,
                got.headers,
            );
            assert!(got.error.is_none() || has_faults, "{context}: {:?}", got.error);
        }
        other => panic!("{context}: {other}"),
    }
}
