//! The command line.

use http::Uri;

pub const USAGE: &str = "\
usage: quickstart [--store STORE] [--fresh] [URL …]

  --store STORE  where responses are kept: the path of a SQLite file, memory, or an address such as
                 redis://localhost/0?cache_name=app (needs the feature redis);
                 default: tower-response-cache/quickstart.sqlite in the user's cache directory
  --fresh        empty the store first
  URL            http or https; default: this repository's own files, from a local server";

pub struct Arguments {
    pub store: String,
    pub fresh: bool,
    pub urls: Vec<Uri>,
}

impl Arguments {
    /// `None`: help was asked for.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut store, mut fresh, mut urls) = (None, false, Vec::new());
        let mut words = words;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--fresh" => fresh = true,
                "--store" => store = Some(words.next().ok_or("--store needs a path or an address")?),
                option if option.starts_with("--store=") => {
                    store = Some(option["--store=".len()..].to_owned())
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}; see --help"));
                }
                url => urls.push(parse_url(url)?),
            }
        }
        let store = match store {
            Some(store) if store.is_empty() => return Err("--store needs a path or an address".to_owned()),
            Some(store) => store,
            None => dirs::cache_dir()
                .and_then(|folder| {
                    folder.join("tower-response-cache/quickstart.sqlite").to_str().map(str::to_owned)
                })
                .ok_or("this platform names no cache directory: give --store PATH")?,
        };
        Ok(Some(Self { store, fresh, urls }))
    }
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{text} is not a URL: {error}"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(_)) => Ok(url),
        _ => Err(format!("{text} is not an http or https URL")),
    }
}
