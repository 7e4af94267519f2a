//! What the program tells its operator: the log, the access log and the metrics.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::peer::{Peer, get};
use super::program::{program, running};
use super::world::{RawOrigin, ok, refusing};
use crate::access_log::{AccessLog, Entry, Format};
use crate::examples::Running;

/// Starts the program, whose log the test reads.
pub(super) fn logged(mut command: Command, arguments: &[&str]) -> (Running, BufReader<ChildStderr>) {
    command.args(["--listen", "127.0.0.1:0"]).args(arguments).env_remove("RUST_LOG").stderr(Stdio::piped());
    let mut running = Running::start(command);
    let log = BufReader::new(running.child.stderr.take().unwrap());
    (running, log)
}

/// Reads the log up to a line with this text.
pub(super) fn line(log: &mut BufReader<ChildStderr>, text: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ends without {text}");
        if line.contains(text) {
            return line;
        }
    }
}

fn signal(running: &Running, name: &str) {
    let id = running.child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Ends the program, and returns the rest of its log.
pub(super) fn stopped(mut running: Running, mut log: BufReader<ChildStderr>) -> String {
    signal(&running, "-TERM");
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(running.child.wait().unwrap().success());
    rest
}

#[tokio::test]
async fn failures_of_the_origin_are_logged_at_a_bounded_rate() {
    let origin = format!("http://127.0.0.1:{}", refusing().await);
    let (proxy, log) = logged(program(), &["--origin", &origin]);
    for _ in 0..50 {
        assert!(proxy.get("/?secret=1").starts_with("HTTP/1.1 502 "));
    }
    let text = stopped(proxy, log);
    let lines: Vec<_> = text.lines().filter(|line| line.contains("the origin cannot be reached")).collect();
    let count = |line: &&str| line.split_once("count=").unwrap().1.split(' ').next().unwrap().parse::<u64>();
    let counts: Vec<_> = lines.iter().map(|line| count(line).unwrap()).collect();
    assert_eq!((counts[0], counts.iter().sum()), (1, 50), "{text}");
    assert!(lines.len() < 10 && lines[0].contains("onnection refused") && !text.contains("secret"), "{text}");
}

#[test]
fn filter_of_the_log_is_a_variable() {
    let mut silent = program();
    silent.args(["--listen", "127.0.0.1:0", "--bare", "1"]).env("RUST_LOG", "off").stderr(Stdio::piped());
    let mut silent = Running::start(silent);
    let log = BufReader::new(silent.child.stderr.take().unwrap());
    assert_eq!(stopped(silent, log), "");
    let output = program().args(["--bare", "1"]).env("RUST_LOG", "a=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("reverse_proxy: RUST_LOG=a=loud"));
}

#[cfg(target_os = "linux")]
#[test]
fn too_many_open_files_are_logged_and_survived() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 48; exec \"$0\" \"$@\""]).arg(program().get_program());
    let (proxy, mut log) = logged(limited, &["--bare", "1", "--max-connections", "1000", "--threads", "1"]);
    let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(&proxy.address).unwrap()).collect();
    assert!(line(&mut log, "no connection can be accepted").contains("open files"));
    drop(clients);
    assert!(proxy.get("/").starts_with("HTTP/1.1 200 "));
    stopped(proxy, log);
}

/// Waits for something that happens soon.
fn eventually(happened: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < deadline, "the step takes too long");
        std::thread::yield_now();
    }
}

