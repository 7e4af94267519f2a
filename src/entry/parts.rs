//! The stored parts of a representation of which not all bytes are stored.

use std::ops::Range;

use crate::time::Timestamp;

/// The bytes that were fetched by one request, in chunks of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The random id of the chunks.
    pub(crate) id: [u8; 16],
    pub(crate) chunk_len: u32,
    /// The number of bytes.
    pub(crate) len: u64,
    /// The offset of the first byte in the representation.
    pub(crate) start: u64,
}

impl Extent {
    /// Returns the number of chunks, or `None` if there are more than numbers for them.
    pub(crate) fn chunks(&self) -> Option<u32> {
        u32::try_from(self.len.div_ceil(u64::from(self.chunk_len.max(1)))).ok()
    }
}

/// A range of bytes that one extent contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Offsets in the representation.
    pub(crate) range: Range<u64>,
    pub(crate) extent: Extent,
}

/// The stored parts of one representation.
///
/// # Invariants
///
/// - The runs are in order, do not overlap, and end within the representation.
/// - Each run lies within its extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// A random id, which stays when parts are added.
    ///
    /// A part is added only to the parts that its request has seen, or to those of the same representation.
    pub(crate) id: [u8; 16],
    /// The length of the complete representation.
    pub(crate) len: u64,
    /// The time until which all chunks are retained at least.
    pub(crate) retain_until: Timestamp,
    runs: Vec<Run>,
}

impl Parts {
    /// The maximum number of runs. A part that would exceed it is not stored.
    ///
    /// The description of a run takes about 40 bytes in the record of its response.
    pub(crate) const MAX_RUNS: usize = 4096;

    /// Returns the parts of a representation of which one extent is stored.
    pub(crate) fn new(id: [u8; 16], len: u64, extent: Extent, retain_until: Timestamp) -> Self {
        let range = extent.start..extent.start.saturating_add(extent.len).min(len);
        Self { id, len, retain_until, runs: vec![Run { range, extent }] }
    }

    /// Returns a list without parts.
    pub(crate) fn none(len: u64) -> Self {
        Self { id: [0; 16], len, retain_until: Timestamp::NEVER, runs: Vec::new() }
    }

    /// Returns the parts that a record describes, or `None` if it breaks an invariant.
    pub(crate) fn from_runs(id: [u8; 16], len: u64, retain_until: Timestamp, runs: Vec<Run>) -> Option<Self> {
        let mut at = 0;
        for Run { range, extent } in &runs {
            let end = extent.start.checked_add(extent.len)?;
            if range.start < at
                || range.is_empty()
                || range.end > len
                || range.start < extent.start
                || range.end > end
                || extent.chunk_len == 0
                || extent.chunks().is_none()
            {
                return None;
            }
            at = range.end;
        }
        (runs.len() <= Self::MAX_RUNS).then_some(Self { id, len, retain_until, runs })
    }

    /// Returns the runs in order.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Returns the run with the byte at an offset.
    pub(crate) fn run_at(&self, offset: u64) -> Option<&Run> {
        let index = self.runs.partition_point(|run| run.range.end <= offset);
        self.runs.get(index).filter(|run| run.range.start <= offset)
    }

    /// Returns the first bytes of a range that are not stored.
    pub(crate) fn first_gap(&self, range: Range<u64>) -> Option<Range<u64>> {
        let mut start = range.start;
        let mut index = self.runs.partition_point(|run| run.range.end <= start);
        while start < range.end {
            match self.runs.get(index) {
                Some(run) if run.range.start <= start => start = run.range.end,
                Some(run) => return Some(start..run.range.start.min(range.end)),
                None => return Some(start..range.end),
            }
            index += 1;
        }
        None
    }

    /// Returns the number of bytes that are stored.
    pub(crate) fn stored_len(&self) -> u64 {
        self.runs.iter().map(|run| run.range.end - run.range.start).sum()
    }

    /// Returns the number of contiguous ranges that are stored.
    pub(crate) fn count(&self) -> usize {
        let joined = self.runs.windows(2).filter(|pair| pair[0].range.end == pair[1].range.start).count();
        self.runs.len() - joined
    }

