//! The confirmation prompt and the table on a terminal.
//!
//! The program `script` of util-linux provides the terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use super::program::{inspect, program};
use super::world::World;
use crate::servers::{find, must_be_there};

/// Starts the program on a terminal, and types an answer.
///
/// Returns the exit code and the output, or `None` if `script` is missing.
fn typed(store: &str, arguments: &str, answer: &str) -> Option<(i32, String)> {
    let script = match find("script") {
        Ok(script) => script,
        Err(why) if must_be_there() => panic!("{why}"),
        Err(_) => return None,
    };
    let command = format!("stty cols 80; exec '{}' '{store}' {arguments}", program().get_program().display());
    let mut child = Command::new(script)
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Some((output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap()))
}

#[tokio::test]
async fn only_yes_confirms_removal() {
    let world = World::new().await;
    for answer in ["n\n", "\n", "what\n"] {
        let Some((code, seen)) = typed(&world.store, "purge", answer) else { return };
        assert!(code == 2 && seen.contains("[y/N]") && seen.contains("nothing was deleted"), "{seen}");
    }
    assert_eq!(inspect(&world.store, &["list"]).done().rows().len(), 6);
    let (code, seen) = typed(&world.store, "delete --stale", "y\n").unwrap();
    assert!(code == 0 && seen.contains("deleted 1 "), "{seen}");
    assert_eq!(inspect(&world.store, &["list"]).done().rows().len(), 5);
}

#[tokio::test]
async fn terminal_gets_table_in_its_width() {
    let world = World::new().await;
    let Some((code, seen)) = typed(&world.store, "list", "") else { return };
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("URL ") && seen.contains("6 responses, 2.0 MiB of bodies"), "{seen}");
    assert!(seen.lines().all(|line| line.trim_end().chars().count() <= 80), "{seen}");
}
