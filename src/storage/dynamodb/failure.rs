//! What the driver's errors mean to a caller.
//!
//! Promises: no message and no source holds an address, a table or a credential. DynamoDB's own texts are left out,
//! since some of them repeat the account, the table and the arguments that they complain about. Why there are no
//! credentials is told as the driver tells it, which may name a profile or a file.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::credentials::reason;
use crate::error::{Error, ErrorKind};

const THROTTLED: [&str; 5] = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "SlowDown",
];

const NO_CREDENTIALS: &str = "no credentials for dynamodb were found that can be used";

/// The error of an operation. A user without the right to write is refused writes alone.
pub(super) fn failed<E, R>(error: &SdkError<E, R>, writes: bool) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: std::fmt::Debug + 'static,
{
    let (kind, message) = meaning(error, writes);
    let source = match credentials(error) {
        Some(why) => format!("aws: {}", reason(why)),
        None if is_unsigned(error) => "aws: nothing in the environment provides credentials".to_owned(),
        None => format!("dynamodb: {}", word(error)),
    };
    Error::new(kind, message).with_source(source)
}

/// Whether the table that was asked for is not there.
pub(super) fn is_no_table<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

/// Whether there is no capacity for the request now.
pub(super) fn is_throttled<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code().is_some_and(|code| THROTTLED.contains(&code))
}

fn meaning<E, R>(error: &SdkError<E, R>, writes: bool) -> (ErrorKind, &'static str)
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: std::fmt::Debug + 'static,
{
    let unreachable = (ErrorKind::Unavailable, "dynamodb cannot be reached, or ended the connection");
    match error {
        SdkError::TimeoutError(_) => (ErrorKind::Timeout, "dynamodb did not answer in time"),
        SdkError::ServiceError(refusal) => of_service(refusal.err(), writes),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (ErrorKind::Timeout, "dynamodb did not answer in time")
        }
        _ => match credentials(error) {
            Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                (ErrorKind::Unavailable, "what provides the credentials for dynamodb cannot be asked")
            }
            Some(_) => (ErrorKind::Denied, NO_CREDENTIALS),
            None if is_unsigned(error) => (ErrorKind::Denied, NO_CREDENTIALS),
            None if matches!(error, SdkError::ConstructionFailure(_)) => {
                (ErrorKind::Config, "dynamodb needs a region, and an endpoint that is one if any")
            }
            None => unreachable,
        },
    }
}

fn of_service(refusal: &impl ProvideErrorMetadata, writes: bool) -> (ErrorKind, &'static str) {
    let says = |text: &str| refusal.message().is_some_and(|message| message.contains(text));
    match refusal.code().unwrap_or_default() {
        "ResourceNotFoundException" => (
            ErrorKind::Config,
            "the table is not there in dynamodb: create it, or let the store do so (create_if_missing)",
        ),
        "ResourceInUseException" => {
            (ErrorKind::Unavailable, "the table in dynamodb is being made or changed")
        }
        code if THROTTLED.contains(&code) => {
            (ErrorKind::Unavailable, "dynamodb takes no more requests now: the table's capacity is used up")
        }
        "LimitExceededException" => {
            (ErrorKind::Unavailable, "dynamodb has as many tables, or makes as many at once, as it may")
        }
        "TransactionConflictException" | "ReplicatedWriteConflictException" => {
            (ErrorKind::Unavailable, "somebody else changes the record in dynamodb at this moment")
        }
        "InaccessibleEncryptionCredentialsException" => {
            (ErrorKind::Denied, "the key that the table in dynamodb is encrypted with cannot be used")
        }
        "AccessDeniedException" | "AccessDenied" if writes => {
            (ErrorKind::ReadOnly, "the user has no right to write to dynamodb: see the rights in the docs")
        }
        "AccessDeniedException" | "AccessDenied" => {
            (ErrorKind::Denied, "the user has no right to read from dynamodb: see the rights in the docs")
        }
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
            (ErrorKind::Denied, "dynamodb refuses the credentials, or this machine's clock is wrong")
        }
        "ItemCollectionSizeLimitExceededException" => {
            (ErrorKind::Full, "dynamodb has no more room for this entry")
        }
        "InternalServerError" | "InternalFailure" | "ServiceUnavailable" => {
            (ErrorKind::Unavailable, "dynamodb failed to answer")
        }
        "ValidationException" if says("size has exceeded") => {
            (ErrorKind::TooLarge, "the record is longer than dynamodb takes")
        }
        // Each request words it in its own way.
        "ValidationException" if says("key") => {
            (ErrorKind::Config, "the table in dynamodb has other keys than the store was told of")
        }
        _ => (ErrorKind::Other, "dynamodb answered with an error"),
    }
}

/// What the driver or the service calls it: a fixed word.
fn word<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> &str {
    match error.code() {
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

fn credentials<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Whether nothing provides credentials at all, for which the driver has no public type.
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

/// An answer that came in time lacks what was asked for, again and again.
pub(super) fn unprocessed() -> Error {
    Error::new(ErrorKind::Unavailable, "dynamodb left a part of the request undone: its capacity is used up")
}

pub(super) fn no_runtime() -> Error {
    Error::new(ErrorKind::Unavailable, "the tokio runtime has ended in which dynamodb was asked")
}

pub(super) fn strange() -> Error {
    Error::new(ErrorKind::Other, "dynamodb speaks of a condition that was not made")
}