#[test]
fn access_log_has_the_status_of_the_cache_and_is_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
    let origin = running(&["--listen", "127.0.0.1:0", "--bare", "5"]);
    let url = format!("http://{}", origin.address);
    let file = path.to_str().unwrap();
    let (proxy, log) =
        logged(program(), &["--origin", &url, "--access-log", "combined", "--access-log-file", file]);
    proxy.get("/a?b=c");
    proxy.get("/a?b=c");
    // Lines are written soon, by a thread of their own.
    eventually(|| std::fs::read_to_string(&path).unwrap().lines().count() == 2);
    std::fs::rename(&path, &moved).unwrap();
    signal(&proxy, "-HUP");
    eventually(|| path.exists());
    proxy.get("/after");
    stopped(proxy, log);
    let (before, after) = (std::fs::read_to_string(&moved).unwrap(), std::fs::read_to_string(&path).unwrap());
    let lines: Vec<_> = before.lines().collect();
    assert_eq!((lines.len(), after.lines().count()), (2, 1), "{before}{after}");
    for (line, status) in [(lines[0], "fwd=uri-miss"), (lines[1], "; hit")] {
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(
            line.contains("] \"GET /a?b=c HTTP/1.1\" 200 5 \"-\" \"-\" \"tower-response-cache; "),
            "{line}"
        );
        assert!(line.contains(status), "{line}");
    }
    assert!(after.contains("\"GET /after HTTP/1.1\" 200 5 "), "{after}");
}

#[test]
fn access_log_on_standard_output_is_json() {
    let origin = running(&["--listen", "127.0.0.1:0", "--bare", "5"]);
    let url = format!("http://{}", origin.address);
    let mut proxy = program();
    proxy.args(["--listen", "127.0.0.1:0", "--origin", &url, "--access-log", "json"]).env_remove("RUST_LOG");
    let mut child = proxy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address = line(&mut log, "listening on http://");
    let address = address.trim_end().rsplit_once("http://").unwrap().1.to_owned();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let proxy = Running { child, address };
    proxy.get("/a");
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["target"], &value["status"], &value["bytes"]), (&"/a".into(), &200.into(), &5.into()));
    assert_eq!((&value["host"], &value["complete"]), (&"example.test".into(), &true.into()));
    assert!(
        value["cache"].as_str().unwrap().contains("fwd=uri-miss") && value["seconds"].is_f64(),
        "{value}"
    );
    stopped(proxy, log);
}

