//! A store's address as a word of the command line.

/// Whether it is an address, and not the path of a file.
pub fn is_address(text: &str) -> bool {
    text.contains("://") || ["memory:", "sqlite:", "directory:"].iter().any(|scheme| text.starts_with(scheme))
}

/// The store as it may be printed: without user, password and options.
pub fn shown(store: &str) -> String {
    if !is_address(store) {
        return store.to_owned();
    }
    let place = store.split('?').next().unwrap_or_default();
    match place.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default()),
        None => place.to_owned(),
    }
}
