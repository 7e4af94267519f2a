//! Measures how often per second two operations can be executed.

use std::future::Future;
use std::time::{Duration, Instant};

/// The number and length of the measurements of each operation.
#[derive(Clone, Copy)]
pub struct Plan {
    rounds: usize,
    time: Duration,
}

impl Plan {
    /// The plan for `cargo bench`.
    ///
    /// A disturbance of one or two of the five rounds does not change the median much.
    pub const LONG: Self = Self { rounds: 5, time: Duration::from_millis(500) };
    /// The plan for `cargo test`, which only checks that the bench runs.
    pub const ONCE: Self = Self { rounds: 1, time: Duration::from_millis(10) };
}

/// The median rates per second.
pub struct Rates {
    pub ours: f64,
    pub raw: f64,
}

/// Measures both operations alternately, so that a change of the machine's speed affects both.
///
/// `settle` waits for work that `ours` leaves behind, and its time counts as that of `ours`.
pub async fn compare<A, B, FA, FB, S, FS>(plan: Plan, tasks: usize, ours: A, raw: B, settle: S) -> Rates
where
    A: Fn(usize) -> FA + Clone + Send + 'static,
    B: Fn(usize) -> FB + Clone + Send + 'static,
    FA: Future<Output = ()> + Send + 'static,
    FB: Future<Output = ()> + Send + 'static,
    S: Fn() -> FS,
    FS: Future<Output = ()>,
{
    let (mut our_rates, mut raw_rates) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        our_rates.push(rate(plan.time, tasks, &ours, &settle).await);
        raw_rates.push(rate(plan.time, tasks, &raw, || async {}).await);
    }
    Rates { ours: median(our_rates), raw: median(raw_rates) }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Returns the rate of an operation that each task repeats until the time is over.
async fn rate<F, O, S, FS>(time: Duration, tasks: usize, operation: &F, settle: S) -> f64
where
    F: Fn(usize) -> O + Clone + Send + 'static,
    O: Future<Output = ()> + Send + 'static,
    S: Fn() -> FS,
    FS: Future<Output = ()>,
{
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let operation = operation.clone();
        running.spawn(async move {
            let mut done = 0;
            while began.elapsed() < time {
                operation(task * 7 + done).await; // tasks begin at different rows
                done += 1;
            }
            done
        });
    }
    let done: usize = running.join_all().await.into_iter().sum();
    settle().await;
    done as f64 / began.elapsed().as_secs_f64()
}
