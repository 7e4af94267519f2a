//! Measures the time of a request, of several services in turn.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tower::Service;

use crate::origin::{Ask, URI, read, read_held};

/// How often and how long each service is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: usize,
    pub time: Duration,
}

impl Plan {
    /// Checks that everything runs. The figures mean nothing.
    pub const QUICK: Self = Self { rounds: 1, time: Duration::from_millis(1) };

    pub fn new(is_quick: bool, milliseconds: u64) -> Self {
        // An odd number of rounds, so that the median is one of them.
        if is_quick { Self::QUICK } else { Self { rounds: 5, time: Duration::from_millis(milliseconds) } }
    }

    /// Returns a plan with one round of so many times the time.
    pub fn once(self, times: u32) -> Self {
        Self { rounds: 1, time: self.time * times }
    }
}

/// Which URLs are requested.
#[derive(Clone)]
pub enum Urls {
    /// Always the same one.
    Hot,
    /// These in turn. Each response is held while other tasks run, because a row that is read and freed at once flatters
    /// every way of reading.
    Rows(Arc<[String]>),
    /// A new one each time.
    Cold(Arc<AtomicU64>),
}

impl Urls {
    /// Returns the URL with this number that a miss asks for.
    pub fn cold(number: u64) -> String {
        format!("{URI}&miss={number}")
    }
}

/// Something that a task does again and again.
pub trait Work: Clone + Send + Sync + 'static {
    fn once(&mut self, number: usize) -> impl Future<Output = ()> + Send;
}

/// Sends requests to a service, and reads the bodies.
#[derive(Clone)]
pub struct Requests<S> {
    pub service: S,
    pub urls: Urls,
    pub len: usize,
}

impl<S, B> Work for Requests<S>
where
    S: Service<Ask, Response = Response<B>, Error: std::fmt::Debug, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin + Send + 'static,
{
    async fn once(&mut self, number: usize) {
        let len = match &self.urls {
            Urls::Hot => read(&mut self.service, URI).await,
            Urls::Rows(rows) => read_held(&mut self.service, &rows[number % rows.len()], true).await,
            Urls::Cold(next) => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                read(&mut self.service, &Urls::cold(number)).await
            }
        };
        assert_eq!(len, self.len);
    }
}

/// Does one thing, and then another.
#[derive(Clone)]
pub struct Then<A, B>(pub A, pub B);

impl<A: Work, B: Work> Work for Then<A, B> {
    async fn once(&mut self, number: usize) {
        self.0.once(number).await;
        self.1.once(number).await;
    }
}

type Seconds<'a> = Pin<Box<dyn Future<Output = f64> + Send + 'a>>;

/// A service or a driver that is compared with others.
pub struct Candidate {
    pub name: &'static str,
    measure: Box<dyn Fn(usize, Duration) -> Seconds<'static> + Send + Sync>,
}

impl Candidate {
    pub fn new(name: &'static str, work: impl Work) -> Self {
        Self::settled(name, work, || async {})
    }

    /// As [`new`](Self::new). The measured time ends once `settle` returns, so that it covers work in the background.
    pub fn settled<F>(
        name: &'static str,
        work: impl Work,
        settle: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let measure = move |tasks, time| -> Seconds<'static> {
            let (work, settle) = (work.clone(), settle.clone());
            Box::pin(async move { time_of(work, tasks, time, settle).await })
        };
        Self { name, measure: Box::new(measure) }
    }
}

/// Returns the seconds that one request takes, divided by the number of tasks.
async fn time_of<W, S, F>(work: W, tasks: usize, time: Duration, settle: S) -> f64
where
    W: Work,
    S: Fn() -> F,
    F: Future<Output = ()>,
{
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let mut work = work.clone();
        running.spawn(async move {
            // Reading the clock takes as long as a tenth of the fastest request, so it is read after a batch.
            let (mut done, mut batch) = (0, 1);
            loop {
                for _ in 0..batch {
                    work.once(done + task * 7).await; // tasks begin at different rows
                    done += 1;
                }
                let elapsed = began.elapsed();
                if elapsed >= time {
                    return done;
                }
                let tenth = done as f64 * time.as_secs_f64() / elapsed.as_secs_f64() / 10.0;
                batch = (batch * 2).min(64).min(tenth as usize).max(1);
            }
        });
    }
    let done: usize = running.join_all().await.into_iter().sum();
    settle().await;
    began.elapsed().as_secs_f64() / done as f64
}

/// Returns the median of the seconds that each candidate takes. They take turns.
pub async fn compare(plan: Plan, tasks: usize, candidates: &[Candidate]) -> Vec<f64> {
    let mut all: Vec<Vec<f64>> = candidates.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for (candidate, times) in candidates.iter().zip(&mut all) {
            times.push((candidate.measure)(tasks, plan.time).await);
        }
    }
    all.into_iter().map(median).collect()
}

pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
