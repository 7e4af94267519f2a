//! A test suite for implementations of [`Storage`](crate::storage::Storage).
//!
//! The suite checks the [contract](crate::storage::Storage#contract) of the trait, and runs on the built-in storages as well
//! as on your own. [`storage_contract!`] generates one test for each of the [`cases`]. The docs of a case name the clauses of
//! the contract that it checks.
//!
//! ```
//! # #[cfg(feature = "memory")] {
//! use tower_response_cache::storage::MemoryStorage;
//! use tower_response_cache::testing::storage_contract;
//!
//! storage_contract!(memory, MemoryStorage::new); // generates a module `memory` with a test for each case
//! # }
//! ```
//!
//! A case that fails says which clause the storage breaks, what the clause says, what was found and, where there is one, the
//! usual cause:
//!
//! ```text
//! clause 7 (listings) of the storage contract: `keys` yields every key that exists from the beginning to the end of the listing
//!   found: 61 of 160 keys are missing, such as the chunk 0505…
//!   usual cause: the listing ends after its first page, or moves on by position while records are added and removed
//! ```
//!
//! # Storages that are opened by name
//!
//! Implement [`Harness`] for a storage that is opened by name. Each of its methods lets the suite check more:
//!
//! | method | what the suite then checks |
//! |---|---|
//! | [`shares`](Harness::shares) | names are kept apart, and processes that share a name see and keep each other's changes |
//! | [`persists`](Harness::persists) | records outlive their handles |
//! | [`open_bounded`](Harness::open_bounded) | eviction, holds and usage |
//! | [`damage`](Harness::damage) | damaged bytes are an absent record |
//! | [`set_failing`](Harness::set_failing) | a read that fails is an error, and a change that fails leaves the old record or the new one |
//!
//! Cases without their method check nothing. The test `unchecked_clauses_are_reported` prints for each harness what that
//! leaves unchecked, and [`unchecked`] returns it.
//!
//! # Processes
//!
//! The provided `write_if`, `retain` and `delete_expired` of the trait are atomic among the tasks of one process only. If
//! [`shares`](Harness::shares) is true, the suite opens a name twice and lets one handle change a record between the comparison
//! and the write of the other, as another process could. A provided method then fails its case. Two handles also compare and
//! write on several threads at once, which finds most locks of a handle. A lock in a `static` of your own is found by no case,
//! because all handles of a process have it in common.
//!
//! # Requirements
//!
//! The generated tests need tokio, with its macros and multi-threaded runtime, among the dev-dependencies.

pub mod cases;
mod demand;
mod harness;

#[doc(hidden)]
pub use self::harness::report_unchecked;
pub use self::harness::{Harness, in_time, unchecked};
pub use crate::{contract_cases, storage_contract};

/// Calls a macro with the list of all cases.
///
/// Use it to run the cases with another test harness than the one that [`storage_contract!`](crate::storage_contract) uses.
/// `own NAME` calls your macro, and `NAME` one of this crate. The macro gets the list in brackets, and after it the arguments
/// that follow the name.
///
/// ```
/// macro_rules! count {
///     ([$($case:ident),* $(,)?]) => { [$(stringify!($case)),*].len() };
/// }
/// assert!(tower_response_cache::contract_cases!(own count) > 30);
/// ```
#[macro_export]
macro_rules! contract_cases {
    (own $callback:ident $($arguments:tt)*) => {
        $crate::contract_cases! { @list [$callback] $($arguments)* }
    };
    (@list [$($callback:tt)+] $($arguments:tt)*) => {
        $($callback)+! {
            [
                absent_record_is_none,
                records_are_read_as_written,
                write_replaces_whole_record,
                concurrent_readers_see_whole_records,
                read_sees_earlier_changes,
                keys_are_distinct_in_every_field,
                read_now_agrees_with_read,
                read_chunks_now_agrees_with_read,
                stamps_agree_with_read,
                write_if_compares_current_stamp,
                write_if_creates_absent_record,
                write_if_accepts_repeated_write,
                write_if_after_delete,
                concurrent_write_if_has_one_winner,
                concurrent_increments_are_all_counted,
                processes_write_if_has_one_winner,
                processes_keep_each_others_changes,
                read_and_write_if_agree_on_expired,
                delete_is_idempotent,
                delete_many_counts_removed_records,
                thousand_keys_at_once,
                contains_all_of_existing_records,
                clear_removes_all_records,
                clear_spares_other_caches,
                hostile_names_are_separate_or_refused,
                keys_lists_every_kind_once,
                values_lists_heads_and_variants,
                listings_are_complete_during_changes,
                unfinished_listing_blocks_nothing,
                retention_time_is_exact,
                extreme_retention_times_are_kept,
                never_does_not_expire,
                retain_changes_only_the_time,
                retain_respects_its_direction,
                retain_counts_existing_records,
                concurrent_retain_and_write_if,
                delete_expired_removes_only_expired,
                clones_share_records,
                second_handle_sees_every_change,
                changes_show_in_change_count,
                concurrent_writers_lose_nothing,
                dropped_futures_are_atomic,
                longest_record_is_accepted,
                too_long_record_is_refused,
                reopened_storage_has_its_records,
                damaged_bytes_are_absent,
                every_kind_is_counted_and_evicted,
                held_entry_is_evicted_last,
                close_writes_all_changes,
                check_succeeds,
                failed_reads_are_errors,
                failed_changes_leave_old_or_new,
                usage_follows_the_records,
            ]
            $($arguments)*
        }
    };
    ($callback:ident $($arguments:tt)*) => {
        $crate::contract_cases! { @list [$crate::$callback] $($arguments)* }
    };
}

/// Generates a module with a test for each case of the storage contract.
///
/// The arguments are the name of the module, and the harness: a closure that returns an empty storage, or any other
/// [`Harness`](crate::testing::Harness). The harness is evaluated anew for each test.
#[macro_export]
macro_rules! storage_contract {
    ([$($case:ident),* $(,)?] @ $name:ident, $harness:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let case = concat!("in the case ", stringify!($case));
                    $crate::testing::in_time(case, $crate::testing::cases::$case(&$harness)).await
                }
            )*

            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn unchecked_clauses_are_reported() {
                $crate::testing::report_unchecked(stringify!($name), &$harness).await
            }
        }
    };
    ($name:ident, $harness:expr $(,)?) => {
        $crate::contract_cases! { storage_contract @ $name, $harness }
    };
}

/// Returns the names of the cases, as a callback of [`contract_cases!`].
#[doc(hidden)]
#[macro_export]
macro_rules! case_names {
    ([$($case:ident),* $(,)?]) => {
        [$(stringify!($case)),*]
    };
}
