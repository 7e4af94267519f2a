//! The address of a storage, as it is given on a command line.

/// Returns whether the text is an address, and not the path of a file.
pub fn is_address(text: &str) -> bool {
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    let is_local = ["memory", "sqlite", "directory"].iter().any(|local| scheme.eq_ignore_ascii_case(local));
    is_local || rest.starts_with("//")
}

/// Returns the address without its user, password and options, so that it may be printed.
pub fn redacted(text: &str) -> String {
    if !is_address(text) {
        return text.to_owned();
    }
    let without_options = text.split('?').next().unwrap_or_default();
    match without_options.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default()),
        None => without_options.to_owned(),
    }
}
