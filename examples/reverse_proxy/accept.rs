//! Accepts connections, within the limit on their number.
//!
//! # Invariants
//! - An error of `accept` ends nothing. If it lasts, such as too many open files, the pauses between attempts grow.
//! - A connection that the client has closed before it was accepted is no error.
//! - [`Acceptor::next`] may be dropped at any time without losing a connection.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::report::{Kind, report};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub struct Acceptor {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    limit: usize,
    pause: Duration,
    /// When to try again after an error. It is kept here, since the future that waits for it may be dropped.
    not_before: Option<Instant>,
}

/// A client's connection. Dropping the permit lets another one be accepted.
pub struct Accepted {
    pub stream: TcpStream,
    pub address: SocketAddr,
    pub permit: OwnedSemaphorePermit,
}

impl Acceptor {
    pub fn new(listener: TcpListener, limit: usize) -> Self {
        let slots = Arc::new(Semaphore::new(limit));
        Self { listener, slots, limit, pause: FIRST_PAUSE, not_before: None }
    }

    /// Waits for the next connection.
    pub async fn next(&mut self) -> Accepted {
        loop {
            if let Some(time) = self.not_before {
                tokio::time::sleep_until(time).await;
                self.not_before = None;
            }
            let permit = match Arc::clone(&self.slots).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    report(Kind::ConnectionsAtLimit, || format!("{} connections are open", self.limit));
                    match Arc::clone(&self.slots).acquire_owned().await {
                        Ok(permit) => permit,
                        Err(_) => std::future::pending().await, // never: the semaphore is not closed
                    }
                }
            };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.pause = FIRST_PAUSE;
                    return Accepted { stream, address, permit };
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) {
            return;
        }
        metrics::counter!("reverse_proxy_accept_errors_total").increment(1);
        report(Kind::AcceptFailed, || error.to_string());
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
