//! Every way to name a server, the commands sent to it, and its errors.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use tower_response_cache::storage::mongodb::driver::Client;
use tower_response_cache::storage::mongodb::driver::bson::{Document, doc};
use tower_response_cache::storage::mongodb::driver::event::EventHandler;
use tower_response_cache::storage::mongodb::driver::event::command::CommandEvent;
use tower_response_cache::storage::mongodb::driver::options::{
    Acknowledgment, ClientOptions, Credential, ReadPreference, SelectionCriteria, WriteConcern,
};
use tower_response_cache::storage::{Key, MongoDbServer, MongoDbStorage, Record, Storage};
use tower_response_cache::{ErrorKind, Timestamp};

use super::HEAD;
use crate::alike;
use crate::places::{Kind, Place};
use crate::support::full_text;
use crate::trial;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub fn trials(kind: &Kind) -> Vec<Trial> {
            vec![$(trial("servers", kind, stringify!($name), |place| Box::pin($name(place)))),*]
        }
    };
}

cases![
    addresses_options_and_clients_are_accepted,
    driver_options_are_preserved,
    hits_cost_one_or_two_commands,
    clear_spares_other_collections_and_databases,
    errors_contain_no_address_or_password,
    unacknowledged_writes_are_refused,
];

async fn works(name: &str, server: impl Into<MongoDbServer>) {
    let storage = MongoDbStorage::builder(server).cache_name(name).connect().await.unwrap();
    storage.check().await.unwrap();
    storage.write(HEAD, Record::new("kept", Timestamp::NEVER)).await.unwrap();
    assert_eq!(storage.read(HEAD).await.unwrap().unwrap().payload(), "kept", "{name}");
}

async fn addresses_options_and_clients_are_accepted(place: &Place) {
    let url = place.mongodb_url();
    let name = |name| place.name(name);
    works(&name("address"), url).await;
    let options = ClientOptions::parse(url).await.unwrap();
    works(&name("options"), options.clone()).await;
    works(&name("client"), Client::with_options(options.clone()).unwrap()).await;
    for name in ["address", "options", "client"] {
        let records = place.mongodb_named(name).await.collection::<Document>("records");
        assert_eq!(records.count_documents(doc! {}).await.unwrap(), 1, "{name}");
    }
    // If the program gives no cache name, the default database of the driver's settings is used.
    let mut named = options;
    named.default_database = Some(name("default"));
    let storages = [
        MongoDbStorage::builder(named.clone()),
        MongoDbStorage::builder(Client::with_options(named).unwrap()),
    ];
    for (number, storage) in storages.into_iter().enumerate() {
        let storage = storage.build().unwrap();
        storage.write(Key::head([number as u8; 16]), Record::new("x", Timestamp::NEVER)).await.unwrap();
    }
    let records = place.mongodb_named("default").await.collection::<Document>("records");
    assert_eq!(records.count_documents(doc! {}).await.unwrap(), 2);
}

type Commands = Arc<Mutex<Vec<Document>>>;

/// Returns options of a client, and the commands that it sends to this database.
///
/// The commands that create indexes are left out.
async fn noting(place: &Place, name: &str) -> (ClientOptions, Commands) {
    let mut options = ClientOptions::parse(place.mongodb_url()).await.unwrap();
    let (commands, database) = (Commands::default(), place.name(name));
    let seen = Arc::clone(&commands);
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Started(event) = event
            && event.db == database
            && event.command_name != "createIndexes"
        {
            seen.lock().unwrap().push(event.command);
        }
    }));
    (options, commands)
}

