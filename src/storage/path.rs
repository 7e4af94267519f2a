//! Paths as a user writes them, for the storages in files.

use std::path::{Path, PathBuf};

use super::address::config;
use crate::error::Result;

/// Reads a path in which `~` is `home`. Messages call it `what`, and never repeat it.
pub(super) fn expanded(path: &Path, home: Option<PathBuf>, what: &str) -> Result<PathBuf> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err(config(format!("{what} is empty: give a path")));
    }
    if bytes.contains(&0) {
        return Err(config(format!("{what} holds a NUL, which no path can")));
    }
    if !bytes.starts_with(b"~") {
        return Ok(path.to_owned());
    }
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => Ok(home),
        (Ok(rest), Some(home)) => Ok(home.join(rest)),
        (Ok(_), None) => Err(config(format!("{what} begins with ~, but the home directory is not known"))),
        (Err(_), _) => Err(config(format!(
            "{what} begins with ~: only ~/ is understood; where the name itself begins so write ./~"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_tilde_alone_is_expanded() {
        let expanded = |path: &str| expanded(Path::new(path), Some("/home/me".into()), "the path");
        assert_eq!(expanded("~/a/b").unwrap(), Path::new("/home/me/a/b"));
        assert_eq!(expanded("~").unwrap(), Path::new("/home/me"));
        for same in ["a", "/a/~", "./~", "..", "a b?*"] {
            assert_eq!(expanded(same).unwrap(), Path::new(same));
        }
        for wrong in ["", "~you/a", "a\0b"] {
            assert_eq!(expanded(wrong).unwrap_err().kind(), ErrorKind::Config);
        }
        assert!(super::expanded(Path::new("~/a"), None, "the path").is_err());
    }
}
