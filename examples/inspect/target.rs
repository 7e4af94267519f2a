//! Opens a storage without creating it and without evicting from it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tower_response_cache::storage::sqlite::rusqlite::OpenFlags;
use tower_response_cache::storage::{BoxStorage, Key, SqliteStorage, SqliteStorageBuilder, Storage, connect};
use tower_response_cache::{CacheHandle, CacheLayer, Error, ErrorKind};

use crate::address::{is_address, redacted};
use crate::arguments::CacheIdentity;
use crate::exit::Failure;

/// How long a storage may take for its first answer.
///
/// Longer than a storage's own limits (1 second to connect, 10 to answer), because its own error says more than this one.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The options of an address with `tiered+` that are not those of the storage behind it.
const TIERED_OPTIONS: [&str; 4] = ["near", "max_lag", "serve_while_far_is_down", "far_timeout"];

/// The purpose for which a storage is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The storage has to exist, and does not change.
    Read,
    /// The storage has to exist.
    Write,
    /// The storage is created if it does not exist.
    Create,
}

/// An open storage, with the handle of a cache over it.
pub struct Target {
    pub handle: CacheHandle<BoxStorage>,
    pub storage: BoxStorage,
    /// The redacted address, for messages.
    pub address: String,
    /// Whether the handle sees the responses of one cache only.
    pub is_own: bool,
}

impl Target {
    pub async fn open(address: &str, access: Access, identity: &CacheIdentity) -> Result<Self, Failure> {
        let redacted = redacted(address);
        let secret = match &identity.key_secret_file {
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                Failure::Refused(format!("cannot read the key secret from {}: {error}", path.display()))
            })?),
            None => None,
        };
        let storage = open(address, access).await?;
        let failed = |error: &Error| Failure::storage("reach", &redacted, error);
        // A cache works on without a storage that is down; this program cannot.
        match tokio::time::timeout(FIRST_ANSWER_TIMEOUT, storage.contains(Key::head([0; 16]))).await {
            Ok(answer) => answer.map(drop).map_err(|error| failed(&error))?,
            Err(_) => return Err(failed(&Error::new(ErrorKind::Timeout, "it does not answer in time"))),
        }
        let is_own = identity.partition.is_some() || secret.is_some();
        let mut builder = CacheLayer::builder(storage.clone());
        if let Some(name) = &identity.partition {
            builder = builder.partition(name);
        }
        if let Some(secret) = secret {
            builder = builder.key_secret(secret);
        }
        let layer = builder.build().map_err(|error| Failure::storage("use", &redacted, &error))?;
        let handle = layer.handle().across_partitions(!is_own);
        Ok(Self { handle, storage, address: redacted, is_own })
    }

    /// Returns a function that turns an error of this action into a failure.
    pub fn failed(&self, action: &str) -> impl Fn(Error) -> Failure + use<'_> {
        let action = action.to_owned();
        move |error| Failure::storage(&action, &self.address, &error)
    }
}

/// Returns the address, with its scheme in lower case, of what may be a plain path.
fn full_address(text: &str) -> String {
    match text.split_once(':').filter(|_| is_address(text)) {
        Some((scheme, rest)) => {
            let address = format!("{}:{rest}", scheme.to_ascii_lowercase());
            // The copies in memory belong to another process.
            match address.strip_prefix("tiered+") {
                Some(far) => {
                    TIERED_OPTIONS.iter().fold(far.to_owned(), |far, name| without_option(&far, name))
                }
                None => address,
            }
        }
        // A plain path may contain characters that have a meaning in an address.
        None => format!("sqlite:{}", text.replace('%', "%25").replace('?', "%3F")),
    }
}

/// Opens the SQLite file at an address, and returns it with its redacted address.
///
/// Returns `None` if the address is that of another storage.
pub async fn open_sqlite(address: &str) -> Result<Option<(SqliteStorage, String)>, Failure> {
    let address = full_address(address);
    let redacted = redacted(&address);
    let Some(rest) = address.strip_prefix("sqlite:") else { return Ok(None) };
    let (path, options) = split_options(rest);
    let opened = match has_option(options, "use_temp") {
        true => Err(Error::new(ErrorKind::Config, "give the path in place of the option use_temp")),
        false => match check_sqlite(&path, options) {
            // The options do not matter for the file.
            Ok(()) => sqlite_builder(&path, Access::Write).open().await,
            Err(error) => Err(error),
        },
    };
    opened
        .map(|storage| Some((storage, redacted.clone())))
        .map_err(|error| Failure::storage("open", &redacted, &error))
}

