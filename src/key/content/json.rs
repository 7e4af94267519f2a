//! JSON documents (RFC 8259), compared by their values.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::ignored::{Step, follow};
use super::{IgnoredFields, push_count, push_piece};

/// The deepest nesting of arrays and objects that is taken apart, since it recurses. It is also serde_json's
/// own limit.
const MAX_DEPTH: usize = 128;

/// Returns the values of a document, without the ignored ones.
///
/// Members are sorted by name, strings are unescaped, and white space is left out. Numbers are compared by
/// their text: some parsers distinguish `1` from `1.0`, and two long numbers may differ although their floats
/// are equal.
///
/// A document is compared by its bytes if it is not JSON, not UTF-8, too deep, or has an object with two
/// members of one name, of which some parsers use the first and some the last.
pub(super) fn canonical(content: &[u8], ignored: &IgnoredFields) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    // Checks the syntax. The reader below relies on it.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let value = Reader { rest: text, ignored }.value(&ignored.paths(), MAX_DEPTH)?;
    let mut canonical = Vec::with_capacity(content.len() * 2);
    value.push_to(&mut canonical);
    Some(canonical)
}

enum Value<'a> {
    /// A number, `true`, `false` or `null`.
    Plain(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    /// Sorted by name. `None` stands for an ignored member, which is kept to detect a second one of its name.
    Object(Vec<(Cow<'a, str>, Option<Value<'a>>)>),
}

impl Value<'_> {
    fn push_to(&self, canonical: &mut Vec<u8>) {
        match self {
            Self::Plain(text) => {
                canonical.push(b'p');
                push_piece(canonical, text.as_bytes());
            }
            Self::Text(text) => {
                canonical.push(b't');
                push_piece(canonical, text.as_bytes());
            }
            Self::Array(items) => {
                canonical.push(b'a');
                push_count(canonical, items.len());
                items.iter().for_each(|item| item.push_to(canonical));
            }
            Self::Object(members) => {
                let counting = || members.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                canonical.push(b'o');
                push_count(canonical, counting().count());
                for (name, value) in counting() {
                    push_piece(canonical, name.as_bytes());
                    value.push_to(canonical);
                }
            }
        }
    }
}

impl Value<'_> {
    /// Returns the part of an ignored member that still counts.
    ///
    /// This is the persisted query in the `extensions` of a GraphQL request.
    ///
    /// In a request without `query`, only the persisted query says which query is meant. A user who ignores
    /// `extensions` for the name of the client and the tracing in it must not get the result of another
    /// query. A user who names `persistedQuery` itself ignores it.
    fn persisted_query(self, name: &str) -> Option<Self> {
        match self {
            Self::Object(mut members) if name == "extensions" => {
                members.retain(|(name, value)| name == "persistedQuery" && value.is_some());
                (!members.is_empty()).then_some(Self::Object(members))
            }
            _ => None,
        }
    }
}

/// A parser for text that is known to be JSON.
///
/// serde_json would lose the text of numbers and the second of two members of one name.
struct Reader<'a, 'i> {
    rest: &'a str,
    ignored: &'i IgnoredFields,
}

impl<'a> Reader<'a, '_> {
    /// Reads a value. `paths` are the rests of the ignored paths that lead here, `depth` the levels that may
    /// follow.
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
            self.skip_comma()?;
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
            let counts = !self.ignored.contains(name.as_bytes()) && !paths.iter().any(|path| path.is_empty());
            let value = if counts { Some(value) } else { value.persisted_query(&name) };
            members.push((name, value));
            self.skip_comma()?;
        }
        self.take(1)?;
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let has_duplicate =
            members.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other));
        if has_duplicate { None } else { Some(Value::Object(members)) }
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
        // Fails for half of a surrogate pair, which is valid JSON but not a character.
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    }

    /// Skips white space and returns the byte after it.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.bytes().next()
    }

    fn take(&mut self, len: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn skip_comma(&mut self) -> Option<()> {
        if self.peek()? == b',' {
            self.take(1)?;
        }
        Some(())
    }
}
