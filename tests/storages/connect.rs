//! Storages opened from an address, and the errors for addresses that cannot be used.

use tower_response_cache::storage::{
    BoxStorage, Key, MongoDbStorage, Record, RedisStorage, Storage, connect,
};
use tower_response_cache::{ErrorKind, Timestamp};

use crate::support::full_text;

async fn keeps(storage: &BoxStorage) {
    let key = Key::head([9; 16]);
    storage.write(key, Record::new("kept", Timestamp::NEVER)).await.unwrap();
    assert_eq!(storage.read(key).await.unwrap().unwrap().payload(), "kept");
}

#[tokio::test]
async fn local_storages_open_with_their_options() {
    keeps(&connect("memory:").await.unwrap()).await;
    keeps(&connect("memory:?max_bytes=100000").await.unwrap()).await;
    keeps(&connect("sqlite::memory:").await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b?.sqlite");
    let escaped = path.to_str().unwrap().replace(' ', "%20").replace('?', "%3F");
    let options = "max_bytes=1000000&readers=1&read_in_task=true&busy_timeout=0.5&recover=damaged_or_newer";
    for address in [format!("sqlite://{escaped}?{options}"), format!("sqlite:{escaped}")] {
        keeps(&connect(&address).await.unwrap()).await;
        assert!(path.exists());
    }
    assert_eq!(connect(&format!("sqlite:{escaped}")).await.unwrap().size().await.unwrap(), 1);
    let path = folder.path().join("a b?.responses");
    let escaped = path.to_str().unwrap().replace(' ', "%20").replace('?', "%3F");
    let options = "max_bytes=1000000&fsync=true&threads=1&lock_timeout=0.5";
    for address in [
        format!("directory://{escaped}?{options}"),
        format!("directory:{escaped}?unbounded"),
        format!("directory:{escaped}"),
    ] {
        keeps(&connect(&address).await.unwrap()).await;
        assert!(path.join("09").exists());
    }
    assert_eq!(connect(&format!("directory:{escaped}")).await.unwrap().size().await.unwrap(), 1);
}

#[tokio::test]
async fn address_sets_the_bound() {
    let storage = connect("memory:?max_bytes=100000").await.unwrap();
    assert!(storage.max_record_len() < 100_000);
    let refused = storage.write(Key::head([1; 16]), Record::new(vec![0; 100_000], Timestamp::NEVER)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn bad_addresses_are_explained_without_secrets() {
    let wrong = [
        ("", "scheme"),
        ("cache.sqlite", "sqlite://PATH"),
        ("file:cache.sqlite", "no storage has this scheme"),
        ("mysql://app:secret@localhost/db", "no storage has this scheme: use memory"),
        ("sqlit://secret", "did you mean sqlite?"),
        ("memory:?max_byte=secret", "did you mean max_bytes?"),
        ("SQLITE:x?Readers=secret", "no option of that name (did you mean readers?)"),
        ("directory:x?comprss=secret", "did you mean compress?"),
        ("sqlite:x?near=64MiB", "the option near needs tiered+"),
        ("Tiered+Memory:", "twice: write memory:"),
        ("memory:?max_bytes=secret", "max_bytes"),
        ("memory:?cache_size=1", "no option cache_size: it has max_bytes"),
        ("memory://secret", "no location"),
        ("sqlite:", "needs a path"),
        ("sqlite:x?readers=-1&y=secret", "readers"),
        ("sqlite:x?busy_timeout=soon", "busy_timeout"),
        ("sqlite:x?read_in_task=perhaps", "read_in_task"),
        ("sqlite:x?recover=secret", "refuse, damaged or damaged_or_newer"),
        ("directory:", "needs a path"),
        ("directory://", "needs a path"),
        ("directory:x?max_bytes=secret", "max_bytes"),
        ("directory:x?max_bytes=100", "max_bytes"),
        ("directory:x?max_bytes=100000&unbounded", "exclude each other"),
        ("directory:x?fsync=perhaps", "fsync"),
        ("directory:x?threads=-1", "threads"),
        ("directory:x?lock_timeout=0", "lock_timeout"),
        ("directory:x?readers=1&y=secret", "no option readers: it has max_bytes, unbounded"),
        ("redis:localhost", "redis://"),
        ("redis+other://localhost", "redis://"),
        ("redis://", "needs a host"),
        ("redis://app:secret@localhost:port/0", "must be a number from 1 to 65535"),
        ("redis://app:secret@localhost:0/0", "must be a number from 1 to 65535"),
        ("redis://app:secret@localhost:65536/0", "must be a number from 1 to 65535"),
        ("redis://app:secret@::1/0", "an IPv6 address needs brackets"),
        ("redis://app:secret@localhost/zero", "must be a number from 0"),
        ("redis://app:secret@localhost/-1", "must be a number from 0"),
        ("redis://app:secret@localhost/99999999999", "must be a number from 0"),
        ("redis+unix:///run/x.sock?db=secret", "the option db must be a number"),
        ("redis://app:secret@localhost/0?connection=secret", "did you mean connections?"),
        ("redis+sentinel://localhost/0?master=m&sentinel_user=secret", "no option sentinel_user: it has"),
        ("redis+sentinel://localhost/0?master=m&sentinel_pasword=secret", "did you mean sentinel_password?"),
        ("redis://app:secret%ff@localhost/0", "percent escapes"),
        ("redis://:secret@a,b/0", "redis+cluster://"),
        ("redis://:secret@localhost/0#insecure", "#"),
        ("redis://:secret@localhost/0?db=1", "no option db"),
        ("redis://:secret@localhost/0?protocol=4secret", "protocol"),
        ("redis://:secret@localhost/0?cache_name=a&cache_name=b", "cache_name is given twice"),
        ("redis://:secret@localhost/0?cache_name=", "cache name"),
        ("redis://:secret@localhost/0?cache_name=a%7Bb%7D", "braces"),
        ("redis://:secret@localhost/0?connections=0", "connections"),
        ("redis://:secret@localhost/0?connect_timeout=0", "connect_timeout"),
        ("redis+sentinel://:secret@localhost/0", "master"),
        ("redis+cluster://:secret@a,,b", "needs a host"),
        ("redis+cluster://:secret@a/x", "must be a number from 0"),
        ("redis://0.0.0.0", "does not accept this address"),
        ("mongodb:localhost", "mongodb://HOST"),
        ("mongodb://", "mongodb://HOST"),
        ("mongodb://app:secret@localhost:port/app", "mongodb://HOST"),
        ("mongodb://app:secret@localhost/app?w=secret&w=-1", "the value of the option w"),
        ("mongodb://app:secret@localhost/app?serverSelectionTimeoutMS=secret", "serverSelectionTimeoutMS"),
        (
            "MONGODB://app:secret@localhost/app?tls=true&w=1&READPREFERENCE=secret",
            "the option readPreference",
        ),
        ("mongodb://app:secret@localhost/app?replicaset=a&repicaSet=secret", "did you mean replicaSet?"),
        ("mongodb://app:secret@localhost/app?colection=secret", "did you mean collection?"),
        ("mongodb://app:secret@localhost/app?secret=secret", "mongodb://HOST"),
        ("mongodb://app:secret@localhost/?cache_name=", "cache name"),
        ("mongodb://app:secret@localhost/?cache_name=a.secret", "cache name"),
        ("mongodb://app:secret@localhost/?cache_name=a&cache_name=b", "cache_name is given twice"),
        ("mongodb://app:secret@localhost/Admin", "mongodb's own databases"),
        ("mongodb://app:secret@localhost/app?collection=$secret", "collection"),
        ("mongodb://app:secret@localhost/app?collection=system.secret", "collection"),
        ("mongodb://app:secret@localhost/app?response_timeout=0", "response_timeout"),
        ("mongodb://app:secret@localhost/app?connect_timeout=secret", "connect_timeout"),
    ];
    are_named(&wrong).await;
}

async fn are_named(wrong: &[(&str, &str)]) {
    for (address, named) in wrong {
        let error = connect(address).await.expect_err(address);
        assert_eq!(error.kind(), ErrorKind::Config, "{address}");
        let text = full_text(&error);
        assert!(text.contains(named), "{address}: {text}");
        assert!(!text.contains("secret"), "{address}: {text}");
    }
}

#[tokio::test]
async fn scheme_is_taken_in_any_letter_case() {
    let folder = tempfile::tempdir().unwrap();
    keeps(&connect(&format!("SQLITE://{}", folder.path().join("A.sqlite").display())).await.unwrap()).await;
    assert!(folder.path().join("A.sqlite").exists());
    keeps(&connect("Memory:?max_bytes=1gb").await.unwrap()).await;
    keeps(&connect("Tiered+SQLite::memory:").await.unwrap()).await;
    let folder = folder.path().join("B");
    keeps(&connect(&format!("Directory:{}", folder.display())).await.unwrap()).await;
    assert!(folder.exists());
    for address in ["REDIS://127.0.0.1:1", "Redis+Cluster://127.0.0.1:1"] {
        assert!(RedisStorage::builder(address).build().is_ok(), "{address}");
    }
    assert!(MongoDbStorage::builder("MongoDB://127.0.0.1:1/app").build().is_ok());
}

#[tokio::test]
async fn mistyped_path_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("hmoe");
    for (first, path) in [
        (deep.as_path(), deep.join("me/cache/c")),
        (std::path::Path::new("/hmoe-c0ffee"), "/hmoe-c0ffee/c".into()),
        (std::path::Path::new("/hmoe-c0ffee"), "/hmoe-c0ffee/me/c".into()),
    ] {
        for scheme in ["sqlite", "directory"] {
            let error = connect(&format!("{scheme}://{}", path.display())).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            assert!(text.starts_with(&format!("{} does not exist", first.display())), "{text}");
            assert!(text.contains("create the folder"), "{text}");
            assert!(!first.exists(), "{scheme}");
        }
    }
    for scheme in ["sqlite", "directory"] {
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = connect(&format!("{scheme}://{}", file.join("c/d").display())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let path = folder.path().join(scheme).join("c");
        keeps(&connect(&format!("{scheme}://{}", path.display())).await.unwrap()).await;
    }
}

/// Returns the text of the error of a server's storage that cannot reach it.
async fn why_unreachable(address: &str) -> String {
    let storage = connect(address).await.unwrap();
    let error = storage.read(Key::head([1; 16])).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{address}: {error}");
    let text = full_text(&error);
    assert!(!text.contains("secret"), "{address}: {text}");
    text
}

#[tokio::test]
async fn reason_why_server_is_unreachable_is_named() {
    for (address, named) in [
        // The top-level domain is reserved for names that do not exist (RFC 6761 §6.4).
        ("redis://app:secret@secret.invalid?connect_timeout=5", "host name"),
        ("rediss://app:secret@secret.invalid?connect_timeout=5", "host name"),
        ("redis+cluster://app:secret@secret.invalid?connect_timeout=5", "host name"),
        ("redis+sentinel://app:secret@secret.invalid?master=secret&connect_timeout=5", "host name"),
        ("mongodb://app:secret@secret.invalid/app?serverSelectionTimeoutMS=5000", "host name"),
        ("redis://app:secret@127.0.0.1:1", "nothing listens"),
        ("redis+cluster://app:secret@127.0.0.1:1", "nothing listens"),
        ("redis+sentinel://app:secret@127.0.0.1:1?master=secret", "nothing listens"),
        ("mongodb://app:secret@127.0.0.1:1/app?serverSelectionTimeoutMS=200", "nothing listens"),
        ("redis+unix:///nowhere/secret.sock", "socket of redis does not exist"),
    ] {
        let text = why_unreachable(address).await;
        assert!(text.contains(named), "{address}: {text}");
    }
}

/// Returns the port of a server that answers each connection with these bytes, or waits if there are none.
async fn port_that_answers(answer: Option<&'static [u8]>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut waiting = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match answer {
                Some(answer) => drop(tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await),
                None => waiting.push(stream),
            }
        }
    });
    port
}