    /// Returns the parts with those of another fetch, which replace what was stored at their place.
    ///
    /// Returns `None` if there would be too many.
    pub(crate) fn with(&self, other: &Self) -> Option<Self> {
        let mut runs = Vec::with_capacity(self.runs.len() + other.runs.len() + 1);
        for run in &self.runs {
            let mut left = run.range.clone();
            for new in &other.runs {
                if new.range.end <= left.start || new.range.start >= left.end {
                    continue;
                }
                if new.range.start > left.start {
                    runs.push(Run { range: left.start..new.range.start, extent: run.extent });
                }
                left.start = new.range.end.min(left.end);
            }
            if !left.is_empty() {
                runs.push(Run { range: left, extent: run.extent });
            }
        }
        runs.extend(other.runs.iter().cloned());
        runs.sort_unstable_by_key(|run| run.range.start);
        let retain_until = self.retain_until.min(other.retain_until);
        (runs.len() <= Self::MAX_RUNS).then_some(Self { id: self.id, len: self.len, retain_until, runs })
    }

    /// Returns each extent that a run lies in, once.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        let mut extents: Vec<Extent> = self.runs.iter().map(|run| run.extent).collect();
        extents.sort_unstable_by_key(|extent| (extent.start, extent.id));
        extents.dedup();
        extents
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn part(start: u64, len: u64, id: u8) -> Parts {
        let extent = Extent { id: [id; 16], chunk_len: 16, len, start };
        Parts::new([9; 16], 200, extent, Timestamp::NEVER)
    }

    proptest! {
        /// Parts that are added in any order contain each byte from the last part with it.
        #[test]
        fn parts_agree_with_a_map_of_bytes(added in vec((0_u64..180, 1_u64..20), 1..30), range in (0_u64..200, 0_u64..200)) {
            let mut model = [None; 200];
            let mut parts: Option<Parts> = None;
            for (number, (start, len)) in added.into_iter().enumerate() {
                let new = part(start, len, number as u8);
                parts = Some(parts.map_or_else(|| new.clone(), |parts| parts.with(&new).unwrap()));
                model[start as usize..(start + len) as usize].fill(Some(number as u8));
            }
            let parts = parts.unwrap();
            for (offset, expected) in model.iter().enumerate() {
                prop_assert_eq!(parts.run_at(offset as u64).map(|run| run.extent.id[0]), *expected);
            }
            prop_assert_eq!(parts.stored_len(), model.iter().flatten().count() as u64);
            let starts = (0..200).filter(|at| model[*at].is_some() && (*at == 0 || model[*at - 1].is_none())).count();
            prop_assert_eq!(parts.count(), starts);
            let range = range.0.min(range.1)..range.0.max(range.1);
            let first = range.clone().find(|at| model[*at as usize].is_none());
            let gap = first.map(|first| {
                let end = (first..range.end).find(|at| model[*at as usize].is_some());
                first..end.unwrap_or(range.end)
            });
            prop_assert_eq!(parts.first_gap(range), gap);
            let again = Parts::from_runs(parts.id, parts.len, parts.retain_until, parts.runs.clone());
            prop_assert_eq!(again, Some(parts));
        }
    }

    #[test]
    fn forged_runs_are_refused() {
        let extent = Extent { id: [1; 16], chunk_len: 16, len: 100, start: 50 };
        let runs = |runs: &[(Range<u64>, Extent)]| {
            let runs =
                runs.iter().map(|(range, extent)| Run { range: range.clone(), extent: *extent }).collect();
            Parts::from_runs([0; 16], 200, Timestamp::NEVER, runs)
        };
        assert!(runs(&[(50..60, extent), (60..150, extent)]).is_some());
        for (range, extent) in [
            (40..60, extent),
            (60..151, extent),
            (60..60, extent),
            (60..70, Extent { chunk_len: 0, ..extent }),
            (60..70, Extent { len: u64::MAX, ..extent }),
            (150..201, Extent { len: 1000, ..extent }),
            (60..70, Extent { len: 1 << 40, chunk_len: 1, ..extent }),
        ] {
            assert_eq!(runs(&[(range, extent)]), None);
        }
        assert_eq!(runs(&[(60..70, extent), (69..80, extent)]), None, "they overlap");
        assert_eq!(runs(&[(70..80, extent), (60..70, extent)]), None, "they are out of order");
    }

    #[test]
    fn number_of_runs_is_bounded() {
        let mut parts = Parts { len: u64::MAX, ..part(0, 1, 0) };
        for number in 1..Parts::MAX_RUNS as u64 {
            parts = parts.with(&Parts { len: u64::MAX, ..part_at(2 * number) }).unwrap();
        }
        assert_eq!(parts.count(), Parts::MAX_RUNS);
        assert_eq!(parts.with(&part_at(1 << 40)), None);
    }

    fn part_at(start: u64) -> Parts {
        let extent = Extent { id: [1; 16], chunk_len: 16, len: 1, start };
        Parts::new([9; 16], u64::MAX, extent, Timestamp::NEVER)
    }
}
