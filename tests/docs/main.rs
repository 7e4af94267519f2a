//! Checks that everything the documentation names exists.
//!
//! These are files, links, anchors, examples, benches and features. They are also the functions and tests in the tables
//! on conformance and on the settings of other libraries.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|of| of == extension) {
            found.push(path);
        }
    }
}

/// A page, or the documentation in a source file.
struct Page {
    path: PathBuf,
    /// The text outside of code fences, in one line.
    prose: String,
    fenced: Vec<String>,
    headings: Vec<String>,
}

impl Page {
    fn new(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        let lines = text.lines().filter_map(|line| {
            if !is_source {
                return Some(line);
            }
            let line = line.trim_start();
            let said = line.strip_prefix("//!").or_else(|| line.strip_prefix("///"))?;
            Some(said.strip_prefix(' ').unwrap_or(said))
        });
        let mut page = Self { path, prose: String::new(), fenced: Vec::new(), headings: Vec::new() };
        let mut in_fence = false;
        for line in lines {
            if line.starts_with("```") {
                in_fence = !in_fence;
            } else if in_fence {
                page.fenced.push(line.to_owned());
            } else {
                if let Some(heading) = line.strip_prefix('#') {
                    page.headings.push(anchor(heading.trim_start_matches('#').trim()));
                }
                page.prose.push_str(line);
                page.prose.push(' ');
            }
        }
        page
    }

    /// Returns the targets of its links.
    fn links(&self) -> impl Iterator<Item = &str> {
        self.prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
    }

    /// Returns the texts between backticks.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.prose.split('`').skip(1).step_by(2)
    }

    /// Returns the commands of cargo in prose and in code fences.
    fn commands(&self) -> Vec<Vec<&str>> {
        let all = self.code().chain(self.fenced.iter().map(String::as_str));
        let commands = all.filter(|code| code.starts_with("cargo run ") || code.starts_with("cargo bench "));
        commands
            .map(|command| command.split_whitespace().take_while(|word| *word != "--").collect())
            .collect()
    }

    fn shown(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }
}

/// Returns the anchor of a heading, as rustdoc makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Returns the pages that a user reads, and the documentation in the source.
fn pages() -> Vec<Page> {
    let mut found = Vec::new();
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        found.extend(Some(root().join(name)).filter(|path| path.exists()));
    }
    files(&root().join("src"), "md", &mut found);
    files(&root().join("src"), "rs", &mut found);
    found.into_iter().map(Page::new).collect()
}

/// The text of Cargo.toml.
struct Manifest(String);

impl Manifest {
    fn read() -> Self {
        Self(fs::read_to_string(root().join("Cargo.toml")).unwrap())
    }

    fn has_feature(&self, name: &str) -> bool {
        let (_, section) = self.0.split_once("\n[features]\n").unwrap();
        let section = section.split("\n[").next().unwrap();
        section.lines().any(|line| line.split_once(" = ").is_some_and(|(feature, _)| feature == name))
    }

    /// Returns the features that a target of this kind requires.
    fn needs(&self, kind: &str, name: &str) -> Vec<&str> {
        let mut blocks =
            self.0.split("\n[[").filter_map(|block| block.strip_prefix(kind)?.strip_prefix("]]\n"));
        let block = blocks.find(|block| block.lines().any(|line| line == format!("name = \"{name}\"")));
        let mut lines = block.into_iter().flat_map(str::lines);
        let needed = lines.find_map(|line| line.strip_prefix("required-features = "));
        needed.into_iter().flat_map(|list| list.split('"').skip(1).step_by(2)).collect()
    }
}

fn is_target(folder: &str, name: &str) -> bool {
    let folder = root().join(folder);
    folder.join(format!("{name}.rs")).exists() || folder.join(name).join("main.rs").exists()
}

#[test]
fn linked_and_named_files_exist() {
    for page in pages() {
        for link in page.links() {
            let path = link.split('#').next().unwrap();
            let is_path = !link.contains("://") && !path.contains("::") && path.contains(['.', '/']);
            if is_path {
                let there = page.path.parent().unwrap().join(path);
                assert!(there.exists(), "{}: there is no {path}", page.shown());
            }
        }
        for code in page.code() {
            let named = code.split_whitespace().next().unwrap_or_default();
            let is_path =
                ["src/", "examples/", "tests/", "benches/"].iter().any(|top| named.starts_with(top));
            // In the documentation, tests/recorded is a storage of the user.
            if is_path && !named.starts_with("tests/recorded") {
                assert!(root().join(named).exists(), "{}: there is no {named}", page.shown());
            }
        }
    }
}

