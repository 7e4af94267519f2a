//! Metrics of the proxy for Prometheus, besides those of the cache (`http_cache_*`).
//!
//! Without `--metrics` no recorder is installed, and a count costs one check.

use std::time::Duration;

use http::StatusCode;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Counts a request that has been answered.
pub fn answered(status: StatusCode, bytes: u64, took: Duration, is_complete: bool) {
    let class = match status.as_u16() / 100 {
        1 | 2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    counter!("reverse_proxy_requests_total", "status" => class).increment(1);
    counter!("reverse_proxy_sent_bytes_total").increment(bytes);
    histogram!("reverse_proxy_request_duration_seconds").record(took);
    if !is_complete {
        counter!("reverse_proxy_responses_cut_total").increment(1);
    }
}

/// Counts a response by what it needed.
pub fn responded(from: &'static str) {
    counter!("reverse_proxy_responses_total", "from" => from).increment(1);
}

/// Counts bytes of a request's content.
pub fn received(bytes: u64) {
    counter!("reverse_proxy_received_bytes_total").increment(bytes);
}

/// Counts a request to the origin that failed.
pub fn origin_failed(reason: &'static str) {
    counter!("reverse_proxy_origin_errors_total", "reason" => reason).increment(1);
}

/// Counts a connection that was closed because its client did nothing for too long.
pub fn expired(reason: &'static str) {
    counter!("reverse_proxy_connections_expired_total", "reason" => reason).increment(1);
}

/// Counts an open connection until it is dropped.
pub struct OpenConnection;

impl OpenConnection {
    pub fn new() -> Self {
        counter!("reverse_proxy_connections_total").increment(1);
        gauge!("reverse_proxy_connections_open").increment(1);
        Self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!("reverse_proxy_connections_open").decrement(1);
    }
}

pub fn describe() {
    let counters = [
        ("reverse_proxy_requests_total", Unit::Count, "Requests answered, by class of status"),
        (
            "reverse_proxy_responses_total",
            Unit::Count,
            "Responses by what they needed: nothing of the origin (cache), its 304 (validated), its response (origin), or \
             none of them (error)",
        ),
        ("reverse_proxy_responses_cut_total", Unit::Count, "Responses that ended before their end"),
        ("reverse_proxy_sent_bytes_total", Unit::Bytes, "Content bytes sent to clients"),
        ("reverse_proxy_received_bytes_total", Unit::Bytes, "Content bytes received from clients"),
        ("reverse_proxy_origin_errors_total", Unit::Count, "Requests to the origin that failed, by reason"),
        ("reverse_proxy_connections_total", Unit::Count, "Connections accepted"),
        (
            "reverse_proxy_connections_expired_total",
            Unit::Count,
            "Connections closed by a timeout, by reason",
        ),
        ("reverse_proxy_accept_errors_total", Unit::Count, "Connections that could not be accepted"),
        ("reverse_proxy_access_log_dropped_total", Unit::Count, "Lines of the access log dropped"),
    ];
    for (name, unit, help) in counters {
        describe_counter!(name, unit, help);
    }
    describe_gauge!("reverse_proxy_connections_open", Unit::Count, "Connections open now");
    let help = "Time from a request's head to the end of its response";
    describe_histogram!("reverse_proxy_request_duration_seconds", Unit::Seconds, help);
}