async fn driver_options_are_preserved(place: &Place) {
    let (mut options, commands) = noting(place, "options").await;
    options.app_name = Some("shop".to_owned());
    options.selection_criteria =
        Some(SelectionCriteria::ReadPreference(ReadPreference::SecondaryPreferred {
            options: Default::default(),
        }));
    let journaled = WriteConcern::builder().w(Acknowledgment::Nodes(1)).journal(true).build();
    let cases = [
        (None, None, doc! { "w": "majority" }, "majority"),
        (Some(journaled.clone()), None, doc! { "w": 1, "j": true }, "local"),
        (Some(journaled), Some(WriteConcern::majority()), doc! { "w": "majority" }, "majority"),
    ];
    for (theirs, said, write, read) in cases {
        options.write_concern = theirs;
        let mut builder = MongoDbStorage::builder(options.clone()).cache_name(place.name("options"));
        if let Some(said) = said {
            builder = builder.write_concern(said);
        }
        let storage = builder.build().unwrap();
        commands.lock().unwrap().clear();
        storage.write(HEAD, Record::new("x", Timestamp::NEVER)).await.unwrap();
        storage.read(HEAD).await.unwrap();
        let commands = std::mem::take(&mut *commands.lock().unwrap());
        assert_eq!(commands[0].get_document("writeConcern").unwrap(), &write);
        assert_eq!(commands[1].get_document("readConcern").unwrap(), &doc! { "level": read });
        assert_eq!(commands.len(), 2);
    }
}

async fn hits_cost_one_or_two_commands(place: &Place) {
    let (options, commands) = noting(place, "commands").await;
    let storage =
        MongoDbStorage::builder(options).cache_name(place.name("commands")).connect().await.unwrap();
    alike::hits_cost_one_or_two_requests(storage, || {
        let commands = std::mem::take(&mut *commands.lock().unwrap());
        (commands.len(), commands.iter().filter(|command| command.contains_key("find")).count())
    })
    .await;
}

async fn clear_spares_other_collections_and_databases(place: &Place) {
    let named = |name: &str, collection| {
        MongoDbStorage::builder(place.address(name)).collection(collection).build().unwrap()
    };
    let stores = [named("a", "records"), named("a", "others"), named("ab", "records")];
    for store in &stores {
        store.write(HEAD, Record::new("x", Timestamp::NEVER)).await.unwrap();
    }
    stores[0].clear().await.unwrap();
    let mut there = Vec::new();
    for store in &stores {
        there.push(store.contains(HEAD).await.unwrap());
    }
    assert_eq!(there, [false, true, true]);
}

async fn errors_contain_no_address_or_password(place: &Place) {
    let (secret, host) = ("word-of-app", "cache.invalid");
    let silent = |text: &str| {
        assert!(!text.contains(secret) && !text.contains(host) && !text.contains("someone"), "{text}")
    };
    let unusable = [
        format!("mongodb://someone:{secret}@{host}/app?w=-1"),
        format!("mongodb://someone:{secret}@{host}:port/app"),
        format!("mongodb://someone:{secret}@{host}/a.b"),
        format!("mongodb://someone:{secret}@{host}/app?response_timeout=word-of-app"),
        format!("mongodb+srv://someone:{secret}@{host}:1/app"),
    ];
    for url in unusable {
        let error = MongoDbStorage::builder(url.as_str()).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        silent(&full_text(&error));
        silent(&format!("{:?} {:?}", MongoDbStorage::builder(url.as_str()), MongoDbServer::from(url)));
    }
    let away = MongoDbStorage::builder(format!("mongodb://someone:{secret}@{host}/app")).build().unwrap();
    let error = away.check().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    silent(&format!("{} {away:?}", full_text(&error)));

    let mut options = ClientOptions::parse(place.mongodb_url()).await.unwrap();
    options.credential =
        Some(Credential::builder().username("someone".to_owned()).password(secret.to_owned()).build());
    options.server_selection_timeout = Some(Duration::from_secs(5));
    let refused =
        MongoDbStorage::builder(options).cache_name(place.name("refused")).connect().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused:?}");
    silent(&full_text(&refused));
}

async fn unacknowledged_writes_are_refused(place: &Place) {
    let mark = place.address("app");
    let refused = MongoDbStorage::builder(format!("{mark}&w=0")).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    let none = WriteConcern::builder().w(Acknowledgment::Nodes(0)).build();
    let refused = MongoDbStorage::builder(mark.as_str()).write_concern(none).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
}
