//! A server that speaks MongoDB's protocol, behind a link.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::sync::Notify;
use tower_response_cache::Timestamp;
use tower_response_cache::storage::mongodb::driver::event::EventHandler;
use tower_response_cache::storage::mongodb::driver::event::cmap::CmapEvent;
use tower_response_cache::storage::mongodb::driver::options::ClientOptions;
use tower_response_cache::storage::{Key, MongoDbStorage, Record, Retain, Storage};

use super::outages::FaultTarget;
use super::test;
use crate::servers::child::Server;
use crate::servers::link::Proxy;
use crate::servers::mongodb::MongoDb;

pub struct Alone {
    mongodb: MongoDb,
    proxy: Proxy,
}

impl Alone {
    pub fn start() -> Result<Self, String> {
        let mongodb = MongoDb::start()?;
        let proxy = Proxy::to(mongodb.port);
        Ok(Self { mongodb, proxy })
    }
}

impl FaultTarget for Alone {
    fn address(&self) -> String {
        format!("mongodb://127.0.0.1:{}/faults", self.proxy.port())
    }

    fn server(&mut self) -> &mut Server {
        &mut self.mongodb.server
    }

    fn link(&self) -> &Proxy {
        &self.proxy
    }
}

pub fn tests() -> Vec<Trial> {
    vec![test("mongodb::changes_of_many_records_outlive_their_connection", connections_closed)]
}

/// Checks commands during which the driver closes its connections, since the server missed a check.
async fn connections_closed() -> Result<(), String> {
    let target = Alone::start()?;
    let mut options = ClientOptions::parse(target.address()).await.unwrap();
    options.heartbeat_freq = Some(Duration::from_millis(500));
    options.server_selection_timeout = Some(Duration::from_secs(8));
    let closed = Arc::new(Notify::new());
    let reported = Arc::clone(&closed);
    options.cmap_event_handler = Some(EventHandler::callback(move |event| {
        if let CmapEvent::PoolCleared(_) = event {
            reported.notify_one();
        }
    }));
    let storage = MongoDbStorage::connect(options).await.unwrap();
    let keys = [Key::head([1; 16]), Key::head([2; 16])];
    for key in keys {
        storage.write(key, Record::new("kept", Timestamp::NEVER)).await.unwrap();
    }
    let until = Timestamp::from_millis(4_000_000_000_000);
    let heal = async || {
        closed.notified().await;
        target.proxy.heal();
    };
    target.proxy.set(|link| link.hangs = true);
    let (changed, ()) = tokio::join!(storage.retain(&keys, Retain::AtMost(until)), heal());
    assert_eq!(changed.unwrap(), 2);
    assert_eq!(storage.read(keys[1]).await.unwrap().unwrap().retain_until(), until);
    target.proxy.set(|link| link.hangs = true);
    let (deleted, ()) = tokio::join!(storage.delete_many(&keys), heal());
    deleted.unwrap(); // the server may have deleted them before the connection was closed
    assert!(storage.read(keys[0]).await.unwrap().is_none());
    Ok(())
}
