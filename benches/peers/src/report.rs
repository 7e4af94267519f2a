//! The tables, for a terminal and for the documentation.

use std::fmt::Write;

/// A table whose first column names what was measured.
pub struct Table {
    pub title: String,
    pub note: String,
    pub columns: Vec<String>,
    pub rows: Vec<(String, Vec<String>)>,
}

impl Table {
    pub fn new(title: &str, note: &str, columns: Vec<String>) -> Self {
        Self { title: title.to_owned(), note: note.to_owned(), columns, rows: Vec::new() }
    }

    /// Adds the cell of a column, in which the rows come in the same order every time.
    pub fn push(&mut self, row: &str, cell: String) {
        match self.rows.iter_mut().find(|(name, _)| name == row) {
            Some((_, cells)) => cells.push(cell),
            None => self.rows.push((row.to_owned(), vec![cell])),
        }
    }

    /// Adds a column of times, each with its ratio to the first.
    pub fn push_times(&mut self, names: &[&str], seconds: &[f64]) {
        for (name, time) in names.iter().zip(seconds) {
            self.push(name, format!("{} ({})", duration(*time), three_digits(time / seconds[0])));
        }
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        let first = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column));
                let all = cells.chain(self.columns.get(column)).map(|cell| cell.chars().count());
                all.max().unwrap_or(0)
            })
            .collect();
        let mut line = |name: &str, cells: &[String]| {
            let _ = write!(text, "{name:first$}");
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(text, "  {cell:>width$}");
            }
            text.push('\n');
        };
        line("", &self.columns);
        for (name, cells) in &self.rows {
            line(name, cells);
        }
        text
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("**{}.** {}\n\n| |", self.title, self.note);
        for column in &self.columns {
            let _ = write!(text, " {column} |");
        }
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(self.columns.len()));
        for (name, cells) in &self.rows {
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text
    }
}

/// Returns a time with three digits.
pub fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.999_5e-6 => (s * 1e9, "ns"),
        s if s < 0.999_5e-3 => (s * 1e6, "µs"),
        s => (s * 1e3, "ms"),
    };
    format!("{} {unit}", three_digits(value))
}

/// Returns a number of bytes with three digits.
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 999.5 => format!("{b} B"),
        b if b < 999.5e3 => format!("{} kB", three_digits(b / 1e3)),
        b if b < 999.5e6 => format!("{} MB", three_digits(b / 1e6)),
        b => format!("{} GB", three_digits(b / 1e9)),
    }
}

fn three_digits(value: f64) -> String {
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}")
}

/// Returns lines that say on what machine, and with which versions, the figures were measured.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The numbers alone. The rest of a release may name a machine's owner.
    let kernel =
        kernel.split(|letter: char| letter != '.' && !letter.is_ascii_digit()).next().unwrap_or_default();
    let mut text = format!("{cores} cores of {model}, {} {kernel}", std::env::consts::OS);
    for (program, argument) in [("rustc", "--version"), ("redis-server", "--version")] {
        let output = std::process::Command::new(program).arg(argument).output();
        let output =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let version = output.split([' ', '=']).find(|word| word.contains('.') && !word.contains('/'));
        let _ = write!(text, ", {program} {}", version.unwrap_or("not found").trim());
    }
    text
}

/// Returns the versions of the crates that are compared.
pub fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let names = [
        "http-cache-tower",
        "tower-http-cache",
        "moka",
        "redb",
        "quick_cache",
        "rusqlite",
        "tokio-rusqlite",
        "redis",
        "hyper",
        "tokio",
    ];
    let version = |name: &&str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", rest.split('"').next()?))
    };
    names.iter().filter_map(version).collect::<Vec<_>>().join(", ")
}
