//! The driver's errors, converted to this crate's.
//!
//! # Invariants
//! - No message and no source contains an address, a table or a credential.
//! - The texts of DynamoDB are left out, because some of them repeat the account, the table and the arguments
//!   that they complain about.
//! - Why there are no credentials is told in the driver's words, which may name a profile or a file.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::credentials::reason;
use crate::error::{Error, ErrorKind};

/// The codes with which AWS refuses a request for want of capacity.
const THROTTLED: [&str; 5] = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "SlowDown",
];

const TIMED_OUT: &str = "dynamodb did not answer in time";

const NO_CREDENTIALS: &str = "no usable credentials for dynamodb were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, \
     or give this machine or container a role";

/// Converts the error of an operation.
///
/// `is_write` matters for missing permissions: a user who may not write can still read, so the storage is
/// read-only.
pub(super) fn convert<E, R>(error: &SdkError<E, R>, is_write: bool) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: std::fmt::Debug + 'static,
{
    let (kind, message) = classify(error, is_write);
    let source = match credentials_error(error) {
        Some(error) => format!("aws: {}", reason(error)),
        None if is_unsigned(error) => "aws: nothing in the environment provides credentials".to_owned(),
        None => format!("dynamodb: {}", code_or_category(error)),
    };
    Error::new(kind, message).with_source(source)
}

/// Returns whether the table of a request does not exist.
pub(super) fn is_table_missing<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

/// Returns whether DynamoDB has no capacity for the request at the moment.
pub(super) fn is_throttled<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code().is_some_and(|code| THROTTLED.contains(&code))
}

/// Returns what an error means to a caller.
fn classify<E, R>(error: &SdkError<E, R>, is_write: bool) -> (ErrorKind, &'static str)
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: std::fmt::Debug + 'static,
{
    let unreachable = (ErrorKind::Unavailable, "dynamodb cannot be reached, or closed the connection");
    match error {
        SdkError::TimeoutError(_) => (ErrorKind::Timeout, TIMED_OUT),
        SdkError::ServiceError(refusal) => classify_refusal(refusal.err(), is_write),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (ErrorKind::Timeout, TIMED_OUT),
        _ => match credentials_error(error) {
            // These may pass: a service that is down, or a process that fails.
            Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                (ErrorKind::Unavailable, "the provider of the credentials for dynamodb cannot be asked")
            }
            Some(_) => (ErrorKind::Denied, NO_CREDENTIALS),
            None if is_unsigned(error) => (ErrorKind::Denied, NO_CREDENTIALS),
            None if matches!(error, SdkError::ConstructionFailure(_)) => (
                ErrorKind::Config,
                "dynamodb needs a region: set the option region, AWS_REGION or the region of the profile; and an \
                     endpoint, if any, must be a valid URL",
            ),
            None => unreachable,
        },
    }
}

fn classify_refusal(refusal: &impl ProvideErrorMetadata, is_write: bool) -> (ErrorKind, &'static str) {
    let says = |text: &str| refusal.message().is_some_and(|message| message.contains(text));
    match refusal.code().unwrap_or_default() {
        "ResourceNotFoundException" => (
            ErrorKind::Config,
            "the table does not exist in dynamodb: create it, or let the storage do so (create_if_missing)",
        ),
        "ResourceInUseException" => {
            (ErrorKind::Unavailable, "the table in dynamodb is being created or changed")
        }
        code if THROTTLED.contains(&code) => (
            ErrorKind::Unavailable,
            "dynamodb accepts no more requests at the moment: the capacity of the table is used up",
        ),
        "LimitExceededException" => (
            ErrorKind::Unavailable,
            "dynamodb has reached its limit of tables, or of tables that are created at the same time",
        ),
        "TransactionConflictException" | "ReplicatedWriteConflictException" => {
            (ErrorKind::Unavailable, "another process is changing the record in dynamodb at the moment")
        }
        "InaccessibleEncryptionCredentialsException" => {
            (ErrorKind::Denied, "the key with which the table in dynamodb is encrypted cannot be used")
        }
        "AccessDeniedException" | "AccessDenied" if is_write => (
            ErrorKind::ReadOnly,
            "the user has no permission to write to dynamodb: see the permissions in the documentation",
        ),
        "AccessDeniedException" | "AccessDenied" => (
            ErrorKind::Denied,
            "the user has no permission to read from dynamodb: see the permissions in the documentation",
        ),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "IncompleteSignature"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => {
            (ErrorKind::Denied, "dynamodb refuses the credentials, or the clock of this machine is wrong")
        }
        "ItemCollectionSizeLimitExceededException" => {
            (ErrorKind::Full, "dynamodb has no more room for the records of this entry")
        }
        "InternalServerError" | "InternalFailure" | "ServiceUnavailable" => {
            (ErrorKind::Unavailable, "dynamodb failed to answer the request")
        }
        // Each kind of request words these two differently, so only the common part is compared.
        "ValidationException" if says("size has exceeded") => {
            (ErrorKind::TooLarge, "the record is longer than dynamodb accepts")
        }
        "ValidationException" if says("key") => (
            ErrorKind::Config,
            "the table in dynamodb has other keys than the storage expects: set them by key_names",
        ),
        _ => (ErrorKind::Other, "dynamodb answered with an error"),
    }
}

/// Returns the code of the service, or the driver's category of the error.
///
/// The category is in fixed words.
fn code_or_category<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> &str {
    match error.code() {
        // The code comes over the network: only what looks like one is repeated.
        Some(code) if code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphabetic()) => code,
        Some(_) => "an unknown code",
        None => match error {
            SdkError::ConstructionFailure(_) => "the request could not be made",
            SdkError::TimeoutError(_) => "timed out",
            SdkError::DispatchFailure(failure) if failure.is_timeout() => "connecting timed out",
            SdkError::DispatchFailure(failure) if failure.is_io() => "the connection failed",
            SdkError::DispatchFailure(_) => "the request could not be sent",
            SdkError::ResponseError(_) => "the answer could not be read",
            _ => "an answer without a code",
        },
    }
}

/// Returns the error of the credentials provider, if it is what caused this error.
fn credentials_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Returns whether no provider of credentials is set at all.
///
/// The driver has no public type for this error, so its text is compared.
fn is_unsigned(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.to_string().contains("auth scheme"))
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut cause = error.source();
    std::iter::from_fn(move || {
        let this = cause?;
        cause = this.source();
        Some(this)
    })
}

/// Returns the error of a batch of which DynamoDB processed nothing in several requests.
pub(super) fn unprocessed_items() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "dynamodb did not process the whole batch: the capacity of the table is used up",
    )
}

/// Returns the error of a request that did not end within the response timeout.
pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, TIMED_OUT)
}

/// Returns the error of a task that ended with its runtime.
pub(super) fn runtime_ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the tokio runtime that was asking dynamodb has ended")
}

/// Returns the error of a condition that was never made.
///
/// DynamoDB answers a request without a condition that its condition was not met.
pub(super) fn unexpected_condition_failure() -> Error {
    Error::new(ErrorKind::Other, "dynamodb reports a condition that the request did not have")
}
