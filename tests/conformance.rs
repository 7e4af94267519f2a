//! The page on RFC 9111: no cell of its tables is empty, and every function and test that it names is there.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// All sources below a folder, joined.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(path).unwrap();
        }
    }
    all
}

fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether `policy::store::storable` is a function in the file or folder that its path names.
fn is_function(path: &str) -> bool {
    let mut parts: Vec<_> = path.split("::").collect();
    let name = parts.pop().unwrap();
    // A type in between is a part of the file.
    let types: Vec<_> = parts.iter().filter(|part| part.starts_with(char::is_uppercase)).copied().collect();
    parts.retain(|part| !part.starts_with(char::is_uppercase));
    let file = format!("src/{}.rs", parts.join("/"));
    let Ok(text) = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)) else { return false };
    let has = |start: &str| text.contains(&format!("{start}(")) || text.contains(&format!("{start}<"));
    has(&format!("fn {name}")) && types.iter().all(|of| text.contains(of))
}

#[test]
fn every_sentence_has_a_keeper_and_a_test_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/conformance.md")).unwrap();
    let tests = sources(&root.join("tests")) + &sources(&root.join("src"));
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| §")) {
        rows += 1;
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells.len() != 4 || cells.iter().any(|cell| cell.is_empty()) {
            wrong.push(format!("not four full cells: {line}"));
            continue;
        }
        let (keepers, noticed) = (names(cells[2]), names(cells[3]));
        if keepers.is_empty() || noticed.is_empty() {
            wrong.push(format!("nobody keeps or notices it: {line}"));
        }
        wrong.extend(
            keepers.iter().filter(|path| !is_function(path)).map(|path| format!("no function {path}")),
        );
        let is_test =
            |name: &str| tests.contains(&format!("fn {name}()")) || tests.contains(&format!("\"{name}\""));
        wrong.extend(noticed.iter().filter(|name| !is_test(name)).map(|name| format!("no test {name}")));
    }
    assert!(rows > 60, "the page is not read as it is written: {rows} rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
