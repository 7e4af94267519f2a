//! Fields of a request's content that do not tell it apart, as users name them.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};

/// Fields that do not count.
///
/// A plain name (`token`) is ignored at every depth of a JSON document, also inside arrays, and as the name of a field
/// of a form. A path (`auth.token`) is ignored there only, from the root of a JSON document, and nowhere in a form.
/// A step `*` of a path is any member, or any item of an array: `items.*.id`. A dot, star or backslash that belongs to
/// a name is written with a backslash: `a\.b`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignored {
    names: BTreeSet<String>,
    paths: Vec<Box<[Step]>>,
}

/// One step into a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Member(String),
    Any,
}

impl Ignored {
    #[cfg(test)]
    pub(crate) fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut ignored = Self::default();
        ignored.add(texts)?;
        Ok(ignored)
    }

    /// Adds users' texts.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if one is empty, has an empty step, is nothing but a star, or has a backslash
    /// before anything but a dot, a star or a backslash.
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
                        "ignored field: a lone `*` would ignore all content; expected a name",
                    ));
                }
            };
        }
        Ok(())
    }

    /// Whether fields of this name are ignored wherever they are.
    pub(super) fn names(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.names.contains(name))
    }

    /// The paths, to be followed from the root of a document.
    pub(super) fn paths(&self) -> Vec<&[Step]> {
        self.paths.iter().map(|path| &**path).collect()
    }
}

/// What is left of those paths that go this way: into the member of this name, or into an array's item. An empty rest
/// means that this is what is ignored.
pub(super) fn follow<'a>(paths: &[&'a [Step]], member: Option<&str>) -> Vec<&'a [Step]> {
    let goes = |step: &Step| match step {
        Step::Any => true,
        Step::Member(name) => member == Some(name),
    };
    paths
        .iter()
        .filter_map(|path| path.split_first())
        .filter(|(step, _)| goes(step))
        .map(|(_, rest)| rest)
        .collect()
}

fn steps(text: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut name = String::new();
    let mut is_any = false;
    let mut letters = text.chars();
    loop {
        match letters.next() {
            Some('\\') => match letters.next() {
                Some(letter @ ('.' | '*' | '\\')) => name.push(letter),
                _ => {
                    return Err(malformed(
                        "ignored field: a backslash stands before a dot, a star or a backslash only",
                    ));
                }
            },
            Some('*') if name.is_empty() && !is_any => is_any = true,
            Some('*') => {
                return Err(malformed(
                    "ignored field: a star is a whole step; in a name it is written `\\*`",
                ));
            }
            end @ (Some('.') | None) => {
                match (is_any, name.is_empty()) {
                    (true, true) => steps.push(Step::Any),
                    (false, false) => steps.push(Step::Member(std::mem::take(&mut name))),
                    (false, true) => return Err(malformed("ignored field: empty, or with an empty step")),
                    (true, false) => return Err(malformed("ignored field: a star is a whole step")),
                }
                is_any = false;
                if end.is_none() {
                    return Ok(steps);
                }
            }
            Some(letter) => name.push(letter),
        }
    }
}

fn malformed(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}
