//! Decides whether a read runs in the calling task or on a thread.
//!
//! A read in the task takes a tenth of the time of one on a thread, as long as the pages are in memory. If they are not, it
//! stalls a worker of the runtime until the disk has answered. Whether they are is not known before the read. So the budget
//! learns from how long reads have taken, in tasks and on threads.
//!
//! # Invariants
//!
//! - Of `n` reads, at most `n / 100 + c` stall a worker, where `c` is the number of connections that read in tasks.
//! - After a stall, reads run on threads until [`CONFIRMATIONS`] of them in a row were fast.
//! - While all reads are fast, a read only loads the budget. So cores do not contend for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time from which a read counts as a stall, unless it took so long only because other threads ran meanwhile. A read of a
/// short record takes a hundredth of it when the pages are in memory, and a disk that seeks takes several times as long.
pub(super) const STALL: Duration = Duration::from_millis(1);
/// How many reads there are for each one that stalls a worker, at least.
const READS_PER_STALL: i32 = 100;
/// The most credit that is saved, in reads. Where the system does not tell, a worker that it suspends during a read looks like a
/// slow disk, which on a busy machine happens about once in 500 reads. Several of these in short order must not end reading in
/// tasks for long.
const MAX_CREDIT: i32 = 5 * READS_PER_STALL;
/// How many reads on threads in a row must be fast before one runs in the task again. While every read is slow, none does. More
/// of them would cost more time after each preemption, and the credit bounds the stalls anyway.
const CONFIRMATIONS: u32 = 4;

/// Where a read runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    Task,
    Thread,
}

/// The reads that may stall a worker, which all tasks and threads of a storage share.
pub(super) struct StallBudget(AtomicU64);

impl StallBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(Balance::INITIAL.to_bits()))
    }

    /// Returns where the next read runs.
    pub(super) fn site(&self) -> Site {
        // The atomic is Relaxed, since it publishes no other memory.
        Balance::from_bits(self.0.load(Ordering::Relaxed)).site()
    }

    /// Records whether a read took [`STALL`] or longer.
    ///
    /// The time that it waited for a thread, or was suspended for others, does not count.
    pub(super) fn observe(&self, site: Site, is_slow: bool) {
        let next = |bits| {
            let balance = Balance::from_bits(bits);
            Some(balance.after(site, is_slow)).filter(|next| *next != balance).map(Balance::to_bits)
        };
        // Fails if nothing changes, which is the usual case.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// The state of the budget, without its sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Balance {
    /// Each fast read earns 1, and each stall costs [`READS_PER_STALL`]. Negative if several tasks have stalled at once.
    credit: i32,
    /// How many reads on threads must still be fast before one runs in the task.
    unconfirmed: u32,
}

impl Balance {
    /// The first read runs in the task, so that a storage that is in memory is fast at once.
    const INITIAL: Self = Self { credit: READS_PER_STALL, unconfirmed: 0 };

    const fn site(self) -> Site {
        // A read in the task must be able to pay for its stall.
        match self.credit >= READS_PER_STALL && self.unconfirmed == 0 {
            true => Site::Task,
            false => Site::Thread,
        }
    }

    fn after(self, site: Site, is_slow: bool) -> Self {
        let Self { credit, unconfirmed } = self;
        match (site, is_slow) {
            (Site::Task, false) => Self { credit: (credit + 1).min(MAX_CREDIT), unconfirmed },
            (Site::Thread, false) => {
                Self { credit: (credit + 1).min(MAX_CREDIT), unconfirmed: unconfirmed.saturating_sub(1) }
            }
            (Site::Task, true) => {
                Self { credit: credit.saturating_sub(READS_PER_STALL), unconfirmed: CONFIRMATIONS }
            }
            // It has stalled no worker, so it leaves no debt. But it would have been a stall in the task: if more than one
            // read in a hundred is slow, no credit is left.
            (Site::Thread, true) => {
                Self { credit: credit.min(0.max(credit - READS_PER_STALL)), unconfirmed: CONFIRMATIONS }
            }
        }
    }

    const fn to_bits(self) -> u64 {
        (self.credit.cast_unsigned() as u64) << 32 | self.unconfirmed as u64
    }

