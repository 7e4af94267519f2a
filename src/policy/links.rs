//! The links that a response asks its reader to fetch soon (RFC 8288; preload and prefetch of the HTML standard).
//!
//! # Invariants
//! - Only URIs of the response's own origin are returned: no response decides what is requested elsewhere.
//! - No bytes make a function here panic, and a malformed rest of a line is ignored.

use http::{HeaderMap, Uri, header};

use super::invalidate::{is_same_origin, resolve};

/// Returns the URIs of the same origin that a response links to as `preload` or `prefetch`.
///
/// Links with an `anchor` are left out: they are from another resource (RFC 8288 §3.2).
pub(crate) fn hinted(effective: &Uri, response: &HeaderMap) -> Vec<Uri> {
    let lines = response.get_all(header::LINK).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(links)
        .filter(|link| link.is_hint)
        .filter_map(|link| resolve(effective, link.target.trim()))
        .filter(|uri| is_same_origin(effective, uri))
        .collect()
}

struct Link<'a> {
    target: &'a str,
    /// Whether it is one to fetch soon.
    is_hint: bool,
}

/// Returns the links of a line, as far as it is well-formed (RFC 8288 §3).
fn links(line: &str) -> impl Iterator<Item = Link<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let (parameters, after) = split_unquoted(after, ',');
        rest = after;
        Some(Link { target, is_hint: is_hint(parameters) })
    })
}

fn is_hint(mut parameters: &str) -> bool {
    let mut rel = None;
    while !parameters.is_empty() {
        let (parameter, after) = split_unquoted(parameters, ';');
        parameters = after;
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.trim() {
            name if name.eq_ignore_ascii_case("anchor") => return false,
            // Only the first one counts (RFC 8288 §3.3).
            name if name.eq_ignore_ascii_case("rel") => _ = rel.get_or_insert(value.trim().trim_matches('"')),
            _ => {}
        }
    }
    let mut types = rel.unwrap_or_default().split_ascii_whitespace();
    types.any(|word| word.eq_ignore_ascii_case("preload") || word.eq_ignore_ascii_case("prefetch"))
}

/// Splits at the first separator outside of quotes. It is in neither part.
fn split_unquoted(text: &str, separator: char) -> (&str, &str) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if letter == separator && !is_quoted => return (&text[..at], &text[at + letter.len_utf8()..]),
            _ => {}
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str]) -> Vec<String> {
        let base = Uri::from_static("https://example.com/shop/index.html?page=2");
        let lines = lines.iter().map(|line| (header::LINK, line.parse().unwrap()));
        hinted(&base, &lines.collect()).iter().map(Uri::to_string).collect()
    }

    #[test]
    fn preloads_and_prefetches_are_resolved() {
        for (line, path) in [
            ("</style.css>; rel=preload; as=style", "/style.css"),
            ("<font.woff2>; rel=\"preload\"; as=font; crossorigin", "/shop/font.woff2"),
            ("<../next>;rel=prefetch", "/next"),
            ("<?page=3>; rel=\"next PREFETCH\"", "/shop/index.html?page=3"),
            ("<//example.com/a,b;c>; title=\"a, b; \\\" c\"; rel=preload", "/a,b;c"),
            ("<HTTPS://EXAMPLE.com:443/a>; rel=preload; rel=next", "/a"),
            ("</a#part>; REL=preload", "/a"),
        ] {
            let found: Vec<Uri> = found(&[line]).iter().map(|uri| uri.parse().unwrap()).collect();
            let [uri] = &found[..] else { panic!("{line}: {found:?}") };
            assert_eq!(uri.path_and_query().unwrap(), path, "{line}");
        }
        let several = found(&["</a>; rel=preload, </b>; rel=next, </c>; rel=prefetch", "</d>; rel=preload"]);
        assert_eq!(several, ["https://example.com/a", "https://example.com/c", "https://example.com/d"]);
    }

    #[test]
    fn other_links_are_left_out() {
        for line in [
            "<https://other.example/a>; rel=preload",
            "<http://example.com/a>; rel=preload",
            "<https://example.com:8443/a>; rel=preload",
            "<javascript:alert(1)>; rel=preload",
            "<data:text/plain,a>; rel=preload",
            "</a>",
            "</a>; rel=stylesheet",
            "</a>; rel=preloaded",
            "</a>; rel=next; rel=preload",
            "</a>; rel=preload; anchor=\"/other\"",
            "</a>; title=\"rel=preload\"",
            "</a; rel=preload",
            "/a; rel=preload",
            "<//>; rel=preload",
            "<>",
            ",",
            "",
        ] {
            assert_eq!(found(&[line]), [""; 0], "{line}");
        }
    }
}
