//! The standard output, buffered.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use console::{Style, Term};
use serde::Serialize;

/// Returns whether the environment permits colours on a terminal.
pub fn may_be_coloured() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    !is_dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Wraps a text in the escape sequences of a style.
pub fn styled(text: String, style: &Style, is_coloured: bool) -> String {
    if is_coloured { style.clone().force_styling(true).apply_to(text).to_string() } else { text }
}

pub struct Output {
    writer: BufWriter<Stdout>,
}

impl Output {
    pub fn new() -> Self {
        // Rust flushes the standard output after each line, even into a pipe. A pipe holds 64 KiB on Linux.
        Self { writer: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// Returns the width of the terminal, or `None` if the output is no terminal.
    pub fn columns(&self) -> Option<usize> {
        let terminal = Term::stdout();
        terminal.is_term().then(|| terminal.size_checked().map_or(80, |(_, columns)| usize::from(columns)))
    }

    /// Returns whether the terminal shows colours, and the user has not set `NO_COLOR` (no-color.org).
    pub fn is_coloured(&self) -> bool {
        Term::stdout().is_term() && may_be_coloured()
    }

    /// Writes a value as JSON, on lines of its own.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *self, value).map_err(io::Error::from)?;
        self.line("")
    }

    pub fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.writer, "{line}")
    }

    /// Writes bytes as they are, such as those of a body.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    pub fn flush(&mut self) -> Result<(), crate::exit::Failure> {
        Ok(self.writer.flush()?)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
