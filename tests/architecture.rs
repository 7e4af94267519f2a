//! Who may call whom: the floors of the house, read from its own `use crate::` lines.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module's floor; a module imports from lower floors only, or from those of its own floor that come before it.
const FLOORS: [(&str, u32); 22] = [
    ("error", 0),
    ("hex", 0),
    ("time", 0),
    ("storage", 10),
    ("policy", 20),
    ("key", 30),
    ("control", 31),
    ("rules", 32),
    ("observe", 33),
    ("entry", 40),
    ("body", 41),
    ("testing", 45),
    ("service", 50),
    ("conformance", 0),  // a page of documentation
    ("counterparts", 0), // another
    ("migrating", 0),    // pages of documentation
    ("attacks", 0),      // another
    ("questions", 0),    // another
    ("layer", 60),
    ("builder", 60), // the layer and its builder make each other
    ("reqwest", 62),
    ("handle", 63),
];

/// What stands on a lower floor and is none of one's business all the same.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("policy", &["storage"]),
    ("storage", &["policy"]),
    ("testing", &["policy", "key", "control", "entry", "body"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap();
            let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (module, path, text)
        })
        .collect()
}

/// The modules that a file names after `crate::`, in whatever line; docs aside.
fn named(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.split("crate::").skip(1).map(|rest| {
            rest.chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                .collect::<String>()
        })
    })
    .collect()
}

#[test]
fn modules_import_from_lower_floors_only() {
    let floor = |module: &str| FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor);
    // Names that lib.rs re-exports are written by their modules inside the crate.
    for (module, path, text) in all() {
        if module == "lib" {
            continue;
        }
        let own = floor(&module).unwrap_or_else(|| panic!("{module} has no floor"));
        for other in named(&text).iter().filter(|other| **other != module) {
            let Some(theirs) = floor(other) else { continue };
            assert!(theirs <= own, "{} imports from {other}, which is above it", path.display());
            let forbidden =
                FORBIDDEN.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, list)| *list);
            assert!(!forbidden.contains(&other.as_str()), "{} imports from {other}", path.display());
        }
    }
}

#[test]
fn policy_does_no_io_and_knows_no_time_of_its_own() {
    for (module, path, text) in all() {
        if module == "policy" && !path.to_string_lossy().contains("tests") {
            for word in ["async ", "tokio", "SystemTime::now", "Clock", "Extensions", ".unwrap()", ".expect("]
            {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

#[test]
fn backends_do_not_import_each_other() {
    let backends = ["memory", "sqlite", "directory", "redis", "mongodb", "dynamodb", "boxed"];
    for (_, path, text) in all() {
        let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")).collect();
        let Some(own) = backends.iter().find(|backend| parts.contains(backend)) else { continue };
        if !parts.contains(&"storage") {
            continue;
        }
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for other in backends.iter().filter(|other| *other != own) {
            assert!(!code.contains(&format!("storage::{other}")), "{} imports from {other}", path.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let mut lengths: Vec<usize> = Vec::new();
    for (_, path, text) in all() {
        let length = text.lines().count();
        assert!(length <= 600, "{} has {length} lines", path.display());
        lengths.push(length);
    }
    lengths.sort_unstable();
    assert!(lengths[lengths.len() / 2] <= 220, "the median file is too long");
}
