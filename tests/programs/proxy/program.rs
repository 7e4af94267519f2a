//! The example `reverse_proxy`, started from a command line.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::built::example;
use crate::examples::Running;

pub fn program() -> Command {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| example("reverse_proxy"));
    Command::new(&*PATH)
}

fn ended(arguments: &[&str]) -> (i32, Output) {
    let output = program().args(arguments).output().unwrap();
    (output.status.code().unwrap(), output)
}

pub fn running(arguments: &[&str]) -> Running {
    let mut program = program();
    program.args(arguments);
    Running::start(program)
}

#[test]
fn help_succeeds_and_wrong_usage_fails() {
    let (code, output) = ended(&["--help"]);
    assert!(code == 0 && output.stdout.starts_with(b"usage: ") && output.stderr.is_empty());
    let mistakes: [&[&str]; 21] = [
        &[],
        &["--what"],
        &["--origin"],
        &["--origin", "nothing"],
        &["--origin", "http://a/path"],
        &["--origin", "http://a", "--threads", "0"],
        &["--origin", "http://a", "--timeout", "-1"],
        &["--origin", "http://a", "--max-connections", "0"],
        &["--origin", "http://a", "--min-rate", "fast"],
        &["--origin", "http://a", "--access-log", "xml"],
        &["--origin", "http://a", "--access-log-file", "file"],
        &["--origin", "http://a", "--tls-cert", "file"],
        &["--origin", "http://a", "--fetch-whole=yes"],
        &["--origin", "http://a", "--resume", "often"],
        &["--origin", "http://a", "--origin-http2=yes"],
        &["--origin", "http://a", "--origin-http1", "--origin-http2"],
        &["--origin", "https://a", "--origin-http2"],
        &["--origin", "http://a", "--origin-ca", "file"],
        &["--origin", "https://a", "--origin-ca"],
        &["--origin", "http://a", "--admin-token", "file"],
        &["--bare", "1", "--admin", "127.0.0.1:0"],
    ];
    for arguments in mistakes {
        let (code, output) = ended(arguments);
        let lines = output.stderr.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!((code, lines, output.stdout.len()), (2, 1, 0), "{arguments:?}");
    }
}

#[test]
fn startup_failures_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let other = running(&["--listen", "127.0.0.1:0", "--bare", "1"]);
    let no_store = folder.path().join("file/store.sqlite");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let (empty, missing) = (folder.path().join("file"), folder.path().join("missing"));
    let (empty, missing) = (empty.to_str().unwrap(), missing.to_str().unwrap());
    let failures: [&[&str]; 4] = [
        &["--origin", "http://a", "--listen", &other.address],
        &["--origin", "http://a", "--listen", "127.0.0.1:0", "--storage", no_store.to_str().unwrap()],
        &["--origin", "https://a", "--listen", "127.0.0.1:0", "--origin-ca", empty],
        &["--origin", "https://a", "--listen", "127.0.0.1:0", "--origin-ca", missing],
    ];
    for arguments in failures {
        let (code, output) = ended(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((code, text.lines().count(), output.stdout.len()), (1, 1, 0), "{text}");
    }
}

#[test]
fn storage_file_outlives_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let origin = running(&["--listen", "127.0.0.1:0", "--bare", "5"]);
    let url = format!("http://{}", origin.address);
    for (threads, word) in [("1", "fwd=uri-miss"), ("2", "; hit")] {
        let arguments = [
            "--listen",
            "127.0.0.1:0",
            "--origin",
            &url,
            "--threads",
            threads,
            "--storage",
            store.to_str().unwrap(),
        ];
        let mut proxy = running(&arguments);
        let response = proxy.get("/");
        assert!(response.contains(word) && response.ends_with("\r\n\r\nxxxxx"), "{response}");
        let id = proxy.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(proxy.child.wait().unwrap().success());
        // The storage was closed: everything is in the file, and nothing in its log.
        assert!(store.exists() && !folder.path().join("store.sqlite-wal").exists());
    }
    drop(origin);
}
