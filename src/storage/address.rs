//! The address of a storage as text, `scheme:location?name=value&…`.
//!
//! # Invariants
//! - An option that the storage does not have, or whose value is wrong, is an error that names the option.
//! - No error message repeats a value, because it may be a secret.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// The options that any address takes, beside those of its storage.
pub(super) const WRAPPER_OPTIONS: [&str; 2] = ["compress", "encrypt"];
/// The options of an address with `tiered+`.
pub(super) const TIERED_OPTIONS: [&str; 4] = ["near", "max_lag", "serve_while_far_is_down", "far_timeout"];

/// An address, parsed into its parts. The location is not percent-decoded.
pub(crate) struct Address<'a> {
    /// In lower case, as letter case does not matter (RFC 3986 §3.1).
    pub(crate) scheme: String,
    pub(crate) location: &'a str,
    pub(crate) options: Options,
}

impl<'a> Address<'a> {
    /// Parses an address. Returns `None` if the text does not begin with a scheme.
    pub(crate) fn parse(text: &'a str) -> Option<Result<Self>> {
        let (scheme, rest) = split_scheme(text)?;
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let scheme = scheme.to_ascii_lowercase();
        Some(Options::parse(query).map(|options| Self { scheme, location, options }))
    }
}

/// Splits an address at the colon after its scheme.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    // One letter is a drive on Windows, and the text is a path.
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

/// Returns an address with its scheme in lower case.
pub(super) fn with_lower_scheme(text: &str) -> Cow<'_, str> {
    match split_scheme(text) {
        Some((scheme, rest)) if scheme.contains(|c: char| c.is_ascii_uppercase()) => {
            format!("{}:{rest}", scheme.to_ascii_lowercase()).into()
        }
        _ => text.into(),
    }
}

/// The options after the question mark. The storage takes each that it knows, and refuses the address if one is left.
#[derive(Debug, Default)]
pub(crate) struct Options(Vec<(String, String)>);

impl Options {
    fn parse(query: &str) -> Result<Self> {
        let mut options: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?.into_owned(), decode(value)?.into_owned());
            if options.iter().any(|(other, _)| *other == name) {
                return Err(config(format!("the option {} is given twice", printable(&name))));
            }
            options.push((name, value));
        }
        Ok(Self(options))
    }

    /// Takes an option.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(at).1)
    }

    /// Takes an option whose value is a number.
    pub(crate) fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let parse =
            |value: String| value.parse().map_err(|_| config(format!("the option {name} must be a number")));
        self.take(name).map(parse).transpose()
    }

    /// Takes an option whose value is a size in bytes, with or without a unit: `1000000`, `64MiB`, `1.5GB`.
    pub(crate) fn size(&mut self, name: &str) -> Result<Option<u64>> {
        let invalid =
            || config(format!("the option {name} must be a size in bytes, such as 1000000, 64MiB or 1GB"));
        let parse = |value: String| {
            let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit: u64 = match &*value[digits.len()..].to_ascii_lowercase() {
                "" | "b" => 1,
                "kb" => 1000,
                "mb" => 1_000_000,
                "gb" => 1_000_000_000,
                "kib" => 1 << 10,
                "mib" => 1 << 20,
                "gib" => 1 << 30,
                _ => return Err(invalid()),
            };
            // A whole number is exact, also where a float is not.
            if let Ok(whole) = digits.parse::<u64>() {
                return whole.checked_mul(unit).ok_or_else(invalid);
            }
            let size: f64 = digits.parse::<f64>().map_err(|_| invalid())? * unit as f64;
            let is_size = size.is_finite() && size >= 0.0 && unit > 1;
            is_size.then_some(size as u64).ok_or_else(invalid)
        };
        self.take(name).map(parse).transpose()
    }

    /// Takes an option that is on or off. Without a value it is on.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let parse = |value: String| match value.as_str() {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(config(format!("the option {name} must be true or false"))),
        };
        self.take(name).map(parse).transpose()
    }

    /// Takes an option whose value is a time above zero, in seconds or with a unit: `1.5`, `250ms`, `10s`, `5m`, `1h`.
    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<Duration>> {
        match self.time(name)? {
            Some(Duration::ZERO) => Err(invalid_time(name, " above zero")),
            time => Ok(time),
        }
    }

    /// Takes an option whose value is a time, which may be zero.
    pub(crate) fn time(&mut self, name: &str) -> Result<Option<Duration>> {
        let parse = |value: String| {
            let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let (factor, divisor) = match &value[digits.len()..] {
                "" | "s" => (1.0, 1.0),
                "ms" => (1.0, 1000.0),
                "m" => (60.0, 1.0),
                "h" => (3600.0, 1.0),
                _ => return None,
            };
            Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * factor / divisor).ok()
        };
        let parse = |value| parse(value).ok_or_else(|| invalid_time(name, ""));
        self.take(name).map(parse).transpose()
    }

    /// Refuses an option that was not taken. `known` lists the options that the storage has.
    pub(crate) fn finish(self, known: &[&str]) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) if TIERED_OPTIONS.contains(&name.as_str()) => {
                Err(config(format!("the option {name} needs tiered+ before the address")))
            }
            Some((name, _)) => {
                let all = known.iter().chain(&WRAPPER_OPTIONS).chain(&TIERED_OPTIONS).copied();
                let guess =
                    nearest(name, all).map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
                let name = printable(name);
                Err(config(format!("this storage has no option {name}{guess}: it has {}", listed(known))))
            }
        }
    }
}

