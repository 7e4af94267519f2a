//! DynamoDB Local, the server for tests by AWS.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use aws_smithy_http_client::tls;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, Region,
};
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::primitives::Blob;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::types::AttributeValue;
use tower_response_cache::storage::dynamodb::aws_sdk_dynamodb::{Client, Config};

use super::child::{Server, free_port};

/// Credentials for DynamoDB Local, which accepts any letters and digits.
const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

pub struct DynamoDb {
    pub server: Server,
    pub port: u16,
}

impl DynamoDb {
    /// Starts a server, or returns the reason why it cannot.
    pub fn start() -> Result<Self, String> {
        let (java, jars) = (super::find("java")?, jars().clone()?);
        let port = free_port();
        let arguments = [
            super::SHORT_LIVED_JVM.to_owned(),
            "-Xmx512m".to_owned(),
            format!("-Djava.library.path={}", jars.display()),
            "-cp".to_owned(),
            format!("{}/*", jars.display()),
            "com.amazonaws.services.dynamodbv2.local.main.ServerRunner".to_owned(),
            "-sharedDb".to_owned(),
            "-disableTelemetry".to_owned(),
            "-dbPath".to_owned(),
            ".".to_owned(),
            "-port".to_owned(),
            port.to_string(),
        ];
        let answers = move || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        Ok(Self { server: Server::start(java, arguments, answers), port })
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Returns the address of a storage that creates its table. The cache name is not in it yet.
pub fn address(endpoint: &str) -> String {
    let endpoint = endpoint.replace(':', "%3A").replace('/', "%2F");
    format!("dynamodb://?region=eu-central-1&create_if_missing=true&endpoint={endpoint}")
}

/// Returns the driver's settings for a server.
///
/// They lack an HTTP client, which a storage adds.
pub fn config(endpoint: &str) -> Config {
    Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .build()
}

/// Returns a client that accesses the server directly, without the storage.
pub fn client(endpoint: &str) -> Client {
    let https = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    Client::from_conf(config(endpoint).to_builder().http_client(https).build())
}

/// Runs this program again with credentials, and returns its exit code.
///
/// Returns `None` if the environment has credentials already. A process cannot change its own environment safely.
pub fn with_credentials() -> Option<ExitCode> {
    if CREDENTIALS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return None;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let status = again.args(std::env::args_os().skip(1)).envs(CREDENTIALS).status().unwrap();
    Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the names of the tables that begin with `prefix`.
pub async fn tables(client: &Client, prefix: &str) -> Vec<String> {
    let mut pages = client.list_tables().into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        names.extend(page.unwrap().table_names.unwrap_or_default());
    }
    names.retain(|name| name.starts_with(prefix));
    names
}

/// Replaces all records of an entry with invalid bytes. Returns whether there were any.
pub async fn damage(client: &Client, table: &str, entry: &str) -> bool {
    let query = client.query().table_name(table).key_condition_expression("#e = :e").consistent_read(true);
    let query = query.expression_attribute_names("#e", "entry");
    let found =
        query.expression_attribute_values(":e", AttributeValue::S(entry.to_owned())).send().await.unwrap();
    let items: Vec<HashMap<String, AttributeValue>> = found.items.unwrap_or_default();
    for item in &items {
        let mut item = item.clone();
        item.insert("value".to_owned(), AttributeValue::B(Blob::new([1, 2])));
        client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }
    !items.is_empty()
}

/// Returns the folder of the jars, which are downloaded once.
fn jars() -> &'static Result<PathBuf, String> {
    static JARS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    JARS.get_or_init(|| {
        super::find("java")?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dynamodb-local-2.6.1");
        if folder.is_dir() {
            return Ok(folder);
        }
        let maven = super::find("mvn")?;
        // The folder gets its name only once it is complete, because a download may be interrupted, or another
        // process may download too.
        let under_way = folder.with_extension(std::process::id().to_string());
        let pom = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/dynamodb/pom.xml");
        let mut command = Command::new(maven);
        command.args(["-q", "-B", "-f", pom, "dependency:copy-dependencies"]);
        let done = command.arg(format!("-DoutputDirectory={}", under_way.display())).output();
        let done = done.map_err(|error| format!("mvn does not start: {error}"))?;
        if !done.status.success() {
            return Err("DynamoDB Local could not be downloaded by mvn".to_owned());
        }
        if std::fs::rename(&under_way, &folder).is_err() {
            let _ = std::fs::remove_dir_all(&under_way); // another process was first
        }
        if folder.is_dir() { Ok(folder) } else { Err("DynamoDB Local could not be kept".to_owned()) }
    })
}
