//! Opening the store, as one who must not make it nor change its bounds.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tower_response_cache::storage::sqlite::rusqlite::OpenFlags;
use tower_response_cache::storage::{BoxStorage, Key, SqliteStorage, Storage, connect};
use tower_response_cache::{CacheHandle, CacheLayer, Error, ErrorKind};

use crate::arguments::Sight;
use crate::end::Failure;
use crate::store::{is_address, shown};

/// For a store to answer the first question.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It must be there, and stays as it is.
    Look,
    /// It must be there.
    Change,
    /// It is made if it is not there.
    Make,
}

/// A store with the cache that looks into it.
pub struct Target {
    pub handle: CacheHandle<BoxStorage>,
    pub storage: BoxStorage,
    /// The address as it may be printed.
    pub place: String,
    /// Whether only one cache's own is looked at.
    pub is_own: bool,
}

impl Target {
    pub async fn open(address: &str, access: Access, sight: &Sight) -> Result<Self, Failure> {
        let place = shown(address);
        let secret = match &sight.secret_file {
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                Failure::Refused(format!("cannot read the secret from {}: {error}", path.display()))
            })?),
            None => None,
        };
        let storage = open(address, access).await?;
        let failed = |error: &Error| Failure::store("reach", &place, error);
        // A cache goes on without a store that is down; here a person wants to know.
        match tokio::time::timeout(PATIENCE, storage.contains(Key::head([0; 16]))).await {
            Ok(answer) => answer.map(drop).map_err(|error| failed(&error))?,
            Err(_) => return Err(failed(&Error::new(ErrorKind::Timeout, "it does not answer"))),
        }
        let is_own = sight.partition.is_some() || secret.is_some();
        let mut builder = CacheLayer::builder(storage.clone());
        if let Some(name) = &sight.partition {
            builder = builder.partition(name);
        }
        if let Some(secret) = secret {
            builder = builder.key_secret(secret);
        }
        let layer = builder.build().map_err(|error| Failure::store("use", &place, &error))?;
        let handle = if is_own { layer.handle() } else { layer.handle().across_partitions(true) };
        Ok(Self { handle, storage, place, is_own })
    }

    /// What the store answered while somebody wanted this of it.
    pub fn failed(&self, wanted: &str) -> impl Fn(Error) -> Failure + use<'_> {
        let wanted = wanted.to_owned();
        move |error| Failure::store(&wanted, &self.place, &error)
    }
}

async fn open(address: &str, access: Access) -> Result<BoxStorage, Failure> {
    let address: Cow<'_, str> = if is_address(address) {
        address.into()
    } else {
        // What has a meaning in an address is part of a path's name here.
        let escaped = address.replace('%', "%25").replace('?', "%3F");
        format!("sqlite:{escaped}").into()
    };
    let place = shown(&address);
    let opened = match address.split_once(':') {
        Some(("memory", _)) => {
            let line = "memory: is a process's own: there is nothing that another one could look at";
            return Err(Failure::Refused(line.to_owned()));
        }
        Some(("sqlite", rest)) => sqlite(rest, access).await,
        Some(("directory", rest)) => directory(rest, access).await,
        // Whoever looks makes no table.
        Some(("dynamodb", _)) if access != Access::Make => {
            connect(&without(&address, "create_if_missing")).await
        }
        _ => connect(&address).await,
    };
    opened.map_err(|error| Failure::store("open", &place, &error))
}

async fn sqlite(rest: &str, access: Access) -> Result<BoxStorage, Error> {
    let (path, options) = parts(rest);
    if path == ":memory:" {
        return Err(Error::new(ErrorKind::Config, "a store in memory is a process's own"));
    }
    let is_uri = path.starts_with("file:");
    if access != Access::Make && !is_uri {
        let in_temporary = names(options, "use_temp").then(|| std::env::temp_dir().join(&*path));
        let file = in_temporary.unwrap_or_else(|| expanded(&path));
        match std::fs::metadata(&file) {
            Ok(data) if data.is_file() && data.len() == 0 => {
                return Err(Error::new(ErrorKind::Config, "the file is empty"));
            }
            Ok(data) if data.is_dir() => {
                return Err(Error::new(ErrorKind::Config, "it is a directory: write directory://PATH"));
            }
            Ok(_) => {}
            Err(error) => {
                return Err(Error::new(ErrorKind::Config, "the file is not there").with_source(error));
            }
        }
    }
    if !options.is_empty() {
        if is_uri && access != Access::Make {
            return Err(Error::new(ErrorKind::Config, "a file: URI takes no options here"));
        }
        return connect(&format!(
            "sqlite:{rest}{}",
            unless(options, &["max_bytes"], "max_bytes=9000000000000000000")
        ))
        .await;
    }
    let mut builder = SqliteStorage::builder(path.into_owned()).max_bytes(u64::MAX);
    let own = OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match access {
        Access::Look => builder = builder.open_flags(own | OpenFlags::SQLITE_OPEN_READ_ONLY),
        Access::Change => builder = builder.open_flags(own | OpenFlags::SQLITE_OPEN_READ_WRITE),
        Access::Make => {}
    }
    builder.open().await.map(BoxStorage::new)
}

async fn directory(rest: &str, access: Access) -> Result<BoxStorage, Error> {
    let (path, options) = parts(rest);
    let missing = (access != Access::Make).then(|| std::fs::read_dir(expanded(&path)).err()).flatten();
    if let Some(error) = missing {
        return Err(Error::new(ErrorKind::Config, "the directory cannot be read").with_source(error));
    }
    connect(&format!("directory:{rest}{}", unless(options, &["max_bytes", "unbounded"], "unbounded"))).await
}

/// The path behind a scheme, and the options behind the question mark.
fn parts(rest: &str) -> (Cow<'_, str>, &str) {
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    (percent_decode_str(place.strip_prefix("//").unwrap_or(place)).decode_utf8_lossy(), options)
}

fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), dirs::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => Path::new(path).to_owned(),
    }
}

fn names(options: &str, name: &str) -> bool {
    options.split('&').any(|option| option.split('=').next() == Some(name))
}

/// An option to append, unless one of these is there. The bound of a store is for those who fill it: a small one of ours
/// would evict what they keep.
fn unless(options: &str, any: &[&str], option: &str) -> String {
    if any.iter().any(|name| names(options, name)) {
        return String::new();
    }
    format!("{}{option}", if options.is_empty() { "?" } else { "&" })
}

fn without(address: &str, name: &str) -> String {
    let Some((place, options)) = address.split_once('?') else { return address.to_owned() };
    let kept: Vec<_> = options.split('&').filter(|option| option.split('=').next() != Some(name)).collect();
    format!("{place}?{}", kept.join("&"))
}
