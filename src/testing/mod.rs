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
//! Implement [`Harness`] for a storage that is opened by name. The suite then also checks that names are kept apart, and that
//! records outlive their handles. The generated tests need tokio, with its macros and multi-threaded runtime, among the
//! dev-dependencies.

pub mod cases;
mod harness;

pub use self::harness::{Harness, in_time};
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
                absent_is_none,
                bytes_come_back_exactly,
                a_write_replaces_the_whole_record,
                readers_see_the_old_record_or_the_new_one,
                a_read_sees_what_was_written_before,
                keys_of_one_entry_do_not_mix,
                read_now_agrees_with_read,
                write_if_wants_the_stamp_that_is_there,
                write_if_for_an_empty_place,
                write_if_says_true_to_its_own_record,
                write_if_after_a_deletion,
                many_compare_and_one_wins,
                compared_increments_are_all_counted,
                what_read_hides_write_if_counts_as_absent,
                delete_is_idempotent,
                delete_many_counts_what_was_there,
                many_keys_at_once_are_all_counted,
                contains_all_is_true_of_what_is_there,
                clear_removes_everything,
                clear_spares_the_neighbours,
                hostile_names_are_kept_apart_or_refused,
                keys_lists_every_kind_once,
                values_lists_heads_and_variants,
                listings_bear_changes_meanwhile,
                a_listing_left_half_way_holds_nobody_up,
                retention_is_exact,
                times_at_the_ends_are_kept,
                never_has_no_end,
                retain_moves_time_and_nothing_else,
                retain_never_goes_the_other_way,
                retain_counts_what_is_there,
                retain_and_write_if_lose_neither,
                delete_expired_takes_what_is_due_and_nothing_else,
                clones_are_handles_of_one_store,
                a_warm_second_handle_sees_every_change,
                many_writers_lose_nothing,
                dropped_futures_leave_old_or_new,
                the_longest_record_is_taken,
                too_long_is_refused_and_the_old_one_stays,
                a_reopened_store_has_what_was_written,
                foreign_bytes_are_absent,
                records_of_every_kind_count_and_go,
                a_held_entry_is_evicted_last,
                close_writes_everything_that_was_taken,
                check_says_that_it_works,
                usage_grows_and_falls_with_the_records,
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
