//! A media element in Chromium that seeks in a long file.

use std::collections::BTreeSet;

use serde_json::json;

use super::{World, file};
use crate::browser::Browser;

const SLICE: usize = 256 * 1024;

/// The bytes of a second: two channels of 16 bits.
const RATE: usize = 4 * 44_100;
const SECONDS: usize = 200;

const PAGE: &str = r#"<!doctype html><link rel="icon" href="data:,"><audio muted preload="metadata" src="/file.wav"></audio><script>
const audio = document.querySelector('audio');
const event = (name) => new Promise((resolve, reject) => {
    audio.addEventListener(name, resolve, { once: true });
    audio.addEventListener('error', () => reject(new Error(audio.error.message)), { once: true });
});
const known = audio.readyState > 0 ? Promise.resolve() : event('loadedmetadata');
async function seek(...times) {
    await known;
    const seeked = event('seeked');
    for (const time of times) audio.currentTime = time;
    await seeked;
    while (audio.seeking) await event('seeked');
    return audio.currentTime;
}
async function play() {
    const ended = event('ended');
    await audio.play();
    await ended;
    return audio.currentTime;
}
async function hash(first, last) {
    const response = await fetch('/file.wav', { cache: 'no-store', headers: { range: `bytes=${first}-${last}` } });
    let hash = 2166136261;
    for (const byte of new Uint8Array(await response.arrayBuffer())) hash = Math.imul(hash ^ byte, 16777619);
    return [response.status, hash >>> 0];
}
</script>"#;

/// Returns a sound without compression.
fn wav() -> Vec<u8> {
    let data = file(RATE * SECONDS);
    let number = |number: usize| (number as u32).to_le_bytes();
    let format = [1, 0, 2, 0]; // PCM, two channels
    let mut wav = [&b"RIFF"[..], &number(36 + data.len()), b"WAVEfmt ", &number(16), &format].concat();
    wav.extend([number(44_100), number(RATE), [4, 0, 16, 0]].concat());
    wav.extend([&b"data"[..], &number(data.len()), &data].concat());
    wav
}

/// As the script of the page does (FNV-1a).
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

#[test]
fn media_element_seeks_through_slices() {
    for storage in ["memory", "sqlite"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("page"), PAGE).unwrap();
        let path = folder.path().join("cache.sqlite");
        let storage = if storage == "memory" { storage } else { path.to_str().unwrap() };
        let options = ["--slices", &format!("{SLICE}B"), "--storage", storage];
        let Some(world) = World::new(folder.path(), wav(), &options) else { return };
        let mut sent = Vec::new();
        // Each browser has an empty cache of its own.
        for _ in 0..2 {
            let Some(mut browser) = Browser::start() else { return };
            browser.open(&world.url.replace("/file", "/page"));
            for time in [150, 20, 199, 90] {
                assert_eq!(browser.value(&format!("seek({time})")), json!(time));
            }
            // The requests of the first places are dropped.
            assert_eq!(browser.value("seek(30, 170, 60, 120, 10)"), json!(10));
            assert_eq!(browser.value("audio.duration"), json!(SECONDS));
            for (first, last) in [(30_000_000, 30_099_999), (15 * RATE, 15 * RATE + 9), (0, SLICE)] {
                let expected = json!([206, hash(&world.file[first..=last])]);
                assert_eq!(browser.value(&format!("hash({first}, {last})")), expected);
            }
            let end = SECONDS as f64 - 0.5;
            browser.value(&format!("seek({end})"));
            assert_eq!(browser.value("play()"), json!(SECONDS));
            assert_eq!(browser.value("audio.error"), json!(null));
            browser.assert_quiet();
            sent.push(world.report().0);
        }
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        let (requests, slices) = (asked.lines().count(), asked.lines().collect::<BTreeSet<_>>().len());
        println!("{sent:?} of {} bytes were sent, {slices} slices in {requests} requests", world.file.len());
        assert!(sent[0] < world.file.len(), "{sent:?}");
        // Each of the ten places of a browser drops at most one request before its slice has begun.
        assert!(requests - slices <= 2 * 10, "{slices} slices in {requests} requests");
    }
}
