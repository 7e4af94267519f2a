//! Programs that people use, as clients of the proxy: curl, wget, aria2c and git.
//!
//! A test whose program is missing is skipped, and says so.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::program::{program, running};
use crate::examples::Running;

/// Runs a program, which must succeed. Returns `None` if it is missing.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(program);
    // A proxy or a configuration of the user's must not matter.
    for (name, _) in std::env::vars().filter(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy")) {
        command.env_remove(name);
    }
    command.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
    match command.args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            Some(output)
        }
        Err(_) => {
            println!("skipped: there is no {program}");
            None
        }
    }
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
        if Command::new("python3").arg("--version").output().is_err() {
            println!("skipped: there is no python3");
            return None;
        }
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
