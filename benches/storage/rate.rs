//! How often something can be done in a second, beside something else.

use std::future::Future;
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    rounds: usize,
    time: Duration,
}

impl Plan {
    pub const LONG: Self = Self { rounds: 5, time: Duration::from_millis(500) };
    /// To see that it runs.
    pub const ONCE: Self = Self { rounds: 1, time: Duration::from_millis(10) };
}

/// Medians, per second.
pub struct Rates {
    pub ours: f64,
    pub raw: f64,
}

/// Measures the two in turns. What ours leaves behind is waited for, within its time.
pub async fn compare<A, B, FA, FB, S, FS>(plan: Plan, tasks: usize, ours: A, raw: B, settle: S) -> Rates
where
    A: Fn(usize) -> FA + Clone + Send + 'static,
    B: Fn(usize) -> FB + Clone + Send + 'static,
    FA: Future<Output = ()> + Send + 'static,
    FB: Future<Output = ()> + Send + 'static,
    S: Fn() -> FS,
    FS: Future<Output = ()>,
{
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        one.push(rate(plan.time, tasks, &ours, &settle).await);
        other.push(rate(plan.time, tasks, &raw, || async {}).await);
    }
    Rates { ours: median(one), raw: median(other) }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Each task does the next one as soon as it has done one, until the time is over.
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
                operation(task * 7 + done).await;
                done += 1;
            }
            done
        });
    }
    let done: usize = running.join_all().await.into_iter().sum();
    settle().await;
    done as f64 / began.elapsed().as_secs_f64()
}
