//! Programs that people use, as clients of the proxy: curl, wget, aria2c, git, pip and Chromium.
//!
//! A test whose program is missing is skipped, and says so.

use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tower_response_cache::{EntryFilter, Ttl};

use super::program::{program, running};
use super::world::{Asked, Proxy, RawOrigin};
use crate::examples::Running;
use crate::support::byteranges::parts;

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program, which must succeed. Returns `None` if it is missing.
pub(super) fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    let output = try_run(program, arguments)?;
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output)
}

/// Runs a program. Returns `None` if it is missing.
fn try_run(program: &str, arguments: &[&str]) -> Option<Output> {
    run_until(program, arguments, None)
}

/// Sends a signal to a program when a condition holds.
pub(super) struct Interruption<'a> {
    pub(super) signal: &'a str,
    pub(super) condition: &'a mut dyn FnMut() -> bool,
}

/// Runs a program until it ends or is interrupted. Returns `None` if it is missing.
pub(super) fn run_until(
    program: &str,
    arguments: &[&str],
    mut interruption: Option<Interruption<'_>>,
) -> Option<Output> {
    let mut command = Command::new(program);
    // A proxy or a configuration of the user's must not matter.
    for (name, _) in std::env::vars() {
        if name.to_ascii_lowercase().ends_with("_proxy") || name.starts_with("PIP_") {
            command.env_remove(name);
        }
    }
    command.env("GIT_TERMINAL_PROMPT", "0").env("PIP_CONFIG_FILE", "/dev/null").stdin(Stdio::null());
    // Files, because a process that the program leaves behind would hold a pipe open.
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.args(arguments).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let Ok(mut child) = command.process_group(0).spawn() else {
        println!("skipped: there is no {program}");
        return None;
    };
    let began = Instant::now();
    // Short, since a program that is interrupted is to be in the middle of its work.
    let pause = Duration::from_millis(if interruption.is_some() { 1 } else { 5 });
    let status = loop {
        match child.try_wait().unwrap() {
            None if began.elapsed() < PATIENCE => std::thread::sleep(pause),
            ended => break ended,
        }
        if let Some(Interruption { signal, .. }) = interruption.take_if(|given| (given.condition)()) {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        }
    };
    // With all that it has started. There may be nothing left.
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let status = status.unwrap_or_else(|| panic!("{program} takes too long"));
    let mut contents = [&mut out, &mut err].map(|file| {
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        content
    });
    let [stdout, stderr] = contents.each_mut().map(std::mem::take);
    Some(Output { status, stdout, stderr })
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

/// Serves the files of a folder. It knows no ranges.
struct Files {
    _server: Running,
    url: String,
}

impl Files {
    /// Returns `None` if there is no Python.
    fn of(folder: &Path) -> Option<Self> {
        let script = "import http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def end_headers(self):
        self.send_header('Cache-Control', 'max-age=60')
        super().end_headers()
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print('listening on http://127.0.0.1:%d' % server.server_port, flush=True)
server.serve_forever()";
        run("python3", &["--version"])?;
        let mut python = Command::new("python3");
        python.args(["-c", script]).current_dir(folder);
        let server = Running::start(python);
        let url = format!("http://{}", server.address);
        Some(Self { _server: server, url })
    }
}

/// Starts a proxy before the files of a folder. Returns it with its URL.
fn before(folder: &Path) -> Option<(Files, Running, String)> {
    let files = Files::of(folder)?;
    let proxy = running(&["--listen", "127.0.0.1:0", "--origin", &files.url, "--fetch-whole"]);
    let url = format!("http://{}", proxy.address);
    Some((files, proxy, url))
}

fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|number| (number % 251) as u8).collect()
}

#[test]
fn curl_speaks_http_2_without_tls() {
    let proxy = running(&["--listen", "127.0.0.1:0", "--bare", "300000"]);
    let url = format!("http://{}/", proxy.address);
    let format = "%{http_version} %{size_download}";
    for (option, version) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1"), ("--http1.0", "1")] {
        let arguments = ["-sS", option, "-o", "/dev/null", "-w", format, &url];
        let Some(output) = run("curl", &arguments) else { return };
        assert_eq!(text(output), format!("{version} 300000"));
    }
}

