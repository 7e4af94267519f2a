//! Sends a body of 256 MiB through a layer, and measures the memory of the process.

use std::convert::Infallible;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_response_cache::CacheLayerBuilder;
use tower_response_cache::storage::Storage;

const FRAME: usize = 64 * 1024;
const FRAMES: usize = 4096;
/// How many frames the origin may have sent when the first byte of a body arrives.
const FRAMES_AHEAD: usize = 256;
/// How many frames the origin has sent.
static SENT: AtomicUsize = AtomicUsize::new(0);
/// How many ranges are asked for in the part `gaps`, before the whole is.
const GAPS: usize = 64;
/// The environment variable with the part that a child process plays.
pub const PART: &str = "LARGE_BODY_PART";
/// The environment variable with the address of its storage, if that is on a server.
pub const STORE: &str = "LARGE_BODY_STORE";

/// Returns a body whose frames are created one by one and begin with their number.
fn body(frames: Range<usize>) -> UnsyncBoxBody<Bytes, Infallible> {
    let frames = frames.map(|number| {
        SENT.fetch_add(1, Ordering::Relaxed);
        let mut frame = vec![number as u8; FRAME];
        frame[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Ok(Frame::data(Bytes::from(frame)))
    });
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// Reads a body and returns the time until its first byte.
///
/// Asserts the length, checks the number and the last byte of the frames, and that the first byte does not wait for the
/// whole body.
async fn read(body: impl Body<Data = Bytes, Error: std::fmt::Debug>) -> Duration {
    read_frames(body, 0..FRAMES).await
}

/// Reads a body of some of the frames.
async fn read_frames(
    body: impl Body<Data = Bytes, Error: std::fmt::Debug>,
    frames: Range<usize>,
) -> Duration {
    let (began, sent) = (Instant::now(), SENT.load(Ordering::Relaxed));
    let mut first = None;
    let mut body = Box::pin(body);
    let mut at = frames.start * FRAME;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        if first.is_none() {
            first = Some(began.elapsed());
            assert!(SENT.load(Ordering::Relaxed) - sent <= FRAMES_AHEAD, "the first byte waits");
        }
        // Each frame begins with its number. All other bytes are the number's last byte.
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (number, within) = (at / FRAME, at % FRAME);
            let here = rest.len().min(FRAME - within);
            if within == 0 && here >= 8 {
                assert_eq!(rest[..8], (number as u64).to_be_bytes());
                assert!(rest[here - 1] == number as u8);
            }
            at += here;
            rest = &rest[here..];
        }
    }
    assert_eq!(at, FRAME * frames.end);
    first.unwrap()
}

/// Returns the peak memory of this process in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Plays a part, and prints the peak memory and the time until the first byte.
///
/// The body is asked for up to `attempts` times until it is a hit.
pub async fn play<S: Storage>(
    part: &str,
    attempts: usize,
    builder: impl AsyncFnOnce() -> CacheLayerBuilder<S>,
) {
    let first = if part == "bare" {
        read(service_fn(origin).oneshot(ask()).await.unwrap().into_body()).await
    } else {
        through(builder().await, part, attempts).await
    };
    println!("peak {} first {}", peak(), first.as_micros());
}

/// Answers a request for the whole, or for a range that begins and ends with a frame.
async fn origin(request: Request<Empty<Bytes>>) -> http::Result<Response<UnsyncBoxBody<Bytes, Infallible>>> {
    let response = Response::builder().header("cache-control", "max-age=600").header("etag", "\"a\"");
    let Some(range) = request.headers().get("range") else { return response.body(body(0..FRAMES)) };
    let (first, last) = range.to_str().unwrap()["bytes=".len()..].split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let last = last.min(FRAME * FRAMES - 1);
    assert!(first % FRAME == 0 && (last + 1) % FRAME == 0, "{first}-{last}");
    response
        .status(206)
        .header("content-range", format!("bytes {first}-{last}/{}", FRAME * FRAMES))
        .body(body(first / FRAME..(last + 1) / FRAME))
}

