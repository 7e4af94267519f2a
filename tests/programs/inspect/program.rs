//! Builds and starts the program, and reads its output.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use crate::built::example;

pub fn program() -> Command {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| example("inspect"));
    let mut command = Command::new(&*PATH);
    command.stdin(Stdio::null());
    command
}

/// The output of the program and its exit code.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn rows(&self) -> Vec<Vec<&str>> {
        self.out.lines().map(|line| line.split('\t').collect()).collect()
    }

    /// Returns the last segments of the URLs, in alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> =
            self.rows().into_iter().map(|row| row[0].rsplit('/').next().unwrap()).collect();
        names.sort_unstable();
        names
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Asserts that the program ended with this code and one line of error.
    ///
    /// Returns that line.
    pub fn refused(&self, code: i32) -> &str {
        assert_eq!((self.code, self.err.lines().count()), (code, 1), "{self:?}");
        assert!(self.err.starts_with("inspect: "), "{self:?}");
        &self.err
    }

    pub fn done(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self
    }
}

pub fn inspect(store: &str, arguments: &[&str]) -> Ended {
    let output = program().arg(store).args(arguments).output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
