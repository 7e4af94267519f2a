//! Downloads whose origin is killed, or that are killed and continued.
//!
//! `PARTS_KILLS=n` kills `n` times, half of them the origin and half of them the clients. `PARTS_SEED=x` decides when.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::clients::{Interruption, run, run_until};
use super::{SLICE, World, file, slices};

const KILLS: usize = 24;
const LEN: usize = 3_000_000;

/// How long a download may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// A program that continues a download where it was.
struct Client {
    program: &'static str,
    options: &'static [&'static str],
    /// The option before the name of the file.
    output: &'static str,
    /// aria2c writes down what it has when it is told to end. Killed outright, it could not know which bytes of its file it has
    /// written.
    signal: &'static str,
    connections: usize,
    /// The exit codes that say that the connection broke, or that the proxy answered with an error.
    broken: &'static [i32],
}

const CLIENTS: [Client; 3] = [
    Client {
        program: "curl",
        options: &["-sS", "--fail", "-C", "-"],
        output: "-o",
        signal: "KILL",
        connections: 1,
        broken: &[18, 22, 56],
    },
    Client {
        program: "wget",
        options: &["-nv", "-c", "-t", "1"],
        output: "-O",
        signal: "KILL",
        connections: 1,
        broken: &[4, 8],
    },
    Client {
        program: "aria2c",
        options: &["-q", "-c", "-x8", "-s8", "-k1M", "--file-allocation=none", "-d", "/"],
        output: "-o",
        signal: "TERM",
        connections: 8,
        broken: &[1, 2, 3, 22, 24, 29],
    },
];

/// Returns the clients that are installed.
fn clients() -> Vec<&'static Client> {
    CLIENTS.iter().filter(|client| run(client.program, &["--version"]).is_some()).collect()
}

impl Client {
    /// Runs the program once, for a file that it may have begun.
    ///
    /// Returns its exit code, or `None` if it was interrupted.
    fn run(&self, url: &str, path: &Path, condition: &mut dyn FnMut() -> bool) -> Option<i32> {
        let mut is_interrupted = false;
        let mut condition = || {
            is_interrupted = condition();
            is_interrupted
        };
        let interruption = Interruption { signal: self.signal, condition: &mut condition };
        let arguments = [self.options, &[self.output, path.to_str().unwrap(), url]].concat();
        let output = run_until(self.program, &arguments, Some(interruption)).unwrap();
        let code = output.status.code();
        if is_interrupted && code != Some(0) {
            return None;
        }
        let code = code.unwrap();
        let is_known = code == 0 || self.broken.contains(&code);
        assert!(is_known, "{} ended with {code}: {}", self.program, String::from_utf8_lossy(&output.stderr));
        Some(code)
    }
}

/// Checks that a download has every byte.
fn check(client: &Client, path: &Path, world: &World) {
    let content = std::fs::read(path).unwrap();
    let wrong = content.iter().zip(&world.file).position(|(one, other)| one != other);
    assert!(content == world.file, "{}: {} bytes, {wrong:?} is wrong", client.program, content.len());
}

/// Checks that the origin has sent each byte, and no more twice than a slice for each connection of each kill.
fn check_cost(client: &Client, cost: usize, kills: usize) {
    let bound = LEN + kills * client.connections * SLICE;
    assert!((LEN..=bound).contains(&cost), "{cost} bytes were sent to {}, {kills} kills", client.program);
}

/// The proxies that are tried: on each storage, and with and without `resume`.
fn settings(folder: &Path) -> [Vec<String>; 4] {
    let storage = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let with = |storage: &str, resume: &str| {
        ["--slices", &slices(), "--storage", storage, "--resume", resume].map(str::to_owned).to_vec()
    };
    [with("memory", "0"), with("memory", "9"), with(&storage("one"), "0"), with(&storage("two"), "9")]
}

/// Runs downloads before each proxy until their kills have happened.
///
/// `download` gets the kills that may happen in it, and returns how many have.
fn run_downloads(kills: usize, mut download: impl FnMut(&Client, &World, &str, &Path, usize) -> usize) {
    let clients = clients();
    if clients.is_empty() {
        return;
    }
    for number in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let options = &settings(folder.path())[number];
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let Some(world) = World::new(folder.path(), file(LEN), &options) else { return };
        let kills = (kills + number) / 4;
        let (mut left, mut downloads) = (kills, 0);
        while left > 0 || downloads < clients.len() {
            let client = clients[downloads % clients.len()];
            let (url, path) =
                (format!("{}?{downloads}", world.url), folder.path().join(format!("got{downloads}")));
            left -= download(client, &world, &url, &path, left.min(kills.div_ceil(clients.len())).min(6));
            check(client, &path, &world);
            std::fs::remove_file(&path).unwrap();
            downloads += 1;
        }
        println!(
            "{options:?}: {kills} kills in {downloads} downloads of {LEN} bytes, {} bytes were sent",
            world.report().0
        );
    }
}

#[test]
fn origin_is_killed_during_downloads() {
    let mut random = fastrand::Rng::with_seed(number("PARTS_SEED", 1) as u64);
    run_downloads(number("PARTS_KILLS", KILLS).div_ceil(2), |client, world, url, path, most| {
        let state = &world.origin.state;
        let before = state.sent();
        {
            let mut kills = world.origin.kills.lock().unwrap();
            (kills.left, kills.within, kills.random) = (most, LEN / (most + 1), random.fork());
            kills.plan(state);
        }
        let began = Instant::now();
        while client.run(url, path, &mut || false) != Some(0) {
            assert!(began.elapsed() < PATIENCE, "{} does not come to an end", client.program);
        }
        let mut kills = world.origin.kills.lock().unwrap();
        let happened = most - kills.left;
        (kills.left, _) = (0, state.set_kill_at(0));
        let cost = state.sent() - before;
        // Only what was under way is sent twice.
        check_cost(client, cost, happened);
        happened
    });
}

#[test]
fn clients_are_killed_during_downloads() {
    let mut random = fastrand::Rng::with_seed(number("PARTS_SEED", 1) as u64);
    run_downloads(number("PARTS_KILLS", KILLS) / 2, |client, world, url, path, most| {
        let state = &world.origin.state;
        let (before, mut happened) = (state.sent(), 0);
        loop {
            let at = state.sent() + random.usize(1..=LEN / (most + 1));
            let mut condition = || happened < most && state.sent() >= at;
            match client.run(url, path, &mut condition) {
                None => happened += 1,
                Some(code) => {
                    assert_eq!(code, 0, "{} fails without a reason", client.program);
                    break;
                }
            }
        }
        // A slice whose response has begun is stored to its end. One that was only asked for is asked for again.
        let cost = state.sent() - before;
        check_cost(client, cost, happened);
        happened
    });
}
