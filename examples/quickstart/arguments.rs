//! The command line.

use http::Uri;

pub const USAGE: &str = "\
usage: quickstart [--storage STORAGE] [--fresh] [URL …]

Fetches each URL three times through the cache, and prints where each response
came from.

  --storage STORAGE  where responses are stored: the path of a SQLite file,
                     memory, or an address such as
                     redis://localhost/0?cache_name=app (needs the feature
                     redis); default: tower-response-cache/quickstart.sqlite in
                     the user's cache directory
  --fresh            clears the storage first
  URL                an http or https URL; default: files of this repository,
                     served by a local server";

pub struct Arguments {
    pub storage: String,
    pub fresh: bool,
    pub urls: Vec<Uri>,
}

impl Arguments {
    /// Parses the command line, or returns `None` if it asks for help.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut storage, mut fresh, mut urls) = (None, false, Vec::new());
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--fresh" => fresh = true,
                "--storage" | "--store" => storage = Some(words.next().unwrap_or_default()),
                option if option.starts_with("--storage=") => {
                    storage = Some(option["--storage=".len()..].to_owned());
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}; see --help"));
                }
                url => urls.push(parse_url(url)?),
            }
        }
        let storage = match storage {
            Some(storage) if storage.is_empty() => {
                return Err("--storage needs a path or an address".to_owned());
            }
            Some(storage) => storage,
            None => dirs::cache_dir()
                .and_then(|folder| {
                    folder.join("tower-response-cache/quickstart.sqlite").to_str().map(str::to_owned)
                })
                .ok_or("this platform has no cache directory: name a file with --storage PATH")?,
        };
        Ok(Some(Self { storage, fresh, urls }))
    }
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{text} is not a URL: {error}"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(_)) => Ok(url),
        _ => Err(format!("{text} is not an http or https URL")),
    }
}
