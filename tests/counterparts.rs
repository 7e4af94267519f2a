//! The page on the settings of others: none of these is missing, and each test that it names is there.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// As their signatures have them.
const AIOHTTP: [&str; 18] = [
    "`cache`",
    "`cache_name`",
    "`expire_after`",
    "`urls_expire_after`",
    "`allowed_codes`",
    "`allowed_methods`",
    "`include_headers`",
    "`ignored_params`",
    "`autoclose`",
    "`cache_control`",
    "`filter_fn`",
    "request: `refresh`",
    "session: `disabled`",
    "request: `expire_after`",
    "`delete_expired_responses`",
    "`has_url`",
    "`delete_url`",
    "`get_urls`",
];
const REQUESTS: [&str; 31] = [
    "`cache_name`",
    "`backend`",
    "`serializer`",
    "`expire_after`",
    "`urls_expire_after`",
    "`cache_control`",
    "`content_root_key`",
    "`allowable_codes`",
    "`allowable_methods`",
    "`always_revalidate`",
    "`ignored_parameters`",
    "`match_headers`",
    "`filter_fn`",
    "`key_fn`",
    "`read_only`",
    "`only_if_cached`",
    "`stale_if_error`",
    "`stale_while_revalidate`",
    "`autoclose`",
    "`disabled`",
    "`refresh`",
    "`force_refresh`",
    "`contains`",
    "`get_response`",
    "`filter`",
    "`urls`",
    "cache: `delete`",
    "`remove_expired_responses`",
    "`reset_expiration`",
    "`update`",
    "`recreate_keys`",
];

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

#[test]
fn every_setting_has_a_row_and_each_row_a_test_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/counterparts.md")).unwrap();
    let tests = sources(&root.join("tests")) + &sources(&root.join("src"));
    let (aiohttp, requests) = page.split_once("# requests-cache").unwrap();
    for (part, settings) in [(aiohttp, &AIOHTTP[..]), (requests, &REQUESTS[..])] {
        let rows: Vec<Vec<&str>> = part
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| theirs"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        for setting in settings {
            assert!(rows.iter().any(|row| row[0].contains(setting)), "{setting} has no row");
        }
        for row in &rows {
            assert!(
                row.len() == 3 && row.iter().all(|cell| !cell.is_empty()),
                "not three full cells: {row:?}"
            );
            let named: Vec<&str> =
                row[2].strip_prefix('`').and_then(|name| name.strip_suffix('`')).into_iter().collect();
            let exists = |name: &&str| {
                tests.contains(&format!("fn {name}("))
                    || tests.contains(&format!("fn {name}<"))
                    || tests.contains(&format!("\"{name}\""))
            };
            assert!(named.iter().all(exists), "no such test: {}", row[2]);
            assert!(!named.is_empty() || row[2].len() > 20, "neither a test nor a reason: {row:?}");
        }
    }
}