#[test]
fn curl_chooses_the_version_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let origin = running(&["--listen", "127.0.0.1:0", "--bare", "300000"]);
    let mut command = program();
    let origin_url = format!("http://{}", origin.address);
    command.args(["--listen", "127.0.0.1:0", "--origin", &origin_url]);
    command.args(["--tls-cert", certificate, "--tls-key", key]);
    let proxy = Running::start(command);
    let port = proxy.address.rsplit_once(':').unwrap().1;
    let url = format!("https://localhost:{port}/");
    let resolve = format!("localhost:{port}:127.0.0.1");
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let format = "%{http_version} %{size_download}";
        let arguments = [
            "-sS",
            option,
            "--resolve",
            &resolve,
            "--cacert",
            certificate,
            "-o",
            "/dev/null",
            "-w",
            format,
            &url,
        ];
        let Some(output) = run("curl", &arguments) else { return };
        assert_eq!(text(output), format!("{version} 300000"));
    }
}

#[test]
fn download_is_resumed_and_split() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), large()).unwrap();
    let Some((_files, _proxy, url)) = before(folder.path()) else { return };
    let (url, target) = (format!("{url}/large"), tempfile::tempdir().unwrap());
    let path = |name: &str| target.path().join(name).to_str().unwrap().to_owned();
    // The range is of a response that is not stored: the proxy fetches the whole, and the origin knows no ranges.
    std::fs::write(path("curl"), &large()[..1_000_000]).unwrap();
    if run("curl", &["-sS", "-C", "-", "-o", &path("curl"), &url]).is_some() {
        assert!(std::fs::read(path("curl")).unwrap() == large());
    }
    std::fs::write(path("wget"), &large()[..2_000_000]).unwrap();
    if run("wget", &["-q", "-c", "-O", &path("wget"), &url]).is_some() {
        assert!(std::fs::read(path("wget")).unwrap() == large());
    }
    let arguments =
        ["-q", "-x", "4", "-s", "4", "-k", "1M", "-d", target.path().to_str().unwrap(), "-o", "aria"];
    if run("aria2c", &[&arguments[..], &[&url]].concat()).is_some() {
        assert!(std::fs::read(path("aria")).unwrap() == large());
    }
}

#[test]
fn curl_gets_several_ranges_as_parts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large.txt"), large()).unwrap();
    let Some((_files, _proxy, url)) = before(folder.path()) else { return };
    let url = format!("{url}/large.txt");
    if run("curl", &["-sS", "-o", "/dev/null", &url]).is_none() {
        return;
    }
    // 128 KiB are a chunk, so that the ranges begin in the first one, span several, and are out of order.
    for (option, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        for ranges in ["0-99,200-299", "1000000-1999999,0-99,-1000"] {
            let format = "%{stderr}%{http_version} %{http_code} %{content_type}";
            let output = run("curl", &["-sS", option, "-r", ranges, "-w", format, &url]).unwrap();
            let written = String::from_utf8(output.stderr).unwrap();
            let content_type = written.strip_prefix(&format!("{version} 206 ")).expect(&written);
            let parts = parts(content_type, &output.stdout);
            assert_eq!(parts.len(), ranges.split(',').count());
            for part in parts {
                assert!(part.data == large()[part.range] && part.complete_len == large().len());
                assert_eq!(part.fields, ["Content-Type: text/plain"]);
            }
        }
    }
}

#[test]
fn git_clones_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (work, bare) = (folder.path().join("work"), folder.path().join("served/project.git"));
    let (work, bare) = (work.to_str().unwrap(), bare.to_str().unwrap());
    if run("git", &["init", "-q", work]).is_none() {
        return;
    }
    std::fs::write(folder.path().join("work/file"), large()).unwrap();
    run("git", &["-C", work, "add", "file"]);
    let author = ["-c", "user.name=a", "-c", "user.email=a@example.test"];
    run("git", &[&["-C", work], &author[..], &["commit", "-q", "-m", "message"]].concat());
    run("git", &["clone", "-q", "--bare", work, bare]);
    run("git", &["-C", bare, "update-server-info"]);
    let Some((_files, _proxy, url)) = before(&folder.path().join("served")) else { return };
    for name in ["first", "second"] {
        let clone = folder.path().join(name);
        run("git", &["clone", "-q", &format!("{url}/project.git"), clone.to_str().unwrap()]);
        assert!(std::fs::read(clone.join("file")).unwrap() == large());
    }
}

