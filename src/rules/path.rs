//! Patterns of paths: whole segments, and `**` for any number of them.

use crate::error::Result;

use super::glob::Glob;

#[derive(Clone, Debug)]
pub(super) struct PathPattern(Box<[Segment]>);

#[derive(Clone, Debug)]
enum Segment {
    /// Any number of segments, also none.
    Any,
    One(Glob),
}

impl PathPattern {
    /// `path` is what follows the first slash.
    pub(super) fn new(path: &str) -> Result<Self> {
        let segment = |text| if text == "**" { Ok(Segment::Any) } else { Glob::new(text).map(Segment::One) };
        Ok(Self(path.split('/').map(segment).collect::<Result<_>>()?))
    }

    /// `path` is what follows the first slash.
    pub(super) fn matches(&self, path: &str) -> bool {
        let (mut at, mut rest) = (0, path.split('/'));
        // As in a glob: only the last `**` may have to take more.
        let mut retry = None;
        loop {
            let here = rest.clone();
            match (self.0.get(at), rest.next()) {
                (Some(Segment::Any), _) => {
                    at += 1;
                    if at == self.0.len() {
                        return true;
                    }
                    rest = here.clone();
                    retry = Some((at, here));
                }
                (None, None) => return true,
                (Some(Segment::One(glob)), Some(segment)) if glob.matches(segment.as_bytes()) => at += 1,
                _ => {
                    let Some((from, taken)) = &mut retry else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    at = *from;
                    rest = taken.clone();
                }
            }
        }
    }
}