#[tokio::test]
async fn tls_and_plain_are_told_apart() {
    // Redis without TLS waits for the end of the line, or complains about it. With TLS it closes what is not TLS.
    let (silent, plain) = (port_that_answers(None).await, port_that_answers(Some(b"-ERR no\r\n")).await);
    let closing = port_that_answers(Some(b"")).await;
    for (scheme, port, named) in [
        ("rediss", silent, "does not answer by TLS"),
        ("rediss", plain, "does not answer by TLS"),
        ("rediss", closing, "TLS"),
        ("redis", closing, "if it expects TLS, connect by rediss://"),
        ("redis+cluster", closing, "if it expects TLS, connect by rediss://"),
        ("rediss+cluster", plain, "does not answer by TLS"),
        ("rediss+cluster", silent, "rediss:// is with TLS, redis:// without"),
    ] {
        let text = why_unreachable(&format!("{scheme}://:secret@localhost:{port}?connect_timeout=0.3")).await;
        assert!(text.contains(named), "{scheme}, {port}: {text}");
    }
    for (port, option) in [(silent, "tls=true"), (closing, "tls=false"), (plain, "tls=true")] {
        let address =
            format!("mongodb://a:secret@localhost:{port}/app?{option}&serverSelectionTimeoutMS=500");
        let text = why_unreachable(&format!("{address}&connect_timeout=0.3")).await;
        assert!(text.contains("TLS") || text.contains("tls"), "{port}: {text}");
    }
}

