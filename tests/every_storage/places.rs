//! The kinds of storages that the tests run on, and how each is opened.

use std::sync::Mutex;

use tower_response_cache::Result;
use tower_response_cache::storage::mongodb::driver::bson::spec::BinarySubtype;
use tower_response_cache::storage::mongodb::driver::bson::{Binary, Document, doc};
use tower_response_cache::storage::mongodb::driver::{Client, Database};
use tower_response_cache::storage::{BoxStorage, Key, Storage, connect};
use tower_response_cache::testing::Harness;

#[cfg(feature = "dynamodb")]
use crate::servers::dynamodb::{self, DynamoDb};
use crate::servers::find;
use crate::servers::mongodb::MongoDb;
use crate::servers::redis::{Cluster, Redis, Sentinels};

/// The servers that were started for this run.
///
/// Dropping this ends them.
#[derive(Default)]
pub struct Servers {
    redis: Vec<Redis>,
    cluster: Option<Cluster>,
    sentinels: Option<Sentinels>,
    mongodb: Option<MongoDb>,
    #[cfg(feature = "dynamodb")]
    dynamodb: Option<DynamoDb>,
}

/// One kind of storage.
#[derive(Clone, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// The reason why this kind cannot be tested here, if there is one.
    pub missing: Option<String>,
    address: Address,
    /// The ports of its Redis nodes, if this run started them with unrestricted access.
    ports: Vec<u16>,
    /// The endpoint of DynamoDB, if this is its kind.
    #[cfg(feature = "dynamodb")]
    pub endpoint: Option<String>,
}

#[derive(Clone, Debug)]
enum Address {
    Memory,
    Sqlite,
    Directory,
    /// A SQLite file with copies in memory that are compared each time, so that a change is seen at once.
    TieredSqlite,
    /// A SQLite file whose records are compressed and encrypted.
    #[cfg(all(feature = "zstd", feature = "encrypt"))]
    WrappedSqlite,
    /// The address of a server, without the option for the cache name.
    Server(String),
    /// The address of a MongoDB server. One that this run started is removed with its data.
    MongoDb {
        url: String,
        is_ours: bool,
    },
}

/// The timeouts of storages on servers, in tests that are not about timeouts.
///
/// On busy cores a server needs longer than the defaults allow: DynamoDB Local executes a thousand concurrent writes one
/// by one.
pub const PATIENT: &str = "connect_timeout=20&response_timeout=40";

/// The name and password of a user with only the rights that the docs name.
const USER: (&str, &str) = ("app", "word-of-app");
const RIGHTS: [&str; 13] = [
    "+get",
    "+set",
    "+unlink",
    "+exists",
    "+getrange",
    "+eval",
    "+scan",
    "+ping",
    "+setrange",
    "+persist",
    "+pexpire",
    "~*",
    "resetchannels",
];