/// Lists names as a sentence does.
fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [name] => (*name).to_owned(),
        [names @ .., last] => format!("{} and {last}", names.join(", ")),
    }
}

/// Returns the name that a mistyped one was probably meant to be.
pub(super) fn nearest<'a>(mistyped: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Letter case and separators are what people forget first.
    let folded = |name: &str| -> Vec<u8> {
        name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase()).collect()
    };
    let mistyped = folded(mistyped);
    // The distance of a long text, which no name resembles, would take long to compute.
    if mistyped.len() > 40 {
        return None;
    }
    let distance = |name: &str| {
        let name = folded(name);
        // Two typos in a name of six letters leave it recognizable.
        Some(distance(&mistyped, &name)).filter(|distance| *distance <= 2 && distance * 3 <= name.len())
    };
    names
        .filter_map(|name| Some((distance(name)?, name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Returns how many letters to insert, remove or replace, or neighbours to swap, turn one text into the other.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut above: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, second) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != second);
            let mut least = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            let is_swap = row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *second;
            if is_swap {
                least = least.min(above[column - 1] + 1);
            }
            next.push(least);
        }
        above = std::mem::replace(&mut last, next);
    }
    last[other.len()]
}

/// Splits the options with these names off an address, and returns the rest of it unchanged.
///
/// The rest may be of a form that only its driver knows.
pub(crate) fn split_options(address: &str, names: &[&str]) -> Result<(String, Options)> {
    let Some((rest, query)) = address.split_once('?') else {
        return Ok((address.to_owned(), Options::default()));
    };
    let is_named = |pair: &&str| names.contains(&pair.split_once('=').map_or(*pair, |(name, _)| name));
    let (own, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_named);
    let mark = if others.is_empty() { "" } else { "?" };
    Ok((format!("{rest}{mark}{}", others.join("&")), Options::parse(&own.join("&"))?))
}

/// Creates the error of an option whose value is not a time.
fn invalid_time(name: &str, range: &str) -> Error {
    config(format!("the option {name} must be a time{range} in seconds, or with a unit: 250ms, 10s, 5m"))
}

/// Decodes the percent escapes of a text.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| config("the storage's address has percent escapes that are not UTF-8"))
}