#[tokio::test]
async fn unreachable_redis_fails_on_first_use() {
    // No server listens on port 1.
    let tags = "readPreference=nearest&readPreferenceTags=a:b&readPreferenceTags=";
    connect(&format!("mongodb://localhost:1/app?{tags}")).await.unwrap(); // an option that may occur twice
    for address in [
        "redis://app:secret@127.0.0.1:1/0?connect_timeout=0.2",
        "rediss://app:secret@127.0.0.1:1/0?connect_timeout=0.2",
        "redis+cluster://app:secret@127.0.0.1:1,127.0.0.1:2?connect_timeout=0.2",
        "redis+sentinel://app:secret@127.0.0.1:1/0?master=main&sentinel_password=secret&connect_timeout=0.2",
        "redis+unix:///nowhere/secret.sock?user=app&pass=secret",
    ] {
        let storage = connect(address).await.unwrap();
        let error = storage.read(Key::head([1; 16])).await.unwrap_err();
        let text = full_text(&error);
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{address}: {text}");
        assert!(!text.contains("secret") && !text.contains("127.0.0.1"), "{address}: {text}");
        let typed = RedisStorage::builder(address);
        assert!(!format!("{typed:?}").contains("secret"));
        let typed = typed.build().unwrap();
        assert!(!format!("{typed:?}").contains("secret"));
        assert!(typed.check().await.is_err());
    }
}

