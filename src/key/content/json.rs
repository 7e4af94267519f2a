//! A JSON document (RFC 8259): its values, without how they are written.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::ignored::{Step, follow};
use super::{Ignored, put, put_count};

/// Arrays and objects within each other, at most.
const DEEPEST: usize = 128;

/// Members sorted by name, strings by what they say, no white space. Numbers are compared by their text: `1` and `1.0`
/// are different to some readers, and two long numbers may differ where a float does not. `None`: not JSON, not UTF-8,
/// too deep, or an object has two members of one name, of which each reader takes another.
pub(super) fn canonical(content: &[u8], ignored: &Ignored) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    // Whether it is JSON at all. The reader below only takes apart what is.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let value = Reader { rest: text, ignored }.value(&ignored.paths(), DEEPEST)?;
    let mut canonical = Vec::with_capacity(content.len() * 2);
    value.put(&mut canonical);
    Some(canonical)
}

enum Value<'a> {
    /// A number, `true`, `false` or `null`.
    Plain(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    /// Sorted by name; `None` for members that do not count.
    Object(Vec<(Cow<'a, str>, Option<Value<'a>>)>),
}

impl Value<'_> {
    fn put(&self, canonical: &mut Vec<u8>) {
        match self {
            Self::Plain(text) => {
                canonical.push(b'p');
                put(canonical, text.as_bytes());
            }
            Self::Text(text) => {
                canonical.push(b't');
                put(canonical, text.as_bytes());
            }
            Self::Array(items) => {
                canonical.push(b'a');
                put_count(canonical, items.len());
                items.iter().for_each(|item| item.put(canonical));
            }
            Self::Object(members) => {
                let counting = || members.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                canonical.push(b'o');
                put_count(canonical, counting().count());
                for (name, value) in counting() {
                    put(canonical, name.as_bytes());
                    value.put(canonical);
                }
            }
        }
    }
}

impl Value<'_> {
    /// What counts of a member that is ignored: the persisted query in a GraphQL request's `extensions`.
    ///
    /// Where the request has no `query`, it is all that tells which query is meant; ignoring `extensions` for the sake of its
    /// client's name and tracing must not answer one query with another's result. A user who names it itself ignores it.
    fn counting_though_ignored(self, name: &str) -> Option<Self> {
        match self {
            Self::Object(mut members) if name == "extensions" => {
                members.retain(|(name, value)| name == "persistedQuery" && value.is_some());
                (!members.is_empty()).then_some(Self::Object(members))
            }
            _ => None,
        }
    }
}

/// Takes apart a text that is known to be JSON.
struct Reader<'a, 'i> {
    rest: &'a str,
    ignored: &'i Ignored,
}

impl<'a> Reader<'a, '_> {
    /// The next value. `paths` are those ignored ones that lead here; `depth` is how much deeper it may go.
    fn value(&mut self, paths: &[&[Step]], depth: usize) -> Option<Value<'a>> {
        match self.peek()? {
            b'"' => self.text().map(Value::Text),
            b'[' => self.array(paths, depth.checked_sub(1)?),
            b'{' => self.object(paths, depth.checked_sub(1)?),
            _ => {
                let ends = |byte: u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
                let end = self.rest.bytes().position(ends).unwrap_or(self.rest.len());
                self.take(end).map(Value::Plain)
            }
        }
    }

    fn array(&mut self, paths: &[&[Step]], depth: usize) -> Option<Value<'a>> {
        let paths = follow(paths, None);
        let counts = !paths.iter().any(|path| path.is_empty());
        let mut items = Vec::new();
        self.take(1)?;
        while self.peek()? != b']' {
            let item = self.value(&paths, depth)?;
            if counts {
                items.push(item);
            }
            self.pass_comma()?;
        }
        self.take(1)?;
        Some(Value::Array(items))
    }

    fn object(&mut self, paths: &[&[Step]], depth: usize) -> Option<Value<'a>> {
        let mut members = Vec::new();
        self.take(1)?;
        while self.peek()? != b'}' {
            let name = self.text()?;
            if self.peek()? != b':' {
                return None;
            }
            self.take(1)?;
            let paths = follow(paths, Some(&name));
            let value = self.value(&paths, depth)?;
            let counts = !self.ignored.names(name.as_bytes()) && !paths.iter().any(|path| path.is_empty());
            let value = if counts { Some(value) } else { value.counting_though_ignored(&name) };
            members.push((name, value));
            self.pass_comma()?;
        }
        self.take(1)?;
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let doubled = members.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other));
        if doubled { None } else { Some(Value::Object(members)) }
    }

    fn text(&mut self) -> Option<Cow<'a, str>> {
        if self.peek()? != b'"' {
            return None;
        }
        let mut escaped = false;
        let end = self.rest.bytes().skip(1).position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        let quoted = self.take(end + 2)?;
        let inside = quoted.get(1..end + 1)?;
        if !inside.contains('\\') {
            return Some(Cow::Borrowed(inside));
        }
        // Half of a surrogate pair is no character, though it is JSON.
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    }

    /// The first byte after white space.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.bytes().next()
    }

    fn take(&mut self, len: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn pass_comma(&mut self) -> Option<()> {
        if self.peek()? == b',' {
            self.take(1)?;
        }
        Some(())
    }
}
