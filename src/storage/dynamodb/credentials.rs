//! Credentials that take longer to get than an operation may.
//!
//! Promises: getting them goes on when the operation that began it is given up, so that a slow provider delays the store
//! and does not keep it away for ever.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

use super::underway::Underway;

pub(super) struct Patient {
    provider: SharedCredentialsProvider,
    asked: Underway<Result<Credentials, Arc<CredentialsError>>>,
}

impl Patient {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, asked: Underway::default() }
    }

    async fn provide(&self) -> Result<Credentials, CredentialsError> {
        let asked = self.asked.join(|| {
            let provider = self.provider.clone();
            async move { provider.provide_credentials().await.map_err(Arc::new) }
        });
        match asked.await {
            Some(Ok(credentials)) => Ok(credentials),
            Some(Err(error)) => Err(again(&error)),
            None => Err(CredentialsError::provider_error("the runtime has ended")),
        }
    }
}

/// An error like this one, which cannot be cloned.
fn again(error: &CredentialsError) -> CredentialsError {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsError::not_loaded(reason(error)),
        CredentialsError::ProviderTimedOut(timed_out) => {
            CredentialsError::provider_timed_out(timed_out.timeout_duration())
        }
        CredentialsError::InvalidConfiguration(_) => CredentialsError::invalid_configuration(reason(error)),
        _ => CredentialsError::provider_error(reason(error)),
    }
}

/// The longest reason that is told, in bytes.
const LONGEST: usize = 400;

/// Why there are no credentials, in the words of the driver: what is wrong with the environment, a profile or a file.
///
/// A service's own texts and what a credential process has printed are left out, since these may hold anything.
pub(super) fn reason(error: &CredentialsError) -> String {
    let mut reason = String::new();
    let mut cause = error.source();
    while let Some(this) = cause {
        let text = this.to_string();
        // What a process has printed follows.
        let told = [". Stderr", " response:"].iter().filter_map(|mark| text.find(mark)).min();
        let printed = told.filter(|_| text.contains("external process"));
        let text = &text[..printed.unwrap_or(text.len())];
        // A service's answer is behind this.
        let ends = printed.is_some() || text == "service error";
        if !text.is_empty() && !reason.ends_with(text) {
            let separator = if reason.is_empty() { "" } else { ": " };
            reason = reason + separator + text;
        }
        cause = if ends { None } else { this.source() };
    }
    if reason.is_empty() {
        reason.push_str("no reason was given");
    }
    let end = (0..=LONGEST.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or_default());
    reason
}

impl ProvideCredentials for Patient {
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

impl fmt::Debug for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patient")
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
    fn a_reason_names_the_cause_and_nothing_that_was_printed() {
        let told = |text: &str| reason(&again(&again(&CredentialsError::provider_error(text))));
        assert_eq!(told("the profile lacks a role"), "the profile lacks a role");
        let failed = "Error retrieving credentials: external process exited with code exit status: 3";
        assert_eq!(told(&format!("{failed}. Stderr: SECRET")), failed);
        let unread = "Error retrieving credentials from external process, could not parse";
        assert_eq!(told(&format!("{unread} response: SECRET")), unread);
        assert_eq!(told(&"ä".repeat(LONGEST)).len(), LONGEST);
        assert_eq!(reason(&CredentialsError::not_loaded_no_source()), "no reason was given");
    }

    #[tokio::test]
    async fn what_a_given_up_operation_began_serves_the_next() {
        let gate = Arc::new(Semaphore::new(0));
        let patient = Patient::new(SharedCredentialsProvider::new(Slow(Arc::clone(&gate))));
        for _ in 0..3 {
            assert!(patient.provide_credentials().now_or_never().is_none());
        }
        gate.add_permits(1);
        assert_eq!(patient.provide_credentials().await.unwrap().access_key_id(), "id");
        assert!(!format!("{patient:?}").contains("secret"));
    }
}
