//! How the program ends: its exit codes, and what it says on the standard error.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// 0
    Done,
    /// 1: nothing was found, or damage was.
    Found,
    /// 2: wrong usage, or refused.
    Refused,
    /// 3: the store, or the output, failed.
    Failed,
}

impl End {
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Found => 1,
            Self::Refused => 2,
            Self::Failed => 3,
        })
    }
}

/// Why a command did not come to its end.
pub enum Failure {
    Refused(String),
    Store(String),
    Output(io::Error),
}

impl Failure {
    /// What a store answered while somebody wanted this of it.
    pub fn store(wanted: &str, place: &str, error: &tower_response_cache::Error) -> Self {
        Self::Store(format!("cannot {wanted} the store {place}: {}", causes(error)))
    }

    /// Says it in one line. Nobody reads any more: that is no failure.
    pub fn told(self) -> End {
        let (line, end) = match self {
            Self::Refused(line) => (line, End::Refused),
            Self::Store(line) => (line, End::Failed),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return End::Done,
            Self::Output(error) => (format!("cannot write the output: {error}"), End::Failed),
        };
        say(&line);
        end
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// One line on the standard error, which may be closed.
pub fn say(line: &str) {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr(), "inspect: {}", crate::text::plain(&line));
}

/// An error with everything that caused it.
fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(&format!(": {text}"));
        }
        source = cause.source();
    }
    line
}