/// An origin with a few files, which stay fresh for ten minutes, and a proxy before it.
struct Site {
    proxy: Proxy,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

/// A path, the type of its content, and the content.
type File = (&'static str, &'static str, Vec<u8>);

impl Site {
    async fn start(files: Vec<File>) -> Self {
        let mut origin = RawOrigin::start().await;
        let proxy = Proxy::before(&origin).await;
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let list = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(asked) = origin.try_next().await {
                let answer = answer(asked, &files).await;
                list.lock().unwrap().push(answer);
            }
        });
        Self { proxy, asked }
    }

    /// Runs a program while the proxy serves it.
    async fn run(&self, program: &'static str, arguments: Vec<String>) -> Option<Output> {
        let run = move || {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            run(program, &arguments)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// Returns the paths that the origin was asked for since the last call, and its statuses, sorted.
    fn asked(&self) -> Vec<(String, u16)> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

/// Answers a request with one of the files. Returns its path and the status.
async fn answer(mut asked: Asked, files: &[File]) -> (String, u16) {
    let path = asked.head.line.split(' ').nth(1).unwrap().to_owned();
    let fields = "Cache-Control: max-age=600\r\nETag: \"v1\"\r\n";
    let (status, response, body) = match files.iter().find(|file| file.0 == path) {
        None => (404, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), &[][..]),
        Some(_) if asked.head.get("if-none-match") == Some("\"v1\"") => {
            (304, format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n"), &[][..])
        }
        Some((_, kind, body)) => {
            let len = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\n{fields}Content-Type: {kind}\r\nContent-Length: {len}\r\n\r\n");
            (200, head, &body[..])
        }
    };
    asked.peer.send([response.as_bytes(), body].concat()).await;
    asked.keep();
    (path, status)
}

fn expected<const N: usize>(answers: [(&str, u16); N]) -> Vec<(String, u16)> {
    answers.map(|(path, status)| (path.to_owned(), status)).to_vec()
}

#[tokio::test]
async fn pip_downloads_from_the_cache() {
    const WHEEL: &str = "/files/tiny-1.0-py3-none-any.whl";
    let has_pip =
        try_run("python3", &["-m", "pip", "--version"]).is_some_and(|output| output.status.success());
    if !has_pip {
        println!("skipped: there is no pip");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let wheel = folder.path().join("wheel");
    let script = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    wheel.writestr('tiny.py', 'size = 1\\n' * 20000)
    wheel.writestr('tiny-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')
    wheel.writestr('tiny-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('tiny-1.0.dist-info/RECORD', '')";
    run("python3", &["-c", script, wheel.to_str().unwrap()]).unwrap();
    let wheel = std::fs::read(wheel).unwrap();
    let index =
        format!("<!doctype html><html><body><a href=\"{WHEEL}\">tiny-1.0-py3-none-any.whl</a></body></html>");
    let files = vec![
        ("/simple/tiny/", "text/html", index.into_bytes()),
        (WHEEL, "application/octet-stream", wheel.clone()),
    ];
    let site = Site::start(files).await;
    // pip asks for a new index each time (Cache-Control: max-age=0).
    let answers = [expected([(WHEEL, 200), ("/simple/tiny/", 200)]), expected([("/simple/tiny/", 304)])];
    for (name, answers) in ["first", "second"].into_iter().zip(answers) {
        let target = folder.path().join(name);
        let url = format!("http://127.0.0.1:{}/simple/", site.proxy.port);
        let options =
            ["-m", "pip", "download", "-q", "--no-cache-dir", "--disable-pip-version-check", "--no-deps"];
        let target_option = target.to_str().unwrap();
        let others = ["--trusted-host", "127.0.0.1", "--index-url", &url, "--dest", target_option, "tiny"];
        let arguments = options.iter().chain(&others).map(|word| (*word).to_owned()).collect();
        site.run("python3", arguments).await.unwrap();
        assert!(std::fs::read(target.join("tiny-1.0-py3-none-any.whl")).unwrap() == wheel);
        assert_eq!(site.asked(), answers);
    }
}

/// A page that shows in its text whether its style, its script and its image have come.
fn page() -> Vec<File> {
    let page = "<!doctype html><link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/style.css\">
                <p id=\"text\">nothing</p><img id=\"image\" src=\"/image.svg\"><script src=\"/script.js\"></script>";
    let script = "addEventListener('load', () => {
        const text = document.getElementById('text');
        const width = document.getElementById('image').naturalWidth;
        text.textContent = `the color is ${getComputedStyle(text).color}, the width is ${width}`;
    });";
    let image = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"37\" height=\"5\"></svg>";
    vec![
        ("/", "text/html", page.into()),
        ("/style.css", "text/css", "p { color: rgb(1, 2, 3) }".into()),
        ("/script.js", "text/javascript", script.into()),
        ("/image.svg", "image/svg+xml", image.into()),
    ]
}

#[tokio::test]
async fn chromium_shows_a_page_from_the_cache() {
    let site = Site::start(page()).await;
    let all = |status| {
        expected([("/", status), ("/image.svg", status), ("/script.js", status), ("/style.css", status)])
    };
    // A stale response is confirmed by the origin, since each browser has an empty cache of its own.
    for (is_stale, answers) in [(false, all(200)), (false, vec![]), (true, all(304))] {
        if is_stale {
            let every = EntryFilter::new();
            assert_eq!(site.proxy.layer.handle().reset_expiry(&every, Ttl::Revalidate).await.unwrap(), 4);
        }
        let folder = tempfile::tempdir().unwrap();
        let profile = format!("--user-data-dir={}", folder.path().display());
        let url = format!("http://127.0.0.1:{}/", site.proxy.port);
        let options = [
            "--headless",
            "--no-sandbox", // root has none
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--no-proxy-server",
            "--virtual-time-budget=10000",
            "--dump-dom",
            &profile,
            &url,
        ];
        let arguments = options.iter().map(|word| (*word).to_owned()).collect();
        let Some(output) = site.run("chromium", arguments).await else { return };
        let document = text(output);
        assert!(document.contains("the color is rgb(1, 2, 3), the width is 37"), "{document}");
        assert_eq!(site.asked(), answers);
    }
}

#[test]
fn curl_gets_every_byte_from_an_origin_that_is_cut() {
    if run("curl", &["--version"]).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut origin = runtime.block_on(RawOrigin::start());
    let url = format!("http://127.0.0.1:{}", origin.port);
    let whole = large();
    let sent = whole.clone();
    let serving = runtime.spawn(async move {
        let mut ranges = Vec::new();
        while let Some(mut asked) = origin.try_next().await {
            let range = asked.head.get("range").map(str::to_owned);
            let start = range.as_deref().map_or(0, |range| range[6..range.len() - 1].parse().unwrap());
            let (rest, len) = (&sent[start..], sent.len());
            let status = match start {
                0 => "200 OK".to_owned(),
                _ => format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{len}", len - 1),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\nETag: \"t\"\r\n\r\n",
                rest.len()
            );
            asked.peer.send(head).await;
            asked.peer.send(&rest[..rest.len().min(1_200_000)]).await;
            assert_eq!(asked.head.get("if-range"), range.as_ref().map(|_| "\"t\""));
            let is_last = rest.len() <= 1_200_000;
            ranges.push(range);
            // Dropping the request closes its connection.
            if is_last {
                return ranges;
            }
        }
        panic!("the origin is asked for the rest");
    });
    let proxy = running(&["--listen", "127.0.0.1:0", "--origin", &url, "--resume", "3"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file").to_str().unwrap().to_owned();
    let url = format!("http://{}/file", proxy.address);
    // The second time from the storage: the origin has ended.
    for _ in 0..2 {
        run("curl", &["-sS", "--fail", "-o", &path, &url]);
        assert!(std::fs::read(&path).unwrap() == whole);
    }
    let ranges = runtime.block_on(serving).unwrap();
    assert_eq!(ranges, [None, Some("bytes=1200000-".to_owned()), Some("bytes=2400000-".to_owned())]);
}
