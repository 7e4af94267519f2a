//! Two processes that share one storage.
//!
//! The test program starts itself again, and exchanges lines with the processes.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use libtest_mimic::Trial;
use tower::{Layer, ServiceExt};
use tower_response_cache::storage::BoxStorage;
use tower_response_cache::testing::Harness;
use tower_response_cache::{CacheLayer, Clock};

use crate::places::{Kind, Place, open_address};
use crate::support::{Answer, Boxed, Origin, response};
use crate::{OPERATION_TIMEOUT, trial};

pub fn trials(kind: &Kind) -> Vec<Trial> {
    vec![
        trial("processes", kind, "processes_serve_each_others_responses", |place| Box::pin(shared(place))),
        trial("processes", kind, "invalidation_reaches_fetch_in_progress", |place| Box::pin(fetching(place))),
        trial("processes", kind, "random_requests_keep_the_invariants", |place| Box::pin(invariants(place))),
        trial("processes", kind, "lease_limits_two_herds_to_one_fetch", |place| Box::pin(herds(place))),
    ]
}

/// A process with a cache on the storage at an address.
///
/// The line that it gets determines the response of its origin.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(address: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env("STORES_ROLE", address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends a line and returns the answer.
    ///
    /// - `get PATH VERSION LENGTH` sends a GET request and reads the response.
    /// - `post PATH` sends a POST request.
    /// - `begin PATH VERSION LENGTH` sends a GET request and does not read the body yet.
    /// - `finish` reads that body.
    /// - `herd PATH MANY` sends many requests at once, and answers with the number of fetches from the origin.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a body that repeats its path and version.
fn body(path: &str, version: &str, len: usize) -> Bytes {
    format!("{path} {version} ").into_bytes().into_iter().cycle().take(len).collect::<Vec<u8>>().into()
}

/// Returns the version of a body, or `broken` if it is empty or mixed.
fn version_of(path: &str, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let version = text.split(' ').nth(1).unwrap_or("none").to_owned();
    let is_whole = body == self::body(path, &version, body.len());
    if is_whole && !body.is_empty() { version } else { "broken".to_owned() }
}

/// Runs the process of a [`Peer`], which answers the lines of its standard input.
pub fn play(address: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = open_address(address).await.unwrap();
        let leasing = CacheLayer::builder(storage.clone())
            .lease(Duration::from_secs(30))
            .coalesce_timeout(Duration::from_secs(30))
            .operation_timeout(OPERATION_TIMEOUT)
            .build()
            .unwrap();
        // An invalidation that is late on busy cores would be carried out after the request that it belongs to.
        let layer = CacheLayer::builder(storage)
            .clock(Clock::system())
            .operation_timeout(OPERATION_TIMEOUT)
            .build()
            .unwrap();
        let origin = Origin::new(|request| {
            let field = |name| request.headers()[name].to_str().unwrap().to_owned();
            let (version, len) = (field("x-version"), field("x-length").parse().unwrap());
            response(&[("cache-control", "max-age=600")], body(request.uri().path(), &version, len))
        });
        let service: Boxed = Boxed::new(layer.layer(origin));
        let mut under_way = None;
        for line in std::io::stdin().lock().lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let request = |method: &str, words: &[&str]| {
                let uri = format!("http://example.com{}", words[1]);
                let version = words.get(2).copied().unwrap_or("0");
                let len = words.get(3).copied().unwrap_or("1");
                let request = Request::builder().method(method).uri(uri);
                request.header("x-version", version).header("x-length", len).body(Full::default()).unwrap()
            };
            let send = |request| ServiceExt::oneshot(service.clone(), request);
            let answer = match words[0] {
                "get" => {
                    let answer = Answer::read(send(request("GET", &words)).await.unwrap()).await;
                    layer.idle().await;
                    format!("{} {}", answer.word(), version_of(words[1], &answer.body))
                }
                "herd" => herd(&leasing, words[1], words[2].parse().unwrap()).await,
                "post" => {
                    send(request("POST", &words)).await.unwrap();
                    "done".to_owned()
                }
                "begin" => {
                    under_way = Some(send(request("GET", &words)).await.unwrap());
                    "begun".to_owned()
                }
                _ => {
                    let response = under_way.take().unwrap();
                    let len = response.into_body().collect().await.unwrap().to_bytes().len();
                    layer.idle().await;
                    format!("{len} bytes")
                }
            };
            println!("{answer}");
        }
    });
    ExitCode::SUCCESS
}