#[test]
fn access_log_escapes_what_clients_send() {
    let folder = tempfile::tempdir().unwrap();
    let request = Request::get("/").header("user-agent", &b"a\"b\\\xe9\tc"[..]).body(()).unwrap();
    let entry = Entry::of(&request, SocketAddr::from(([127, 0, 0, 1], 1)));
    for format in [Format::Combined, Format::Json] {
        let path = folder.path().join(format!("{format:?}"));
        let log = AccessLog::start(format, Some(path.clone())).unwrap();
        log.add(&entry, StatusCode::OK, 1, Duration::ZERO, true);
        assert_eq!(log.finish(Duration::from_secs(30)), 0);
        let line = std::fs::read_to_string(path).unwrap();
        match format {
            Format::Combined => assert!(line.contains(r#" "a\x22b\x5C\xE9\x09c" "#), "{line}"),
            Format::Json => {
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(value["user_agent"], "a\"b\\\u{fffd}\tc");
            }
        }
    }
}

#[test]
fn access_log_has_the_host_of_a_request_without_host_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    // As hyper gives the request of an HTTP/2 client.
    let request = Request::get("http://example.test:8080/a").body(()).unwrap();
    let log = AccessLog::start(Format::Json, Some(path.clone())).unwrap();
    let entry = Entry::of(&request, SocketAddr::from(([127, 0, 0, 1], 1)));
    log.add(&entry, StatusCode::OK, 1, Duration::ZERO, true);
    assert_eq!(log.finish(Duration::from_secs(30)), 0);
    let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(value["host"], "example.test:8080");
}

#[test]
fn access_log_that_is_not_read_drops_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Opened for both directions, so that opening does not wait for the other end.
    let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let log = AccessLog::start(Format::Combined, Some(path)).unwrap();
    let target = format!("/{}", "x".repeat(32 * 1024));
    let request = Request::get(target).body(()).unwrap();
    let entry = Entry::of(&request, SocketAddr::from(([127, 0, 0, 1], 1)));
    for _ in 0..1000 {
        log.add(&entry, StatusCode::OK, 1, Duration::ZERO, true);
    }
    let dropped = log.finish(Duration::ZERO);
    assert!((700..1000).contains(&dropped), "{dropped}");
    let finishing = std::thread::spawn(move || log.finish(Duration::from_secs(30)));
    let mut text = Vec::new();
    let mut lines = 0;
    while lines < 1000 - dropped {
        let mut part = [0; 65536];
        let len = reader.read(&mut part).unwrap();
        text.extend_from_slice(&part[..len]);
        lines += part[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    assert_eq!(finishing.join().unwrap(), dropped);
    let lengths: std::collections::HashSet<_> = text.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    assert_eq!(lengths.len(), 2, "{lengths:?}"); // all lines are equal, and the text ends with one
}

#[test]
fn metrics_count_requests_and_bytes() {
    let origin = running(&["--listen", "127.0.0.1:0", "--bare", "5"]);
    let url = format!("http://{}", origin.address);
    let mut proxy = program();
    proxy.args(["--listen", "127.0.0.1:0", "--origin", &url, "--metrics", "127.0.0.1:0"]);
    proxy.env_remove("RUST_LOG").stderr(Stdio::piped());
    let mut proxy = Running::start(proxy);
    let mut log = BufReader::new(proxy.child.stderr.take().unwrap());
    let address = line(&mut log, "metrics on http://");
    let address = address.trim_end().rsplit_once("http://").unwrap().1.strip_suffix("/metrics").unwrap();
    for _ in 0..3 {
        proxy.get("/");
    }
    let text = scrape(address);
    let has = |line: &str| text.lines().any(|found| found == line);
    assert!(has("reverse_proxy_requests_total{status=\"2xx\"} 3"), "{text}");
    assert!(has("reverse_proxy_sent_bytes_total 15"), "{text}");
    assert!(has("reverse_proxy_connections_total 3"), "{text}");
    if cfg!(feature = "metrics") {
        let hits = "http_cache_requests_total{cache=\"default\",outcome=\"hit\",reason=\"none\"} 2";
        assert!(has(hits), "{text}");
    }
    stopped(proxy, log);
}

/// Returns the metrics that a proxy serves at this address.
fn scrape(address: &str) -> String {
    let mut scraper = TcpStream::connect(address).unwrap();
    scraper.write_all(get("/metrics").as_bytes()).unwrap();
    let mut text = String::new();
    scraper.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn responses_are_counted_by_what_they_needed() {
    let mut origin = RawOrigin::start().await;
    let url = format!("http://127.0.0.1:{}", origin.port);
    let mut proxy = program();
    proxy.args(["--listen", "127.0.0.1:0", "--origin", &url, "--metrics", "127.0.0.1:0"]);
    proxy.env_remove("RUST_LOG").stderr(Stdio::piped());
    let mut proxy = Running::start(proxy);
    let mut log = BufReader::new(proxy.child.stderr.take().unwrap());
    let metrics = line(&mut log, "metrics on http://");
    let metrics = metrics.trim_end().rsplit_once("http://").unwrap().1.strip_suffix("/metrics").unwrap();
    let mut client = Peer::new(tokio::net::TcpStream::connect(&proxy.address).await.unwrap());

    for (path, age) in [("/fresh", 60), ("/stale", 0)] {
        client.send(get(path)).await;
        origin.answer(ok(&format!("Cache-Control: max-age={age}\r\nETag: \"v1\"\r\n"), "hello")).await;
        client.response().await;
    }
    client.send(get("/stale")).await;
    let asked = origin.answer("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n").await;
    assert_eq!(asked.get("if-none-match"), Some("\"v1\""));
    client.response().await;
    client.get("/fresh").await;
    let count = |from: &str| {
        let text = scrape(metrics);
        let name = format!("reverse_proxy_responses_total{{from=\"{from}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map(|count| count.parse::<u64>().unwrap())
    };
    let counts = || ["origin", "validated", "cache", "error"].map(count);
    assert_eq!(counts(), [Some(2), Some(1), Some(1), None]);
    origin.shut().await;
    assert_eq!(client.get("/stale").await.head.status(), 200); // stale, since the origin has gone
    assert_eq!(client.get("/new").await.head.status(), 502);
    assert_eq!(client.ask("GET / HTTP/1.1\r\n\r\n").await.head.status(), 400); // without Host
    assert_eq!(counts(), [Some(2), Some(1), Some(2), Some(2)]);
    stopped(proxy, log);
}

/// Writes a new certificate for localhost and its key, and returns the certificate.
fn certify(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, made.cert.pem()).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// Returns the certificate that a proxy shows.
fn shown(address: &str, trusted: &CertificateDer<'static>) -> Result<Vec<u8>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    Ok(tls.peer_certificates().unwrap()[0].to_vec())
}

#[test]
fn certificate_is_read_anew_unless_it_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let old = certify(&certificate, &key);
    let arguments =
        ["--bare", "5", "--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let (proxy, mut log) = logged(program(), &arguments);
    assert_eq!(shown(&proxy.address, &old), Ok(old.to_vec()));

    std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nbroken").unwrap();
    signal(&proxy, "-HUP");
    let text = line(&mut log, "the certificate stays");
    assert!(text.contains(" WARN ") && text.contains("cert.pem"), "{text}");
    assert_eq!(shown(&proxy.address, &old), Ok(old.to_vec()));

    std::fs::write(&certificate, "no PEM").unwrap();
    signal(&proxy, "-HUP");
    let text = line(&mut log, "the certificate stays");
    assert!(text.contains("cert.pem: it has no certificate"), "{text}");

    let new = certify(&certificate, &folder.path().join("other.pem"));
    signal(&proxy, "-HUP"); // the key is still that of the old certificate
    let text = line(&mut log, "the certificate stays");
    assert!(text.contains("key.pem: it is not the key of the certificate in"), "{text}");
    assert_eq!(shown(&proxy.address, &old), Ok(old.to_vec()));

    std::fs::copy(&certificate, &key).unwrap();
    signal(&proxy, "-HUP");
    let text = line(&mut log, "the certificate stays");
    assert!(text.contains("key.pem: it has no private key"), "{text}");

    std::fs::rename(folder.path().join("other.pem"), &key).unwrap();
    signal(&proxy, "-HUP");
    line(&mut log, "the certificate was read anew");
    assert_eq!(shown(&proxy.address, &new), Ok(new.to_vec()));
    shown(&proxy.address, &old).unwrap_err();
    stopped(proxy, log);
}

/// Returns the memory of a process, in KiB.
#[cfg(target_os = "linux")]
fn resident(proxy: &Running) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The length of the bodies for [`memory_of_slow_reader`].
#[cfg(target_os = "linux")]
pub const LARGE: usize = 20_000_000;

/// Returns the memory that a proxy takes for a client that reads a new body slowly, in KiB.
///
/// What the allocator keeps for itself is included.
#[cfg(target_os = "linux")]
pub fn memory_of_slow_reader(arguments: &[&str]) -> usize {
    const READERS: usize = 160;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let options = ["--listen", "127.0.0.1:0", "--storage", store.to_str().unwrap()];
    let proxy = running(&[&options[..], arguments].concat());
    let read = |numbers: std::ops::Range<usize>| {
        let connect = |number: usize| {
            let mut reader = TcpStream::connect(&proxy.address).unwrap();
            reader.write_all(get(&format!("/{number}")).as_bytes()).unwrap();
            reader
        };
        let mut readers: Vec<_> = numbers.map(connect).collect();
        for _ in 0..10 {
            for reader in &mut readers {
                reader.read_exact(&mut [0; 65536]).unwrap();
            }
        }
        readers
    };
    let _first = read(0..20); // what does not grow with the readers, such as the caches of SQLite
    let before = resident(&proxy);
    let _others = read(20..20 + READERS);
    resident(&proxy).saturating_sub(before) / READERS
}

#[cfg(target_os = "linux")]
#[test]
fn slow_readers_of_new_bodies_take_little_memory() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]); // the head of a GET is short
                let head = format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LARGE}\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes());
                while stream.write_all(&[b'x'; 65536]).is_ok() {}
            });
        }
    });
    let each = memory_of_slow_reader(&["--origin", &url]);
    assert!(each < 400, "{each} KiB for each reader");
}
