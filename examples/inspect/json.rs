//! A JSON array that is written element by element, so that memory does not grow with it.

use std::io;

use serde::Serialize;

use crate::output::Output;

pub struct Array {
    is_empty: bool,
}

impl Array {
    pub fn begin(output: &mut Output) -> io::Result<Self> {
        output.bytes(b"[")?;
        Ok(Self { is_empty: true })
    }

    pub fn push(&mut self, element: &impl Serialize, output: &mut Output) -> io::Result<()> {
        output.bytes(if self.is_empty { b"\n" } else { b",\n" })?;
        self.is_empty = false;
        serde_json::to_writer(output, element).map_err(io::Error::from)
    }

    pub fn end(self, output: &mut Output) -> io::Result<()> {
        output.bytes(if self.is_empty { b"]\n" } else { b"\n]\n" })
    }
}