fn ask() -> Request<Empty<Bytes>> {
    Request::get("http://example.com/large").body(Empty::new()).unwrap()
}

async fn through<S: Storage>(builder: CacheLayerBuilder<S>, part: &str, attempts: usize) -> Duration {
    let builder = match part {
        "slices" => builder.slices(16 * FRAME as u64),
        "gaps" => builder.store_parts(true),
        _ => builder,
    };
    let layer = builder.build().unwrap();
    let service = layer.layer(service_fn(origin));
    if part == "gaps" {
        for number in 0..GAPS {
            let first = number * (FRAMES / GAPS);
            let frames = first..first + FRAMES / GAPS / 2;
            let mut request = ask();
            let range = format!("bytes={}-{}", frames.start * FRAME, frames.end * FRAME - 1);
            request.headers_mut().insert("range", range.parse().unwrap());
            read_frames(service.clone().oneshot(request).await.unwrap().into_body(), frames).await;
        }
        layer.idle().await;
    }
    let mut first = read(service.clone().oneshot(ask()).await.unwrap().into_body()).await;
    if let "hit" | "slices" | "gaps" = part {
        for attempt in 1.. {
            layer.idle().await;
            let hit = service.clone().oneshot(ask()).await.unwrap();
            let status = *hit.body().status().unwrap();
            first = read(hit.into_body()).await;
            if status.is_hit() {
                break;
            }
            assert!(attempt < attempts, "{status:?}");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    if part == "parts" {
        layer.idle().await;
        let hit = service.oneshot(ask_for_parts()).await.unwrap();
        assert_eq!((hit.status().as_u16(), hit.body().status().unwrap().is_hit()), (206, true));
        first = read_parts(hit).await;
    }
    layer.idle().await;
    first
}

/// Asks for half of the body in sixteen ranges, the last one first.
fn ask_for_parts() -> Request<Empty<Bytes>> {
    let stride = FRAME * FRAMES / 16;
    let range = |number: usize| format!("{}-{}", number * stride, number * stride + stride / 2 - 1);
    let ranges: Vec<_> = (0..16).rev().map(range).collect();
    let mut request = ask();
    request.headers_mut().insert("range", format!("bytes={}", ranges.join(",")).parse().unwrap());
    request
}

/// Reads the parts and returns the time until the first byte.
///
/// Asserts the length, and that each frame with the beginning of a part follows the head of that part.
async fn read_parts(response: Response<impl Body<Data = Bytes, Error: std::fmt::Debug>>) -> Duration {
    let began = Instant::now();
    let (head, body) = response.into_parts();
    let announced: usize = head.headers["content-length"].to_str().unwrap().parse().unwrap();
    let (mut first, mut len, mut heads) = (None, 0, 0);
    let (mut body, mut expected) = (Box::pin(body), None);
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        first.get_or_insert_with(|| began.elapsed());
        len += data.len();
        if let Some(number) = expected.take() {
            assert_eq!(data[..8], u64::to_be_bytes(number));
        }
        let text = str::from_utf8(&data[..data.len().min(200)]).unwrap_or("");
        if let Some((_, range)) = text.split_once("Content-Range: bytes ") {
            heads += 1;
            expected = Some(range.split_once('-').unwrap().0.parse::<u64>().unwrap() / FRAME as u64);
        }
    }
    assert_eq!((len, heads), (announced, 16));
    assert!(len > FRAME * FRAMES / 2);
    first.unwrap()
}

/// Plays a part in another process of this binary.
///
/// Returns its peak memory in KiB. Prints the time until the first byte too.
pub fn measure(part: &str, store: Option<&str>) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]).env(PART, part).envs(store.map(|store| (STORE, store)));
    child.envs(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name, "test")));
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once("peak ")).unwrap().1.to_owned();
    let mut words = line.split(' ');
    let peak: u64 = words.next().unwrap().parse().unwrap();
    let first: u64 = words.nth(1).unwrap().parse().unwrap();
    println!("{part}: peak {peak} KiB, first byte after {first} µs");
    peak
}