#[test]
fn linked_headings_exist() {
    let all = pages();
    for page in &all {
        for link in page.links() {
            let Some((target, heading)) = link.split_once('#') else { continue };
            let module = target.trim_start_matches("crate").trim_start_matches("::").replace("::", "/");
            // A documentation page is a Markdown file, or a source file where it has pictures.
            let candidates = match (target, &module[..]) {
                ("", _) => vec![page.path.clone()],
                (_, "") => vec![root().join("src/lib.rs")],
                (_, module) => ["md", "rs"].map(|end| root().join(format!("src/{module}.{end}"))).to_vec(),
            };
            // rustdoc checks the links to other items.
            let Some(page_there) = all.iter().find(|other| candidates.contains(&other.path)) else {
                continue;
            };
            assert!(page_there.headings.iter().any(|there| there == heading), "{}: no {link}", page.shown());
        }
    }
}

#[test]
fn commands_name_existing_examples_and_sufficient_features() {
    let manifest = Manifest::read();
    let mut all = pages();
    for folder in ["examples", "benches"] {
        let mut found = Vec::new();
        files(&root().join(folder), "rs", &mut found);
        all.extend(found.into_iter().map(Page::new));
    }
    for page in &all {
        for command in page.commands() {
            let after = |word: &str| {
                let at = command.iter().position(|there| *there == word)?;
                command.get(at + 1).copied()
            };
            let shown = format!("{}: {}", page.shown(), command.join(" "));
            let (kind, folder) =
                if command[1] == "run" { ("example", "examples") } else { ("bench", "benches") };
            let name = after(&format!("--{kind}")).unwrap_or_else(|| panic!("{shown} names no {kind}"));
            assert!(is_target(folder, name), "{shown}: there is no such {kind}");
            let given: Vec<&str> = after("--features").into_iter().flat_map(|list| list.split(',')).collect();
            for feature in &given {
                assert!(manifest.has_feature(feature), "{shown}: there is no feature {feature}");
            }
            for feature in manifest.needs(kind, name) {
                let has =
                    feature == "memory" || given.contains(&feature) || command.contains(&"--all-features");
                assert!(has, "{shown}: needs the feature {feature}");
            }
        }
    }
}

/// Returns the sources below a folder, joined.
fn sources(folder: &str) -> String {
    let mut found = Vec::new();
    files(&root().join(folder), "rs", &mut found);
    found.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Returns the cells of a page's tables, row by row.
///
/// The header and the line below it are left out.
fn rows(page: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |at: usize| lines[at].starts_with("| ") && lines[at - 1].starts_with('|');
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    (1..lines.len()).filter(|at| is_row(*at)).map(|at| cells(lines[at])).collect()
}

fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Returns whether a path such as `policy::store::storable` names a function in its file.
fn is_function(path: &str) -> bool {
    let mut parts: Vec<_> = path.split("::").collect();
    let name = parts.pop().unwrap();
    // A type in the path is in the file, but not part of the file's path.
    let types: Vec<_> = parts.iter().filter(|part| part.starts_with(char::is_uppercase)).copied().collect();
    parts.retain(|part| !part.starts_with(char::is_uppercase));
    let file = root().join(format!("src/{}.rs", parts.join("/")));
    let Ok(text) = fs::read_to_string(file) else { return false };
    let has = |start: &str| text.contains(&format!("{start}(")) || text.contains(&format!("{start}<"));
    has(&format!("fn {name}")) && types.iter().all(|of| text.contains(of))
}

#[test]
fn functions_named_for_conformance_exist() {
    for row in rows("src/_documentation/conformance.md") {
        for path in names(&row[2]) {
            assert!(is_function(path), "there is no function {path}: {}", row[1]);
        }
    }
}

#[test]
fn tests_named_in_tables_exist() {
    let all = sources("tests") + &sources("src");
    let is_test = |name: &str| {
        ["(", "<"].iter().any(|end| all.contains(&format!("fn {name}{end}")))
            || all.contains(&format!("\"{name}\""))
    };
    for row in rows("src/_documentation/conformance.md") {
        for name in names(&row[3]) {
            assert!(is_test(name), "there is no test {name}: {}", row[1]);
        }
    }
    for row in rows("src/_documentation/counterparts.md") {
        // Where there is no test, the cell gives a reason in words.
        if let Some(name) = row[2].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) {
            assert!(is_test(name), "there is no test {name}: {}", row[0]);
        }
    }
}
