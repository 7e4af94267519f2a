//! The standard output: buffered, and a table's width if it is a terminal.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use console::Term;

pub struct Output {
    to: BufWriter<Stdout>,
}

impl Output {
    pub fn new() -> Self {
        Self { to: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// Columns of the terminal; `None`: it is none.
    pub fn columns(&self) -> Option<usize> {
        let terminal = Term::stdout();
        terminal.is_term().then(|| terminal.size_checked().map_or(80, |(_, columns)| usize::from(columns)))
    }

    pub fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.to, "{line}")
    }

    /// Pieces of a line, or of a body.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    pub fn flush(&mut self) -> Result<(), crate::end::Failure> {
        Ok(self.to.flush()?)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
