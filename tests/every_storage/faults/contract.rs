//! The clause of the contract about failures, on servers that are killed.

use std::sync::Mutex;

use libtest_mimic::Trial;
use tower_response_cache::Result;
use tower_response_cache::storage::BoxStorage;
use tower_response_cache::testing::{Harness, cases};

use super::outages::FaultTarget;
use super::test;
use crate::places::open_address;
use crate::servers::child::Data;

pub fn tests<H: FaultTarget + Send>(target: &str, start: fn() -> Result<H, String>) -> Vec<Trial> {
    vec![
        test(format!("{target}::contract::failed_reads_are_errors"), async move || {
            cases::failed_reads_are_errors(&Killed(Mutex::new(start()?))).await;
            Ok(())
        }),
        test(format!("{target}::contract::failed_changes_leave_old_or_new"), async move || {
            cases::failed_changes_leave_old_or_new(&Killed(Mutex::new(start()?))).await;
            Ok(())
        }),
    ]
}

/// Opens a storage whose server can be killed, and started again with its data.
struct Killed<H>(Mutex<H>);

impl<H: FaultTarget + Send> Harness for Killed<H> {
    type Storage = BoxStorage;

    async fn open(&self, _: &str) -> Result<BoxStorage> {
        // The server is of this test alone, so that one name is enough.
        let address = self.0.lock().unwrap().address();
        open_address(&address).await
    }

    async fn set_failing(&self, _: &BoxStorage, fails: bool) -> bool {
        let mut target = self.0.lock().unwrap();
        if fails {
            target.server().kill();
        } else {
            target.server().restart(Data::Kept);
        }
        true
    }
}
