//! The table of allocations, which another program of this crate counts.

use std::process::Command;

use peers::SIZES;
use peers::report::{Table, bytes};

/// Runs the program `allocations`, which counts with an allocator of its own. That would distort the times here.
pub fn tables() -> Vec<Table> {
    let program = std::env::current_exe().unwrap().with_file_name("allocations");
    let output = match Command::new(&program).output() {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        Ok(output) => panic!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{} does not start, is it built? {error}", program.display()),
    };
    let columns: Vec<String> = ["hit", "miss"]
        .into_iter()
        .flat_map(|kind| SIZES.map(|(_, size)| format!("{kind}, {size}")))
        .collect();
    let mut table = Table::new(
        "Allocations and allocated bytes in memory",
        "With those of the request and of reading the body, on the requesting thread.",
        columns,
    );
    for line in output.lines() {
        let mut words = line.split('\t');
        let (Some(name), Some(count), Some(len)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let cell = match len.parse() {
            Ok(len) => format!("{count}, {}", bytes(len)),
            Err(_) => "–".to_owned(),
        };
        table.push(name, cell);
    }
    vec![table]
}
