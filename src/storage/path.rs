//! Paths with a leading `~`, and missing folders, for the storages in files.
//!
//! # Invariants
//! - Everything that is created is private to the user: on Unix, folders have the mode 0700.

use std::path::{Path, PathBuf};

use super::address::config;
use crate::error::Result;

/// Replaces a leading `~` of a path by `home`.
///
/// `what` is what error messages call the path. They do not repeat the path.
pub(super) fn expand_home(path: &Path, home: Option<PathBuf>, what: &str) -> Result<PathBuf> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err(config(format!("{what} is empty: give a path")));
    }
    if bytes.contains(&0) {
        return Err(config(format!("{what} contains a NUL character, which no path can")));
    }
    if !bytes.starts_with(b"~") {
        return Ok(path.to_owned());
    }
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => Ok(home),
        (Ok(rest), Some(home)) => Ok(home.join(rest)),
        (Ok(_), None) => Err(config(format!(
            "{what} begins with ~, but the home directory is not known: write the whole path"
        ))),
        (Err(_), _) => Err(config(format!(
            "{what} begins with ~ and a name: only ~/ is supported; for a file whose name begins with ~ write ./~"
        ))),
    }
}

/// How many missing folders are created: enough for a folder of the cache's own in `~/.cache`, where that is missing too.
const MAX_CREATED: usize = 2;

/// Creates a folder if it does not exist, and the one above it.
///
/// A mistyped path must not be created in silence, so one of which more is missing is refused, as is one whose first folder
/// is missing.
pub(super) fn create_folder(path: &Path) -> Result<()> {
    let is_missing = |folder: &&Path| {
        !folder.as_os_str().is_empty()
            && std::fs::metadata(folder).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    if let Some(first) = missing.last() {
        let is_below_root =
            first.parent().is_some_and(|parent| parent.has_root() && parent.parent().is_none());
        let rule = match (is_below_root, missing.len() > MAX_CREATED) {
            (true, _) => Some("no folder is created directly below the root"),
            (_, true) => Some("at most two missing folders are created"),
            (false, false) => None,
        };
        if let Some(rule) = rule {
            let (first, path) = (first.display(), path.display());
            return Err(config(format!(
                "{first} does not exist, and {rule}: check the path, or create the folder {path}"
            )));
        }
    }
    create_private(path).map_err(|error| {
        let message = format!(
            "{}: the directory cannot be created: check its path and permissions, or choose another",
            path.display()
        );
        config(message).with_source(error)
    })
}

/// Creates a folder, and those above it.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn only_a_leading_tilde_is_expanded() {
        let expand_home = |path: &str| expand_home(Path::new(path), Some("/home/me".into()), "the path");
        assert_eq!(expand_home("~/a/b").unwrap(), Path::new("/home/me/a/b"));
        assert_eq!(expand_home("~").unwrap(), Path::new("/home/me"));
        for same in ["a", "/a/~", "./~", "..", "a b?*"] {
            assert_eq!(expand_home(same).unwrap(), Path::new(same));
        }
        for wrong in ["", "~you/a", "a\0b"] {
            assert_eq!(expand_home(wrong).unwrap_err().kind(), ErrorKind::Config);
        }
        assert!(super::expand_home(Path::new("~/a"), None, "the path").is_err());
    }
}