impl Servers {
    /// Starts the servers that are needed and returns all kinds of storages.
    ///
    /// A server that an environment variable names is used instead.
    pub fn start(&mut self) -> Vec<Kind> {
        let kind = |name, address| Kind {
            name,
            missing: None,
            address,
            ports: Vec::new(),
            #[cfg(feature = "dynamodb")]
            endpoint: None,
        };
        let mut kinds = vec![
            kind("memory", Address::Memory),
            kind("sqlite", Address::Sqlite),
            kind("directory", Address::Directory),
            kind("tiered_sqlite", Address::TieredSqlite),
            #[cfg(all(feature = "zstd", feature = "encrypt"))]
            kind("compressed_and_encrypted", Address::WrappedSqlite),
        ];
        let mut server = |name, variable: &str, start: &mut dyn FnMut() -> (String, Vec<u16>)| {
            let (url, ports, missing) = match (std::env::var(variable), find("redis-server")) {
                (Ok(url), _) => (url, Vec::new(), None),
                (Err(_), Err(reason)) => {
                    (String::new(), Vec::new(), Some(format!("{reason}, and no {variable}")))
                }
                (Err(_), Ok(_)) => {
                    let (url, ports) = start();
                    (url, ports, None)
                }
            };
            kinds.push(Kind { missing, ports, ..kind(name, Address::Server(url)) });
        };
        server("redis", "TEST_REDIS_URL", &mut || {
            let redis = Redis::start(&[]).unwrap();
            let port = redis.port;
            self.redis.push(redis);
            (format!("redis://127.0.0.1:{port}/0?{PATIENT}"), vec![port])
        });
        server("tiered_redis", "TEST_TIERED_REDIS_URL", &mut || {
            let redis = Redis::start(&[]).unwrap();
            let port = redis.port;
            self.redis.push(redis);
            // Its records can be damaged, but a copy of them is good.
            let near = "near=1MiB&max_lag=0&far_timeout=40";
            (format!("tiered+redis://127.0.0.1:{port}/0?{near}&{PATIENT}"), Vec::new())
        });
        server("redis_with_few_rights", "TEST_REDIS_USER_URL", &mut || {
            let redis = Redis::start(&[]).unwrap();
            let port = redis.port;
            let (user, password) = USER;
            let secret = format!(">{password}");
            redis.ok(&[&["ACL", "SETUSER", user, "on", &secret], &RIGHTS[..]].concat());
            redis.ok(&["ACL", "SETUSER", "default", "off"]);
            self.redis.push(redis);
            (format!("redis://{user}:{password}@127.0.0.1:{port}/0?{PATIENT}"), Vec::new())
        });
        server("redis_cluster", "TEST_REDIS_CLUSTER_URL", &mut || {
            let cluster = self.cluster.insert(Cluster::start().unwrap());
            let ports: Vec<u16> = cluster.0.iter().map(|node| node.port).collect();
            let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            (format!("redis+cluster://{}/?{PATIENT}", hosts.join(",")), ports)
        });
        server("tiered_redis_cluster", "TEST_TIERED_REDIS_CLUSTER_URL", &mut || {
            let cluster = self.cluster.get_or_insert_with(|| Cluster::start().unwrap());
            let hosts: Vec<String> =
                cluster.0.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
            let near = "near=1MiB&max_lag=0&far_timeout=40";
            (format!("tiered+redis+cluster://{}/?{near}&{PATIENT}", hosts.join(",")), Vec::new())
        });
        server("redis_under_sentinels", "TEST_REDIS_SENTINEL_URL", &mut || {
            let sentinels = self.sentinels.insert(Sentinels::start().unwrap());
            let address = sentinels.address("");
            let port = sentinels.master.port;
            (address.replace("&cache_name=", &format!("&{PATIENT}")), vec![port])
        });
        let (url, is_ours, missing) = match std::env::var("TEST_MONGODB_URL") {
            Ok(url) => (url, false, None),
            Err(_) => match MongoDb::start() {
                Ok(server) => (self.mongodb.insert(server).patient_url(), true, None),
                Err(reason) => (String::new(), true, Some(format!("{reason}, and no TEST_MONGODB_URL"))),
            },
        };
        kinds.push(Kind { missing, ..kind("mongodb", Address::MongoDb { url, is_ours }) });
        #[cfg(feature = "dynamodb")]
        {
            let endpoint = std::env::var("TEST_DYNAMODB_ENDPOINT").or_else(|_| {
                let started =
                    DynamoDb::start().map_err(|reason| format!("{reason}, and no TEST_DYNAMODB_ENDPOINT"));
                started.map(|started| self.dynamodb.insert(started).endpoint())
            });
            let patient = |endpoint: &str| format!("{}&{PATIENT}", dynamodb::address(endpoint));
            let address = Address::Server(endpoint.as_deref().map_or(String::new(), patient));
            let missing = endpoint.as_ref().err().cloned();
            kinds.push(Kind { missing, endpoint: endpoint.ok(), ..kind("dynamodb", address) });
        }
        kinds
    }
}

impl Kind {
    /// Returns a place that no other test uses.
    pub fn place(&self) -> Place {
        Place {
            kind: self.clone(),
            folder: tempfile::tempdir().unwrap(),
            prefix: format!("test-{:016x}-", fastrand::u64(..)),
            opened: Mutex::default(),
        }
    }

    pub fn is_shared(&self) -> bool {
        !matches!(self.address, Address::Memory)
    }
}

/// The storages of one test, each under a name of its own.
#[derive(Debug)]
pub struct Place {
    pub kind: Kind,
    folder: tempfile::TempDir,
    prefix: String,
    opened: Mutex<Vec<String>>,
}

impl Place {
    /// Returns the cache name of the storage with this name in the test.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the address of the storage with this name.
    ///
    /// Another process opens the same storage by it.
    pub fn address(&self, name: &str) -> String {
        match &self.kind.address {
            Address::Memory => "memory:".to_owned(),
            Address::Sqlite => self.sqlite(name),
            Address::TieredSqlite => {
                format!("tiered+{}?near=1MiB&max_lag=0&far_timeout=10", self.sqlite(name))
            }
            #[cfg(all(feature = "zstd", feature = "encrypt"))]
            Address::WrappedSqlite => format!("{WRAPPED}{}", self.sqlite(name)),
            Address::Directory => {
                format!("directory://{}", escaped(&format!("{}/in-{name}", self.folder.path().display())))
            }
            Address::Server(url) => {
                let mark = if url.contains('?') { '&' } else { '?' };
                format!("{url}{mark}cache_name={}", escaped(&self.name(name)))
            }
            Address::MongoDb { url, .. } => {
                let mark = if url.contains('?') { '&' } else { '?' };
                format!("{url}{mark}response_timeout=40&cache_name={}", escaped(&self.name(name)))
            }
        }
    }

