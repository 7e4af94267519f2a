//! The program: built, started, and what it said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

pub fn program() -> Command {
    static PATH: LazyLock<PathBuf> = LazyLock::new(built);
    let mut command = Command::new(&*PATH);
    command.stdin(Stdio::null());
    command
}

/// Examples are built beside the folder of the tests, but `cargo test --test inspect` builds none.
fn built() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap().parent().unwrap();
    let program = folder.join("examples/inspect");
    let modified = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/inspect"));
    let newest = std::fs::read_dir(sources).unwrap().filter_map(|file| modified(&file.unwrap().path())).max();
    // The tests are built anew whenever the library changes.
    if modified(&program) < modified(&tests).max(newest) {
        let release = folder.ends_with("release").then_some("--release");
        let features = match (cfg!(feature = "redis"), cfg!(feature = "directory")) {
            (true, true) => "sqlite,redis,directory",
            (true, false) => "sqlite,redis",
            (false, true) => "sqlite,directory",
            (false, false) => "sqlite",
        };
        let arguments = ["build", "--quiet", "--example", "inspect", "--features", features];
        let cargo = Command::new(env!("CARGO")).args(arguments).args(release).status().unwrap();
        assert!(cargo.success(), "the program was not built");
    }
    program
}

/// What the program said, and how it ended.
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

    /// The URLs' last segments, in alphabetical order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> =
            self.rows().into_iter().map(|row| row[0].rsplit('/').next().unwrap()).collect();
        names.sort_unstable();
        names
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Ended so, with one line about why.
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