    const fn from_bits(bits: u64) -> Self {
        Self { credit: ((bits >> 32) as u32).cast_signed(), unconfirmed: bits as u32 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Runs reads, at most `concurrent` at the same time, and counts those that stalled a worker and those on threads.
    ///
    /// `is_slow` is asked when a read ends, and reads end in a random order.
    struct Reads<'a> {
        budget: &'a StallBudget,
        in_progress: VecDeque<Site>,
        concurrent: usize,
        done: usize,
        stalls: usize,
        on_threads: usize,
    }

    impl<'a> Reads<'a> {
        fn new(budget: &'a StallBudget, concurrent: usize) -> Self {
            Self { budget, in_progress: VecDeque::new(), concurrent, done: 0, stalls: 0, on_threads: 0 }
        }

        fn run(
            &mut self,
            count: usize,
            random: &mut fastrand::Rng,
            is_slow: impl Fn(usize, Site, f64) -> bool,
        ) {
            for _ in 0..count {
                while self.in_progress.len() < self.concurrent {
                    self.in_progress.push_back(self.budget.site());
                }
                let next = random.usize(..self.in_progress.len());
                let site = self.in_progress.swap_remove_back(next).unwrap();
                let is_slow = is_slow(self.done, site, random.f64());
                self.budget.observe(site, is_slow);
                self.done += 1;
                self.stalls += usize::from(is_slow && site == Site::Task);
                self.on_threads += usize::from(site == Site::Thread);
                assert!(
                    self.stalls <= self.done / 100 + self.concurrent,
                    "{} of {} reads have stalled a worker",
                    self.stalls,
                    self.done
                );
            }
        }

        fn share_on_threads(&self) -> f64 {
            self.on_threads as f64 / self.done as f64
        }
    }

    proptest! {
        /// `Reads` asserts it after each read.
        #[test]
        fn one_read_in_a_hundred_stalls(
            seed: u64,
            concurrent in 1_usize..20,
            phases in prop::collection::vec((1_usize..2000, prop_oneof![Just(0.0), Just(1.0), 0.0..0.05, 0.0..1.0]), 1..8),
        ) {
            let (budget, mut random) = (StallBudget::new(), fastrand::Rng::with_seed(seed));
            let mut reads = Reads::new(&budget, concurrent);
            for (count, share) in phases {
                reads.run(count, &mut random, |_, _, draw| draw < share);
            }
        }

        /// An adversary makes a read slow exactly if it runs in a task.
        #[test]
        fn adversary_stalls_one_read_in_a_hundred(seed: u64, concurrent in 1_usize..20) {
            let (budget, mut random) = (StallBudget::new(), fastrand::Rng::with_seed(seed));
            Reads::new(&budget, concurrent).run(20_000, &mut random, |_, site, _| site == Site::Task);
        }

        #[test]
        fn balance_survives_its_bits(credit: i32, unconfirmed: u32) {
            let balance = Balance { credit, unconfirmed };
            prop_assert_eq!(Balance::from_bits(balance.to_bits()), balance);
        }
    }

    fn run(count: usize, concurrent: usize, is_slow: impl Fn(usize, Site, f64) -> bool) -> (usize, f64) {
        let budget = StallBudget::new();
        let mut reads = Reads::new(&budget, concurrent);
        reads.run(count, &mut fastrand::Rng::with_seed(7), is_slow);
        (reads.stalls, reads.share_on_threads())
    }

    #[test]
    fn fast_reads_stay_in_the_task() {
        assert_eq!(run(10_000, 2, |_, _, _| false), (0, 0.0));
    }

    #[test]
    fn slow_disk_stalls_each_worker_once() {
        assert!(run(100_000, 2, |_, _, _| true).0 <= 2);
    }

    #[test]
    fn many_cold_keys_move_reads_to_threads() {
        for share in [0.5, 0.1, 0.05] {
            let (stalls, on_threads) = run(100_000, 1, |_, _, draw| draw < share);
            assert!(stalls < 300 && on_threads > 0.9, "{share}: {stalls} stalls, {on_threads} on threads");
        }
    }

    #[test]
    fn rare_preemption_keeps_reads_in_the_task() {
        let (_, on_threads) = run(100_000, 2, |_, _, draw| draw < 1.0 / 500.0);
        assert!(on_threads < 0.05, "{on_threads} on threads");
    }

    #[test]
    fn task_reads_again_after_slow_time() {
        let budget = StallBudget::new();
        let mut reads = Reads::new(&budget, 4);
        let mut random = fastrand::Rng::with_seed(7);
        reads.run(5000, &mut random, |_, _, _| true);
        let stalls = reads.stalls;
        reads.run(READS_PER_STALL as usize * 5, &mut random, |_, _, _| false);
        assert_eq!(budget.site(), Site::Task);
        assert_eq!(reads.stalls, stalls);
    }

    #[test]
    fn stall_moves_the_next_read_to_a_thread() {
        let budget = StallBudget::new();
        for _ in 0..10_000 {
            budget.observe(Site::Task, false);
        }
        budget.observe(Site::Task, true);
        for _ in 0..CONFIRMATIONS {
            assert_eq!(budget.site(), Site::Thread);
            budget.observe(Site::Thread, false);
        }
        assert_eq!(budget.site(), Site::Task);
    }
}
