//! The example `prometheus`, started from a command line, and the metrics that it exports.

use std::process::Command;

use crate::built::example;
use crate::examples::Running;

/// Returns the value of the sample with this name and these labels.
fn sample(scraped: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = scraped.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    line?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn scrape_reports_outcomes_and_durations() {
    let mut program = Command::new(example("prometheus"));
    program.args(["--listen", "127.0.0.1:0"]);
    let running = Running::start(program);

    for path in ["/fresh", "/fresh", "/fresh?secret=1", "/fresh", "/private"] {
        assert!(running.get(path).starts_with("HTTP/1.1 200"), "{path}");
    }
    let scraped = running.get("/metrics");
    let requests = |labels: &[&str]| sample(&scraped, "http_cache_requests_total", labels);
    assert_eq!(requests(&["outcome=\"hit\"", "cache=\"front\""]), Some(2.0));
    assert_eq!(requests(&["outcome=\"miss\"", "reason=\"absent\""]), Some(3.0));
    let not_stored = sample(&scraped, "http_cache_responses_not_stored_total", &["reason=\"private\""]);
    assert_eq!(not_stored, Some(1.0));
    let bytes = |source| sample(&scraped, "http_cache_body_bytes_total", &[source]);
    assert_eq!((bytes("source=\"storage\""), bytes("source=\"origin\"")), (Some(18.0), Some(28.0)));

    let durations = "http_cache_storage_operation_duration_seconds";
    assert!(scraped.contains(&format!("# TYPE {durations} histogram")), "{scraped}");
    let writes = ["operation=\"write_if\"", "result=\"ok\""];
    assert_eq!(sample(&scraped, &format!("{durations}_count"), &writes), Some(2.0));
    let bucket = format!("{durations}_bucket");
    assert_eq!(sample(&scraped, &bucket, &["le=\"+Inf\"", writes[0]]), Some(2.0));
    assert!(
        scraped.contains("# HELP http_cache_requests_total ") && !scraped.contains("secret"),
        "{scraped}"
    );
    assert_eq!(sample(&scraped, "http_cache_origin_requests_in_flight", &[]), Some(0.0));
}