#[tokio::test]
async fn unreachable_mongodb_fails_on_first_use() {
    let address = "mongodb://app:secret@127.0.0.1:1/app?authSource=admin&serverSelectionTimeoutMS=200";
    let storage = connect(address).await.unwrap();
    let error = storage.read(Key::head([1; 16])).await.unwrap_err();
    let text = full_text(&error);
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{text}");
    assert!(!text.contains("secret") && !text.contains("127.0.0.1"), "{text}");
    let typed = MongoDbStorage::builder(address);
    assert!(!format!("{typed:?}").contains("secret"));
    assert!(!format!("{:?}", typed.build().unwrap()).contains("secret"));
}

#[tokio::test]
async fn builder_overrides_the_address() {
    let name = "redis://127.0.0.1:1/?cache_name=a%7B&connections=3";
    assert!(RedisStorage::builder(name).build().is_err());
    assert!(RedisStorage::builder(name).cache_name("fine").build().is_ok());
    assert!(RedisStorage::builder(name).cache_name("fine").connections(0).build().is_err());
}

#[cfg(feature = "dynamodb")]
mod dynamodb {
    use tower_response_cache::storage::DynamoDbStorage;

    use super::*;

    #[tokio::test]
    async fn bad_addresses_are_explained_without_secrets() {
        are_named(&[
            ("dynamodb:app", "dynamodb://TABLE?region=REGION"),
            ("dynamodb://a%20secret", "3 to 255 letters"),
            ("dynamodb://ab", "3 to 255 letters"),
            ("dynamodb://app/secret", "3 to 255 letters"),
            ("dynamodb://id:secret@app", "3 to 255 letters"),
            ("dynamodb://app?cache_name=secret", "named twice"),
            ("dynamodb://app?table=secret", "no option table: it has cache_name, region"),
            ("dynamodb://app?region=a&region=b", "region is given twice"),
            ("dynamodb://app?region=", "eu-central-1"),
            ("dynamodb://app?region=secret%2Fx", "eu-central-1"),
            ("dynamodb://app?region=a&endpoint=secret", "http://localhost:8000"),
            ("dynamodb://app?region=a&endpoint=ftp%3A%2F%2Fsecret", "http://localhost:8000"),
            ("dynamodb://app?region=a&endpoint=http%3A%2F%2Fid%3Asecret%40host", "without a user"),
            ("dynamodb://app?create_if_missing=secret", "create_if_missing"),
            ("dynamodb://app?eventually_consistent=secret", "eventually_consistent"),
            ("dynamodb://app?connect_timeout=0", "connect_timeout"),
            ("dynamodb://app?response_timeout=secret", "response_timeout"),
            ("dynamodb://app#secret", "3 to 255 letters"),
        ])
        .await;
    }

    #[test]
    fn options_are_accepted_and_builder_overrides() {
        let options = "region=eu-central-1&endpoint=http%3A%2F%2Flocalhost%3A8000&create_if_missing=true\
                       &eventually_consistent=true&connect_timeout=0.5&response_timeout=2";
        for address in [
            "dynamodb://app".to_owned(),
            "dynamodb://".to_owned(),
            format!("dynamodb://app?{options}"),
            format!("dynamodb://?cache_name=app&{options}"),
        ] {
            assert!(DynamoDbStorage::builder(&*address).build().is_ok(), "{address}");
        }
        assert!(DynamoDbStorage::builder("dynamodb://a").build().is_err());
        assert!(DynamoDbStorage::builder("dynamodb://a").cache_name("fine").build().is_ok());
        assert!(DynamoDbStorage::builder("dynamodb://app").region("not one").build().is_err());
        assert!(DynamoDbStorage::builder("dynamodb://app").endpoint("localhost").build().is_err());
        assert!(DynamoDbStorage::builder("dynamodb://app").key_names("value", "b").build().is_err());
        assert!(DynamoDbStorage::builder("dynamodb://app").expiry_name("entry").build().is_err());
    }
}
