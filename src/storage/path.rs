//! Paths with a leading `~`, for the storages in files.

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
