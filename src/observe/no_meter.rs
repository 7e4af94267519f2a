//! The metrics without the feature `metrics`: nothing.

use std::marker::PhantomData;

use super::counts::Gauge;
use crate::control::CacheStatus;
use crate::error::Result;

pub(super) struct Meter;

/// Held while something is under way.
pub(crate) struct Level;

/// Counts the bytes of a body.
pub(crate) struct Tally;

/// Measures an operation of the store.
pub(crate) struct Timer<'a>(PhantomData<&'a ()>);

impl Meter {
    pub(super) fn new(_: &str) -> Self {
        Self
    }

    #[inline]
    pub(super) fn count(&self, _: usize) {}

    #[inline]
    pub(super) fn tally(&self, _: &CacheStatus) -> Tally {
        Tally
    }

    #[inline]
    pub(super) fn raise(&self, _: Gauge) -> Level {
        Level
    }

    #[inline]
    pub(super) fn begin(&self, _: &'static str) -> Timer<'_> {
        Timer(PhantomData)
    }
}

impl Tally {
    #[inline]
    pub(crate) fn none() -> Self {
        Self
    }

    #[inline]
    pub(crate) fn add(&self, _: usize) {}
}

impl Timer<'_> {
    #[inline]
    pub(crate) fn end<T>(self, _: &Result<T>) {}
}
