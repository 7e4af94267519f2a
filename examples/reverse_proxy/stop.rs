//! Signals, and the end of the program.
//!
//! # Invariants
//! - SIGINT and SIGTERM end the program in an orderly way, SIGHUP opens the access log and reads the certificate anew,
//!   and never ends it.
//! - A second SIGINT or SIGTERM ends it at once.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::access_log::AccessLog;
use crate::tls::Tls;

pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    /// Returns a message if the system does not permit it.
    pub fn catch() -> Result<Self, String> {
        let catch = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for the signal to stop, and obeys the others meanwhile.
    pub async fn stop(mut self, log: Option<Arc<AccessLog>>, tls: Option<Arc<Tls>>) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                _ = self.hangup.recv() => {
                    if let Some(log) = &log {
                        log.reopen();
                    }
                    if let Some(tls) = tls.clone() {
                        // On a thread of its own, since a file may be slow. One after another, so that the latest counts.
                        let _ = tokio::task::spawn_blocking(move || tls.reload()).await;
                    }
                }
            }
        }
        tracing::info!(target: "reverse_proxy", "stops: requests in progress are finished");
        tokio::spawn(async move {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            std::process::exit(1);
        });
    }
}
