//! The confirmation prompt, tables, colours, help and progress on a terminal.
//!
//! The program `script` of util-linux provides the terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use super::program::{inspect, program};
use super::world::World;
use crate::built::example;
use crate::servers::{find, must_be_there};

/// Starts the program on a terminal, and types an answer.
///
/// Returns the exit code and the output, or `None` if `script` is missing.
fn typed(store: &str, arguments: &str, answer: &str) -> Option<(i32, String)> {
    on_terminal(&format!("'{}' '{store}' {arguments}", program().get_program().display()), 80, answer)
}

fn on_terminal(command: &str, columns: u32, answer: &str) -> Option<(i32, String)> {
    let script = match find("script") {
        Ok(script) => script,
        Err(why) if must_be_there() => panic!("{why}"),
        Err(_) => return None,
    };
    let command = format!("stty rows 24 cols {columns}; exec {command}");
    let mut child = Command::new(script)
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
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
    assert!(seen.contains("URL ") && seen.contains("6 responses (1 stale), 2.0 MiB of bodies"), "{seen}");
    assert!(seen.lines().all(|line| console::measure_text_width(line.trim_end()) <= 80), "{seen}");
}

#[tokio::test]
async fn colours_respect_no_color_and_pipes() {
    let world = World::new().await;
    let command = format!("'{}' '{}' list", program().get_program().display(), world.store);
    let Some((_, seen)) = on_terminal(&command, 80, "") else { return };
    assert!(seen.contains("\u{1b}[33m") && seen.contains("\u{1b}[31m"), "stale and status: {seen}");
    for without in [
        format!("env NO_COLOR=1 {command}"),
        format!("env TERM=dumb {command}"),
        format!("sh -c \"{command} | cat\""),
    ] {
        let (_, seen) = on_terminal(&without, 80, "").unwrap();
        assert!(seen.contains("a.json") && !seen.contains("\u{1b}["), "{without}: {seen}");
    }
}

#[tokio::test]
async fn help_is_wrapped_to_terminal() {
    let program = program().get_program().display().to_string();
    let Some((code, seen)) = on_terminal(&format!("'{program}' --help"), 60, "") else { return };
    assert!(code == 0 && seen.contains("Exit codes"), "{seen}");
    let widest = seen.lines().map(|line| console::measure_text_width(line.trim_end())).max();
    assert!(widest <= Some(60), "{widest:?}: {seen}");
}

#[tokio::test]
async fn progress_shows_total_and_time_left() {
    let world = World::new().await;
    let Some((code, seen)) = typed(&world.store, "verify", "") else { return };
    assert!(code == 0 && seen.contains("no damage"), "{seen}");
    assert!(seen.contains(" of 6, ") && seen.contains("/s, ") && seen.contains("s left"), "{seen}");
    let (_, seen) = typed(&world.store, "verify 2>/dev/null", "").unwrap();
    assert!(!seen.contains(" of 6, "), "{seen}");
}

#[tokio::test]
async fn quickstart_fits_eighty_columns() {
    let program = example("quickstart");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.sqlite");
    let command = format!("'{}' --storage '{}'", program.display(), path.display());
    let piped =
        Command::new(&program).arg("--storage").arg("q.sqlite").current_dir(folder.path()).output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert_eq!(piped.matches("  miss  ").count(), 5 + 1, "each URL, and the total: {piped}");
    for (seen, columns) in [(Some(piped), 80), (on_terminal(&command, 64, "").map(|(_, seen)| seen), 64)] {
        let Some(seen) = seen else { return };
        let table = seen.lines().skip_while(|line| !line.starts_with("URL ")).collect::<Vec<_>>();
        assert!(table.len() > 15, "{seen}");
        assert!(table.iter().all(|line| console::measure_text_width(line.trim_end()) <= columns), "{seen}");
    }
}
