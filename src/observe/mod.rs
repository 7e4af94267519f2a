#![doc = include_str!("../observe.md")]

mod counts;
#[cfg(feature = "admin")]
mod latency;
#[cfg(not(feature = "admin"))]
#[path = "no_latency.rs"]
mod latency;
#[cfg(feature = "metrics")]
mod meter;
#[cfg(not(feature = "metrics"))]
#[path = "no_meter.rs"]
mod meter;
mod observer;
pub(crate) mod statistics;
mod stripes;

pub(crate) use self::counts::{Count, Gauge};
#[cfg(feature = "admin")]
pub(crate) use self::latency::LatencyCounts;
pub(crate) use self::latency::Stopwatch;
#[cfg(feature = "metrics")]
pub use self::meter::describe_metrics;
pub(crate) use self::meter::{ByteCounter, GaugeGuard};
pub(crate) use self::observer::Observer;
