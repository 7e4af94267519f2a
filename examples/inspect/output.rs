//! The standard output, buffered.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use console::Term;

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
