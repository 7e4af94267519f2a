//! The examples as programs: built as cargo builds them for the tests, started, and asked over a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The features that these tests were built with.
const FEATURES: [(&str, bool); 15] = [
    ("default", cfg!(feature = "default")),
    ("memory", cfg!(feature = "memory")),
    ("sqlite", cfg!(feature = "sqlite")),
    ("directory", cfg!(feature = "directory")),
    ("redis", cfg!(feature = "redis")),
    ("redis-tls", cfg!(feature = "redis-tls")),
    ("mongodb", cfg!(feature = "mongodb")),
    ("dynamodb", cfg!(feature = "dynamodb")),
    ("reqwest", cfg!(feature = "reqwest")),
    ("axum", cfg!(feature = "axum")),
    ("follow-redirect", cfg!(feature = "follow-redirect")),
    ("regex", cfg!(feature = "regex")),
    ("content-keys", cfg!(feature = "content-keys")),
    ("testing", cfg!(feature = "testing")),
    ("metrics", cfg!(feature = "metrics")),
];

/// Builds an example and returns its path.
///
/// `cargo test --test programs` builds no examples. With the features of the tests, cargo has nothing to do where the
/// examples were built with the tests; with others it would build every dependency once more. Where `EXAMPLES_ARE_BUILT`
/// is set, cargo is not asked, since it waits for every build that runs at the same time.
pub fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap().parent().unwrap();
    let program = folder.join("examples").join(name);
    if std::env::var_os("EXAMPLES_ARE_BUILT").is_some() {
        return program;
    }
    let features: Vec<&str> = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name, "--no-default-features", "--features"]);
    cargo.arg(features.join(",")).arg("--target-dir").arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    // Cargo describes this package to its tests. The build script of ring runs again where that description differs, and
    // all that depends on ring is built anew.
    for (variable, _) in std::env::vars_os() {
        let is_of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if variable.to_str().is_some_and(is_of_package) {
            cargo.env_remove(variable);
        }
    }
    assert!(cargo.status().unwrap().success(), "the example {name} was not built");
    program
}

/// A program that listens. Dropped, it is killed.
pub struct Running {
    pub child: Child,
    pub address: String,
}

impl Running {
    /// Starts a program, and reads the address that it prints.
    pub fn start(mut program: Command) -> Self {
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, address }
    }

    /// Fetches a path, and returns the whole response as text.
    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