async fn open(address: &str, access: Access) -> Result<BoxStorage, Failure> {
    let address = full_address(address);
    let redacted = redacted(&address);
    let opened = match address.split_once(':') {
        Some(("memory", _)) => {
            let line = "a storage in memory exists in its own process only: it cannot be inspected from here";
            return Err(Failure::Refused(line.to_owned()));
        }
        Some(("sqlite", rest)) => sqlite(rest, access).await,
        Some(("directory", rest)) => directory(rest, access).await,
        // Only a copy may create its table.
        Some(("dynamodb", _)) if access != Access::Create => {
            connect(&without_option(&address, "create_if_missing")).await
        }
        _ => connect(&address).await,
    };
    opened.map_err(|error| Failure::storage("open", &redacted, &error))
}

async fn sqlite(rest: &str, access: Access) -> Result<BoxStorage, Error> {
    let (path, options) = split_options(rest);
    if path == ":memory:" {
        return Err(Error::new(ErrorKind::Config, "a database in memory exists in its own process only"));
    }
    let is_uri = path.starts_with("file:");
    if access != Access::Create {
        check_sqlite(&path, options)?;
    }
    if !options.is_empty() {
        if is_uri && access != Access::Create {
            return Err(Error::new(ErrorKind::Config, "a file: URI takes no options here"));
        }
        let unbounded = option_unless(options, &["max_bytes"], &format!("max_bytes={}", u64::MAX));
        return connect(&format!("sqlite:{rest}{unbounded}")).await;
    }
    sqlite_builder(&path, access).open().await.map(BoxStorage::new)
}

/// Checks that the file of a database exists.
fn check_sqlite(path: &str, options: &str) -> Result<(), Error> {
    // SQLite itself reads a `file:` URI, and without options creates no file with the flags of the builder.
    if path.starts_with("file:") {
        return Ok(());
    }
    let in_temporary = has_option(options, "use_temp").then(|| std::env::temp_dir().join(path));
    let file = in_temporary.unwrap_or_else(|| expanded(path));
    match std::fs::metadata(&file) {
        Ok(data) if data.is_file() && data.len() == 0 => {
            Err(Error::new(ErrorKind::Config, "the file is empty, and not a database"))
        }
        Ok(data) if data.is_dir() => {
            Err(Error::new(ErrorKind::Config, "the path is a directory: use directory://PATH"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::Config, "the file cannot be found").with_source(error)),
    }
}

fn sqlite_builder(path: &str, access: Access) -> SqliteStorageBuilder {
    let builder = SqliteStorage::builder(path.to_owned()).max_bytes(u64::MAX);
    // The storage's default flags, without those for writing and creating.
    let flags = OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match access {
        Access::Read => builder.open_flags(flags | OpenFlags::SQLITE_OPEN_READ_ONLY),
        Access::Write => builder.open_flags(flags | OpenFlags::SQLITE_OPEN_READ_WRITE),
        Access::Create => builder,
    }
}

async fn directory(rest: &str, access: Access) -> Result<BoxStorage, Error> {
    let (path, options) = split_options(rest);
    let missing = (access != Access::Create).then(|| std::fs::read_dir(expanded(&path)).err()).flatten();
    if let Some(error) = missing {
        return Err(Error::new(ErrorKind::Config, "the directory cannot be read").with_source(error));
    }
    connect(&format!("directory:{rest}{}", option_unless(options, &["max_bytes", "unbounded"], "unbounded")))
        .await
}

/// Splits what follows a scheme into the decoded path, and the options.
fn split_options(rest: &str) -> (Cow<'_, str>, &str) {
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    (percent_decode_str(place.strip_prefix("//").unwrap_or(place)).decode_utf8_lossy(), options)
}

/// Expands `~/` as the storages do.
fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), dirs::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => Path::new(path).to_owned(),
    }
}

/// Returns whether the options contain one of this name.
fn has_option(options: &str, name: &str) -> bool {
    options.split('&').any(|option| option.split('=').next() == Some(name))
}

/// Returns an option to append, or nothing if one of these names is given.
///
/// A storage is bounded by the cache that fills it, and this program does not know that bound: its own, if smaller, would
/// evict entries.
fn option_unless(options: &str, any: &[&str], option: &str) -> String {
    if any.iter().any(|name| has_option(options, name)) {
        return String::new();
    }
    format!("{}{option}", if options.is_empty() { "?" } else { "&" })
}

/// Removes an option from an address.
fn without_option(address: &str, name: &str) -> String {
    let Some((place, options)) = address.split_once('?') else { return address.to_owned() };
    let kept: Vec<_> = options.split('&').filter(|option| option.split('=').next() != Some(name)).collect();
    if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) }
}
