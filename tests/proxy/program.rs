//! The program as it is started from a command line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

fn program() -> Command {
    static PATH: LazyLock<PathBuf> = LazyLock::new(built);
    Command::new(&*PATH)
}

/// Examples are built beside the folder of the tests, but `cargo test --test proxy` builds none.
fn built() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap().parent().unwrap();
    let program = folder.join("examples/reverse_proxy");
    let modified = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    // The tests are built anew whenever any of the sources that they share with it changes.
    if modified(&program) < modified(&tests) {
        let release = folder.ends_with("release").then_some("--release");
        let arguments = ["build", "--quiet", "--example", "reverse_proxy", "--features", "sqlite"];
        let cargo = Command::new(env!("CARGO")).args(arguments).args(release).status().unwrap();
        assert!(cargo.success(), "the program was not built");
    }
    program
}

fn ended(arguments: &[&str]) -> (i32, Output) {
    let output = program().args(arguments).output().unwrap();
    (output.status.code().unwrap(), output)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// The program, and the address that it says it listens on.
fn running(arguments: &[&str]) -> (Running, String) {
    let mut child = program().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on http://").unwrap().to_owned();
    (Running(child), address)
}

fn fetch(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn help_and_mistakes_are_told_apart() {
    let (code, output) = ended(&["--help"]);
    assert!(code == 0 && output.stdout.starts_with(b"usage: ") && output.stderr.is_empty());
    let mistakes: [&[&str]; 7] = [
        &[],
        &["--what"],
        &["--origin"],
        &["--origin", "nothing"],
        &["--origin", "http://a/path"],
        &["--origin", "http://a", "--threads", "0"],
        &["--origin", "http://a", "--timeout", "-1"],
    ];
    for arguments in mistakes {
        let (code, output) = ended(arguments);
        let lines = output.stderr.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!((code, lines, output.stdout.len()), (2, 1, 0), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_used_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_other, taken) = running(&["--listen", "127.0.0.1:0", "--bare", "1"]);
    let no_store = folder.path().join("file/store.sqlite");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let failures: [&[&str]; 2] = [
        &["--origin", "http://a", "--listen", &taken],
        &["--origin", "http://a", "--listen", "127.0.0.1:0", "--storage", no_store.to_str().unwrap()],
    ];
    for arguments in failures {
        let (code, output) = ended(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((code, text.lines().count(), output.stdout.len()), (1, 1, 0), "{text}");
    }
}

#[test]
fn a_store_in_a_file_outlives_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.sqlite");
    let (origin, origin_address) = running(&["--listen", "127.0.0.1:0", "--bare", "5"]);
    let url = format!("http://{origin_address}");
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
        let (mut proxy, address) = running(&arguments);
        let response = fetch(&address);
        assert!(response.contains(word) && response.ends_with("\r\n\r\nxxxxx"), "{response}");
        let id = proxy.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(proxy.0.wait().unwrap().success());
    }
    drop(origin);
}
