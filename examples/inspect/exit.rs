//! How the program exits: its codes, and its messages on the standard error.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use console::Style;

use crate::output::{may_be_coloured, styled};

/// The exit codes, which `--help` lists for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Done,
    /// 1: nothing matched, damage was found, or a response was not copied.
    Negative,
    /// 2: wrong usage, or not confirmed.
    Refused,
    /// 3: the storage or the output failed.
    Failed,
}

impl Exit {
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Negative => 1,
            Self::Refused => 2,
            Self::Failed => 3,
        })
    }
}

/// Why a command did not finish.
pub enum Failure {
    Refused(String),
    Storage(String),
    Output(io::Error),
}

impl Failure {
    /// Describes an error of the storage at this address, which has to be redacted.
    pub fn storage(action: &str, address: &str, error: &tower_response_cache::Error) -> Self {
        Self::Storage(format!("cannot {action} the storage {address}: {}", causes(error)))
    }

    /// Prints one line about the failure, and returns the exit code.
    pub fn report(self) -> Exit {
        let (line, exit) = match self {
            Self::Refused(line) => (line, Exit::Refused),
            Self::Storage(line) => (line, Exit::Failed),
            // A reader such as `head` has what it wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Done,
            Self::Output(error) => (format!("cannot write the output: {error}"), Exit::Failed),
        };
        print_error(&line);
        exit
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Prints one line on the standard error.
pub fn print_error(line: &str) {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    // The exit code still tells about the failure if the standard error is closed.
    let is_coloured = console::Term::stderr().is_term() && may_be_coloured();
    let name = styled("inspect:".to_owned(), &Style::new().red().bold(), is_coloured);
    let _ = writeln!(io::stderr(), "{name} {}", crate::text::escaped(&line));
}

/// Returns an error and all its sources as one line.
fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some drivers end their own message with that of its source.
        if !line.ends_with(&text) {
            line.push_str(&format!(": {text}"));
        }
        source = cause.source();
    }
    line
}