/// Creates the error of a wrong setting.
pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Returns an option's name as a message may repeat it.
///
/// A user may have put a secret where the name belongs, so only a text that looks like an option's name is repeated.
fn printable(name: &str) -> &str {
    // The longest option has 21 letters.
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
    fn address_is_parsed_into_parts() {
        let address = Address::parse("redis+cluster://a:1,b:2/0?cache_name=a%20b&x").unwrap().unwrap();
        assert_eq!((&*address.scheme, address.location), ("redis+cluster", "//a:1,b:2/0"));
        let mut options = address.options;
        assert_eq!(options.take("cache_name").unwrap(), "a b");
        assert_eq!(options.take("x").unwrap(), "");
        options.finish(&[]).unwrap();
        assert_eq!(Address::parse("SQLite:A").unwrap().unwrap().scheme, "sqlite");
        assert_eq!(with_lower_scheme("Tiered+REDIS://U:P@Host/0?X=Y"), "tiered+redis://U:P@Host/0?X=Y");
        assert_eq!(with_lower_scheme("C:/File"), "C:/File");
        for text in ["plain/path", "c:/file", "1a:b", "", ":x"] {
            assert!(Address::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn options_are_split_off_and_the_rest_is_unchanged() {
        let names = ["near", "max_lag"];
        let (rest, mut options) = split_options("redis://a/0?x=%20&near=1&x=2&max_lag", &names).unwrap();
        assert_eq!(rest, "redis://a/0?x=%20&x=2");
        assert_eq!(
            (options.take("near").as_deref(), options.take("max_lag").as_deref()),
            (Some("1"), Some(""))
        );
        assert_eq!(split_options("memory:?near=1", &names).unwrap().0, "memory:");
        assert_eq!(split_options("memory:", &names).unwrap().0, "memory:");
        assert!(split_options("memory:?near=1&near=2", &names).is_err());
    }

    #[test]
    fn wrong_values_are_refused_and_not_repeated() {
        assert_eq!(options("n=12").number::<u64>("n").unwrap(), Some(12));
        assert_eq!(options("t=0.25").seconds("t").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(options("f").flag("f").unwrap(), Some(true));
        assert_eq!(options("").number::<u64>("n").unwrap(), None);
        assert_eq!(options("t=250ms").seconds("t").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(options("t=1.5h").seconds("t").unwrap(), Some(Duration::from_secs(5400)));
        assert_eq!(options("t=0").time("t").unwrap(), Some(Duration::ZERO));
        for (text, size) in [
            ("7", 7),
            ("64MiB", 64 << 20),
            ("1GB", 1_000_000_000),
            ("1gb", 1_000_000_000),
            ("1.5KiB", 1536),
            ("0", 0),
            ("3B", 3),
        ] {
            assert_eq!(options(&format!("n={text}")).size("n").unwrap(), Some(size), "{text}");
        }
        for text in ["secret", "1.5", "-1MB", "1 GB", "1XB", "99999999999GiB", "NaNMB", "infGB", ""] {
            assert!(options(&format!("n={text}")).size("n").is_err(), "{text}");
        }
        let errors = [
            options("n=secret").number::<u64>("n").map(drop),
            options("n=secret").size("n").map(drop),
            options("n=secretms").seconds("n").map(drop),
            options("n=-1").number::<u64>("n").map(drop),
            options("t=secret").seconds("t").map(drop),
            options("t=0").seconds("t").map(drop),
            options("t=-1").seconds("t").map(drop),
            options("t=nan").seconds("t").map(drop),
            options("t=1e300").seconds("t").map(drop),
            options("f=secret").flag("f").map(drop),
            options("secret_Secret=1").finish(&["n"]),
            Options::parse("a=secret&a=1").map(drop),
            Options::parse("a=%ffsecret").map(drop),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains("ecret"), "{error}");
        }
        let unknown = options("cache_size=1").finish(&["max_bytes"]).unwrap_err().to_string();
        assert_eq!(unknown, "this storage has no option cache_size: it has max_bytes");
    }

    #[test]
    fn mistyped_option_suggests_nearest() {
        let known = ["max_bytes", "readers", "fsync"];
        for (written, meant) in [
            ("max_byte", "max_bytes"),
            ("maxBytes", "max_bytes"),
            ("max-bytes", "max_bytes"),
            ("MAX_BYTES", "max_bytes"),
            ("amx_bytes", "max_bytes"),
            ("raeders", "readers"),
            ("fsnc", "fsync"),
            ("comprss", "compress"),
            ("max_lags", "max_lag"),
        ] {
            let error = options(&format!("{written}=secret")).finish(&known).unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean {meant}?")), "{written}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for far in ["size", "x", "", &"readers".repeat(100)] {
            let error = options(&format!("{far}=1")).finish(&known).unwrap_err().to_string();
            assert!(!error.contains("did you mean"), "{far}: {error}");
        }
        let error = options("near=64MiB").finish(&known).unwrap_err().to_string();
        assert_eq!(error, "the option near needs tiered+ before the address");
    }
}
