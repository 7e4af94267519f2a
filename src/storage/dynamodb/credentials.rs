//! Credentials, which can take longer to get than an operation of the storage may.
//!
//! # Invariants
//! - A request for credentials continues when the operation that began it is given up. A slow provider delays the
//!   storage, but does not make it unusable for good.
//! - The reason why there are no credentials contains nothing that a service or a credential process has written.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

use super::shared_task::SharedTask;

/// A credentials provider whose requests are detached from the operation that needs them.
///
/// The cache gives an operation half a second by default. A provider that asks a service, or runs a process,
/// may need more, and would begin anew with each operation.
pub(super) struct DetachedProvider {
    provider: SharedCredentialsProvider,
    // The error is shared by all callers and cannot be cloned.
    request: SharedTask<Result<Credentials, Arc<CredentialsError>>>,
}

impl DetachedProvider {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, request: SharedTask::default() }
    }

    async fn provide(&self) -> Result<Credentials, CredentialsError> {
        let request = self.request.join(|| {
            let provider = self.provider.clone();
            async move { provider.provide_credentials().await.map_err(Arc::new) }
        });
        match request.await {
            Some(Ok(credentials)) => Ok(credentials),
            Some(Err(error)) => Err(copy_of(&error)),
            None => Err(CredentialsError::provider_error("the tokio runtime has ended")),
        }
    }
}

/// Returns an error of the same kind and with the same reason.
///
/// The error itself cannot be cloned.
fn copy_of(error: &CredentialsError) -> CredentialsError {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsError::not_loaded(reason(error)),
        CredentialsError::ProviderTimedOut(timed_out) => {
            CredentialsError::provider_timed_out(timed_out.timeout_duration())
        }
        CredentialsError::InvalidConfiguration(_) => CredentialsError::invalid_configuration(reason(error)),
        _ => CredentialsError::provider_error(reason(error)),
    }
}

/// The longest reason, in bytes.
///
/// Enough for the texts of the driver, and short enough for one line of a log.
const MAX_REASON_LEN: usize = 400;

/// Returns why there are no credentials, in the driver's words.
///
/// These name what is wrong with the environment, a profile or a file. The texts of a service and the output of a
/// credential process are left out, because they may contain anything.
pub(super) fn reason(error: &CredentialsError) -> String {
    let mut reason = String::new();
    let mut cause = error.source();
    while let Some(this) = cause {
        let text = this.to_string();
        // The driver appends the output of the process after one of these marks.
        let mark = [". Stderr", " response:"].iter().filter_map(|mark| text.find(mark)).min();
        let output = mark.filter(|_| text.contains("external process"));
        let text = &text[..output.unwrap_or(text.len())];
        // The causes behind these hold the output once more, or the answer of a service.
        let is_last = output.is_some() || text == "service error";
        if !text.is_empty() && !reason.ends_with(text) {
            let separator = if reason.is_empty() { "" } else { ": " };
            reason = reason + separator + text;
        }
        cause = if is_last { None } else { this.source() };
    }
    if reason.is_empty() {
        reason.push_str("no reason was given");
    }
    let end = (0..=MAX_REASON_LEN.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or_default());
    reason
}

impl ProvideCredentials for DetachedProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.provider.fallback_on_interrupt()
    }
}

impl fmt::Debug for DetachedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DetachedProvider")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[derive(Clone, Debug)]
    struct Slow(Arc<Semaphore>);

    impl ProvideCredentials for Slow {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                self.0.acquire().await.unwrap().forget();
                Ok(Credentials::new("id", "secret", None, None, "test"))
            })
        }
    }

    #[test]
    fn reason_omits_the_output_of_a_process() {
        let reason_of = |text: &str| reason(&copy_of(&copy_of(&CredentialsError::provider_error(text))));
        assert_eq!(reason_of("the profile lacks a role"), "the profile lacks a role");
        let failed = "Error retrieving credentials: external process exited with code exit status: 3";
        assert_eq!(reason_of(&format!("{failed}. Stderr: SECRET")), failed);
        let unread = "Error retrieving credentials from external process, could not parse";
        assert_eq!(reason_of(&format!("{unread} response: SECRET")), unread);
        assert_eq!(reason_of(&"ä".repeat(MAX_REASON_LEN)).len(), MAX_REASON_LEN);
        assert_eq!(reason(&CredentialsError::not_loaded_no_source()), "no reason was given");
    }

    #[tokio::test]
    async fn request_of_a_cancelled_operation_serves_the_next() {
        let gate = Arc::new(Semaphore::new(0));
        let provider = DetachedProvider::new(SharedCredentialsProvider::new(Slow(Arc::clone(&gate))));
        for _ in 0..3 {
            assert!(provider.provide_credentials().now_or_never().is_none());
        }
        gate.add_permits(1);
        assert_eq!(provider.provide_credentials().await.unwrap().access_key_id(), "id");
        assert!(!format!("{provider:?}").contains("secret"));
    }
}
