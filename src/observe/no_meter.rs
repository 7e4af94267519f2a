//! Replaces the metrics without the feature `metrics`: the same types, which do nothing.

use std::marker::PhantomData;

use super::counts::Gauge;
use crate::control::CacheStatus;
use crate::error::Result;

pub(super) struct Meter;

/// Stands for a raised gauge.
pub(crate) struct GaugeGuard;

/// Stands for a counter of the bytes of a body.
pub(crate) struct ByteCounter;

/// Stands for the measurement of a storage operation.
pub(crate) struct Timer<'a>(PhantomData<&'a ()>);

impl Meter {
    pub(super) fn new(_: &str) -> Self {
        Self
    }

    #[inline]
    pub(super) fn count(&self, _: usize) {}

    #[inline]
    pub(super) fn byte_counter(&self, _: &CacheStatus) -> ByteCounter {
        ByteCounter
    }

    #[inline]
    pub(super) fn raise(&self, _: Gauge) -> GaugeGuard {
        GaugeGuard
    }

    #[inline]
    pub(super) fn begin(&self, _: &'static str) -> Timer<'_> {
        Timer(PhantomData)
    }
}

impl ByteCounter {
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
