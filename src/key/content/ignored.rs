//! The fields of a request's content that do not identify it, as users name them.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};

/// The fields that do not identify a request.
///
/// A plain name (`token`) is ignored at every depth of a JSON document, inside arrays too, and as the name of
/// a form field. A path (`auth.token`) is ignored only at this place, counted from the root of a JSON
/// document, and nowhere in a form. The step `*` of a path stands for any member and for any item of an
/// array: `items.*.id`. A dot, an asterisk or a backslash that belongs to a name is escaped by a backslash:
/// `a\.b`.
#[derive(Clone, Debug, Default)]
pub(crate) struct IgnoredFields {
    names: BTreeSet<String>,
    paths: Vec<Box<[Step]>>,
}

/// One step into a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Member(String),
    Any,
}

impl IgnoredFields {
    #[cfg(test)]
    pub(crate) fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut ignored = Self::default();
        ignored.add(texts)?;
        Ok(ignored)
    }

    /// Adds names and paths as users write them.
    ///
    /// # Errors
    /// Returns [`Config`](ErrorKind::Config) if a text is empty, has an empty step, is an asterisk alone, or
    /// has a backslash that is not followed by a dot, an asterisk or a backslash.
    pub(crate) fn add<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> Result<()> {
        for text in texts {
            let mut steps = steps(text.as_ref())?;
            if steps.len() > 1 {
                self.paths.push(steps.into());
                continue;
            }
            match steps.pop() {
                Some(Step::Member(name)) => self.names.insert(name),
                _ => {
                    return Err(malformed(
                        "ignored field: `*` alone would ignore all content: use a name or a path",
                    ));
                }
            };
        }
        Ok(())
    }

    /// Returns whether fields of this name are ignored at every place.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.names.contains(name))
    }

    /// Returns the paths, which begin at the root of a document.
    pub(super) fn paths(&self) -> Vec<&[Step]> {
        self.paths.iter().map(|path| &**path).collect()
    }
}

/// Returns the rest of the paths that lead into a member.
///
/// Without a name, into an item of an array.
///
/// An empty rest means that the member or the item is itself ignored.
pub(super) fn follow<'a>(paths: &[&'a [Step]], member: Option<&str>) -> Vec<&'a [Step]> {
    let matches = |step: &Step| match step {
        Step::Any => true,
        Step::Member(name) => member == Some(name),
    };
    paths
        .iter()
        .filter_map(|path| path.split_first())
        .filter(|(step, _)| matches(step))
        .map(|(_, rest)| rest)
        .collect()
}

/// Parses a name or a path.
fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut name = String::new();
    let mut is_any = false;
    let mut chars = text.chars();
    loop {
        match chars.next() {
            Some('\\') => match chars.next() {
                Some(escaped @ ('.' | '*' | '\\')) => name.push(escaped),
                _ => {
                    return Err(malformed(
                        "ignored field: a backslash must be followed by a dot, an asterisk or a backslash",
                    ));
                }
            },
            Some('*') if name.is_empty() && !is_any => is_any = true,
            Some('*') => {
                return Err(malformed(
                    "ignored field: an asterisk must be a whole step: write `\\*` for one in a name",
                ));
            }
            end @ (Some('.') | None) => {
                match (is_any, name.is_empty()) {
                    (true, true) => steps.push(Step::Any),
                    (false, false) => steps.push(Step::Member(std::mem::take(&mut name))),
                    (false, true) => return Err(malformed("ignored field: a name or a step is empty")),
                    (true, false) => {
                        return Err(malformed("ignored field: an asterisk must be a whole step"));
                    }
                }
                is_any = false;
                if end.is_none() {
                    return Ok(steps);
                }
            }
            Some(plain) => name.push(plain),
        }
    }
}

fn malformed(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}