    fn sqlite(&self, name: &str) -> String {
        format!("sqlite://{}", escaped(&format!("{}/{name}", self.folder.path().display())))
    }

    /// Returns the address of MongoDB with the driver's options only.
    pub fn mongodb_url(&self) -> &str {
        let Address::MongoDb { url, .. } = &self.kind.address else { panic!("this place has no MongoDB") };
        url
    }

    /// Returns the MongoDB database of the storage with this name, for direct access.
    pub async fn mongodb_named(&self, name: &str) -> Database {
        Client::with_uri_str(self.mongodb_url()).await.unwrap().database(&self.name(name))
    }

    /// Returns the MongoDB databases of this place.
    async fn mongodb(&self) -> Vec<Database> {
        let Address::MongoDb { url, .. } = &self.kind.address else { return Vec::new() };
        let client = Client::with_uri_str(url).await.unwrap();
        let names = client.list_database_names().await.unwrap();
        names.iter().filter(|name| name.starts_with(&self.prefix)).map(|name| client.database(name)).collect()
    }

    /// Removes what the test has left on a server.
    pub async fn clean(&self) {
        #[cfg(feature = "dynamodb")]
        if let Some(endpoint) = &self.kind.endpoint {
            let client = dynamodb::client(endpoint);
            for table in dynamodb::tables(&client, &self.prefix).await {
                client.delete_table().table_name(table).send().await.unwrap();
            }
            return;
        }
        if matches!(self.kind.address, Address::MongoDb { is_ours: false, .. }) {
            for database in self.mongodb().await {
                database.drop().await.unwrap();
            }
        }
        if matches!(self.kind.address, Address::Server(_)) {
            let opened = std::mem::take(&mut *self.opened.lock().unwrap());
            for address in opened {
                connect(&address).await.unwrap().clear().await.unwrap();
            }
        }
    }
}

/// The beginning of the address of a storage whose records are compressed and encrypted.
#[cfg(all(feature = "zstd", feature = "encrypt"))]
const WRAPPED: &str = "compressed-and-encrypted+";

/// Opens the storage at the address of a place.
pub async fn open_address(address: &str) -> Result<BoxStorage> {
    #[cfg(all(feature = "zstd", feature = "encrypt"))]
    if let Some(inner) = address.strip_prefix(WRAPPED) {
        use tower_response_cache::storage::encrypted::{EncryptionKey, Keyring};
        use tower_response_cache::storage::{CompressedStorage, EncryptedStorage};
        let keyring = Keyring::new(EncryptionKey::from_bytes(&[1; 32]));
        let encrypted = EncryptedStorage::new(connect(inner).await?, keyring)?;
        return CompressedStorage::new(encrypted).map(BoxStorage::new);
    }
    connect(address).await
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl Harness for Place {
    type Storage = BoxStorage;

    async fn open(&self, name: &str) -> Result<BoxStorage> {
        let address = self.address(name);
        let storage = open_address(&address).await?;
        let mut opened = self.opened.lock().unwrap();
        if !opened.contains(&address) {
            opened.push(address);
        }
        Ok(storage)
    }

    fn shares(&self) -> bool {
        self.kind.is_shared()
    }

    fn persists(&self) -> bool {
        self.kind.is_shared()
    }

    async fn damage(&self, _: &BoxStorage, key: Key) -> bool {
        let entry = key.to_string()[..32].to_owned();
        let mut damaged = false;
        #[cfg(feature = "dynamodb")]
        if let Some(endpoint) = &self.kind.endpoint {
            let client = dynamodb::client(endpoint);
            for table in dynamodb::tables(&client, &self.prefix).await {
                damaged |= dynamodb::damage(&client, &table, &entry).await;
            }
        }
        if matches!(self.kind.address, Address::Directory) {
            for storage in std::fs::read_dir(self.folder.path()).unwrap() {
                let head = storage.unwrap().path().join(&entry[..2]).join(&entry).join("head");
                damaged |= head.exists() && std::fs::write(head, "damage").is_ok();
            }
        }
        for database in self.mongodb().await {
            let value = Binary { subtype: BinarySubtype::Generic, bytes: b"damage".to_vec() };
            let of_entry = doc! { "_id": { "$regex": format!("^{entry}") } };
            let update = doc! { "$set": { "value": value } };
            let records = database.collection::<Document>("records");
            damaged |= records.update_many(of_entry, update).await.unwrap().matched_count > 0;
        }
        for port in &self.kind.ports {
            for name in Redis::names(*port, &format!("{}*{entry}*", self.prefix)) {
                assert!(!Redis::ask(*port, &["SETRANGE", &name, "60", "damage"]).starts_with('-'));
                damaged = true;
            }
        }
        damaged
    }
}