/// Sends this many requests at once, to an origin that takes 200 ms.
async fn herd(layer: &CacheLayer<BoxStorage>, path: &str, many: usize) -> String {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let origin = tower::service_fn(move |_: Request<Full<Bytes>>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok::<_, Infallible>(response(&[("cache-control", "max-age=600")], vec![7; 300_000]))
        }
    });
    let service = layer.layer(origin);
    let asks = (0..many).map(|_| {
        let request = Request::get(format!("http://example.com{path}")).body(Full::default()).unwrap();
        let response = service.clone().oneshot(request);
        async { response.await.unwrap().into_body().collect().await.unwrap().to_bytes().len() }
    });
    let lengths = futures_util::future::join_all(asks).await;
    assert!(lengths.iter().all(|len| *len == 300_000));
    layer.idle().await;
    format!("{} fetches", asked.load(Ordering::SeqCst))
}

async fn peers(place: &Place) -> (Peer, Peer) {
    drop(place.open("store").await.unwrap()); // so that `clean` knows its address
    let address = place.address("store");
    (Peer::start(&address), Peer::start(&address))
}

async fn shared(place: &Place) {
    let (mut one, mut other) = peers(place).await;
    for len in [100, 700_000] {
        assert_eq!(one.ask(&format!("get /{len} 1 {len}")), "miss 1");
        assert_eq!(other.ask(&format!("get /{len} 2 {len}")), "hit 1");
        assert_eq!(other.ask(&format!("post /{len}")), "done");
        assert_eq!(one.ask(&format!("get /{len} 3 {len}")), "miss 3");
        assert_eq!(other.ask(&format!("get /{len} 4 {len}")), "hit 3");
    }
}

async fn herds(place: &Place) {
    let (mut one, mut other) = peers(place).await;
    for round in 0..3 {
        one.say(&format!("herd /herd{round} 50"));
        other.say(&format!("herd /herd{round} 50"));
        let mut fetches = [one.hear(), other.hear()];
        fetches.sort();
        assert_eq!(fetches, ["0 fetches", "1 fetches"]);
    }
}

async fn fetching(place: &Place) {
    let (mut one, mut other) = peers(place).await;
    for len in [100, 700_000] {
        for (path, is_stored) in [(format!("/cold{len}"), false), (format!("/warm{len}"), true)] {
            if is_stored {
                assert_eq!(one.ask(&format!("get {path} 0 {len}")), "miss 0");
                assert_eq!(one.ask(&format!("post {path}")), "done");
            }
            assert_eq!(one.ask(&format!("begin {path} 1 {len}")), "begun");
            assert_eq!(other.ask(&format!("post {path}")), "done");
            assert_eq!(one.ask("finish"), format!("{len} bytes"));
            assert_eq!(
                other.ask(&format!("get {path} 2 {len}")),
                "miss 2",
                "{path}: an invalidated response was served"
            );
            assert_eq!(one.ask(&format!("get {path} 3 {len}")), "hit 2", "{path}");
        }
    }
}

/// Sends random requests to two processes and checks the versions that they serve.
///
/// Each step ends before the next one, except fetches, which may be in progress during several steps.
async fn invariants(place: &Place) {
    let seed = std::env::var("STORES_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let steps: usize = std::env::var("STORES_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(150);
    let mut random = fastrand::Rng::with_seed(seed);
    let (one, other) = peers(place).await;
    let mut peers = [one, other];
    let mut under_way = [false, false];
    // The oldest version that may be served, for each path.
    let mut least = [0_u32; 4];
    let mut version = 0_u32;
    for step in 0..steps {
        let (who, path) = (random.usize(0..2), random.usize(0..4));
        let len = if path % 2 == 0 { 200 } else { 400_000 };
        let context = format!("STORES_SEED={seed}, step {step}");
        match random.usize(0..10) {
            0..=5 => {
                version += 1;
                let answer = peers[who].ask(&format!("get /{path} {version} {len}"));
                let served = answer.split(' ').nth(1).and_then(|served| served.parse::<u32>().ok());
                assert!(
                    served.is_some_and(|served| served >= least[path]),
                    "{context}: {answer}, but the oldest allowed is {}",
                    least[path]
                );
            }
            6 | 7 => {
                version += 1;
                assert_eq!(peers[who].ask(&format!("post /{path}")), "done");
                least[path] = version;
            }
            8 if !under_way[who] => {
                version += 1;
                assert_eq!(peers[who].ask(&format!("begin /{path} {version} {len}")), "begun");
                under_way[who] = true;
            }
            _ if under_way[who] => {
                assert!(peers[who].ask("finish").ends_with("bytes"), "{context}");
                under_way[who] = false;
            }
            _ => {}
        }
    }
    for who in 0..2 {
        if under_way[who] {
            peers[who].ask("finish");
        }
    }
    for path in 0..4 {
        version += 1;
        peers[0].ask(&format!("get /{path} {version} 200"));
        let answer = peers[1].ask(&format!("get /{path} {} 200", version + 1));
        assert!(
            answer.starts_with("hit"),
            "STORES_SEED={seed}: a response was not stored although no other request ran: {answer}"
        );
    }
}
