//! A store's address as text: `scheme:place?name=value&…`.
//!
//! Promises: what is not understood is an error that names the option; no value is ever repeated, since it may be secret.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// An address taken apart. The place is as it was written.
pub(crate) struct Address<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) place: &'a str,
    pub(crate) options: Options,
}

impl<'a> Address<'a> {
    /// `None`: the text does not begin with a scheme.
    pub(crate) fn parse(text: &'a str) -> Option<Result<Self>> {
        let (scheme, rest) = text.split_once(':')?;
        // Shorter ones are a drive's letter.
        let is_scheme = scheme.len() > 1
            && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        is_scheme.then(|| {
            let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
            Ok(Self { scheme, place, options: Options::parse(query)? })
        })
    }
}

/// The options behind the question mark, each taken by whom it is meant for.
#[derive(Debug, Default)]
pub(crate) struct Options(Vec<(String, String)>);

impl Options {
    fn parse(query: &str) -> Result<Self> {
        let mut options: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?.into_owned(), decode(value)?.into_owned());
            if options.iter().any(|(other, _)| *other == name) {
                return Err(config(format!("the option {} is there twice", shown(&name))));
            }
            options.push((name, value));
        }
        Ok(Self(options))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let parse =
            |value: String| value.parse().map_err(|_| config(format!("the option {name} must be a number")));
        self.take(name).map(parse).transpose()
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let parse = |value: String| match value.as_str() {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(config(format!("the option {name} must be true or false"))),
        };
        self.take(name).map(parse).transpose()
    }

    /// Seconds, also parts of one.
    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<Duration>> {
        let bad = || config(format!("the option {name} must be a number of seconds above zero"));
        let parse = |value: String| {
            let seconds = value.parse().map_err(|_| bad())?;
            Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero()).ok_or_else(bad)
        };
        self.take(name).map(parse).transpose()
    }

    /// An error for what nobody took.
    pub(crate) fn finish(self, known: &str) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(config(format!("this store has no option {}: it has {known}", shown(name))))
            }
        }
    }
}

/// The text behind its percent escapes.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| config("the store's address has escapes that are not UTF-8"))
}

pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// A name as it may stand in a message: somebody may have put a secret where a name belongs.
fn shown(name: &str) -> &str {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    if name.len() <= 24 && !name.is_empty() && name.chars().all(plain) { name } else { "of that name" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Options {
        Options::parse(query).unwrap()
    }

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::parse("redis+cluster://a:1,b:2/0?cache_name=a%20b&x").unwrap().unwrap();
        assert_eq!((address.scheme, address.place), ("redis+cluster", "//a:1,b:2/0"));
        let mut options = address.options;
        assert_eq!(options.take("cache_name").unwrap(), "a b");
        assert_eq!(options.take("x").unwrap(), "");
        options.finish("none").unwrap();
        for text in ["plain/path", "c:/file", "1a:b", "", ":x"] {
            assert!(Address::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn values_are_checked_and_never_repeated() {
        assert_eq!(options("n=12").number::<u64>("n").unwrap(), Some(12));
        assert_eq!(options("t=0.25").seconds("t").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(options("f").flag("f").unwrap(), Some(true));
        assert_eq!(options("").number::<u64>("n").unwrap(), None);
        let errors = [
            options("n=secret").number::<u64>("n").map(drop),
            options("n=-1").number::<u64>("n").map(drop),
            options("t=secret").seconds("t").map(drop),
            options("t=0").seconds("t").map(drop),
            options("t=-1").seconds("t").map(drop),
            options("t=nan").seconds("t").map(drop),
            options("t=1e300").seconds("t").map(drop),
            options("f=secret").flag("f").map(drop),
            options("secret_Secret=1").finish("n"),
            Options::parse("a=secret&a=1").map(drop),
            Options::parse("a=%ffsecret").map(drop),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains("ecret"), "{error}");
        }
        let unknown = options("cache_size=1").finish("max_bytes").unwrap_err().to_string();
        assert_eq!(unknown, "this store has no option cache_size: it has max_bytes");
    }
}
