//! Profiles, proxies and missing credentials, as the environment sets them.
//!
//! Each case starts this program again with an environment of its own.

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::Trial;
use tower_response_cache::Timestamp;
use tower_response_cache::storage::{DynamoDbStorage, Key, Record, Storage};

use super::endpoint;
use crate::places::{Kind, Place};
use crate::support::full_text;
use crate::trial;

/// The environment variable with the address of the storage that [`play`] opens.
const ADDRESS: &str = "STORES_DYNAMODB_ADDRESS";
const HEAD: Key = Key::head([7; 16]);

pub fn trials(kind: &Kind) -> Vec<Trial> {
    vec![
        trial("environment", kind, "credential_process_is_run", |place| Box::pin(process(place))),
        trial("environment", kind, "proxies_are_used_except_for_exempted_hosts", |place| {
            Box::pin(proxies(place))
        }),
        trial("environment", kind, "errors_explain_missing_credentials", |place| Box::pin(missing(place))),
    ]
}

/// Writes and reads a record with the settings of this process's environment.
///
/// Prints the payload, or the error. Returns `None` if [`ADDRESS`] is not set.
pub fn play() -> Option<ExitCode> {
    let address = std::env::var(ADDRESS).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = runtime.block_on(async {
        let storage = DynamoDbStorage::builder(address).build().unwrap();
        let record = Record::new("kept", Timestamp::from_secs(4_000_000_000));
        match storage.write(HEAD, record).await {
            Ok(()) => format!("{:?}", storage.read(HEAD).await.unwrap().unwrap().payload()),
            Err(error) => full_text(&error),
        }
    });
    println!("{said}");
    Some(ExitCode::SUCCESS)
}

/// Runs [`play`] in a process with this environment, and returns its output.
///
/// The process inherits only `PATH` from this one.
fn said(address: &str, folder: &Path, environment: &[(&str, &str)]) -> String {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    program.env("HOME", folder).env("AWS_CONFIG_FILE", folder.join("config"));
    program.env("AWS_EC2_METADATA_DISABLED", "true").env(ADDRESS, address);
    program.envs(environment.iter().copied());
    String::from_utf8(program.output().unwrap().stdout).unwrap()
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

async fn process(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let process = r#"echo '{"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "test"}'"#;
    let config = format!("[profile p]\ncredential_process = {process}\n");
    std::fs::write(folder.path().join("config"), config).unwrap();
    let said = said(&place.address("process"), folder.path(), &[("AWS_PROFILE", "p")]);
    assert!(said.contains("kept"), "{said}");
}

async fn proxies(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    // The server of the tests also accepts requests in the form that a client sends to a proxy.
    let real = endpoint(place);
    let named = |text: &str| text.replace(':', "%3A").replace('/', "%2F");
    let address = place.address("proxied").replace(&named(real), &named("http://dynamodb.invalid:8000"));
    let proxied = [&KEYS[..], &[("HTTP_PROXY", real)]].concat();
    let said_by = |environment: &[(&str, &str)]| said(&address, folder.path(), environment);
    let said = said_by(&proxied);
    assert!(said.contains("kept"), "{said}");
    for unproxied in [KEYS.to_vec(), [&proxied[..], &[("NO_PROXY", "dynamodb.invalid")]].concat()] {
        let said = said_by(&unproxied);
        assert!(said.contains("Unavailable"), "{said}");
    }
}

async fn missing(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let config = "
        [profile fails]
        credential_process = sh -c \"echo HIDDEN >&2; exit 3\"
        [profile session]
        sso_session = s
        sso_account_id = 123456789012
        sso_role_name = reader
        [sso-session s]
        sso_region = eu-central-1
        sso_start_url = https://sso.invalid/start
        [profile role]
        role_arn = arn:aws:iam::123456789012:role/reader
        source_profile = gone
    ";
    let lines: String = config.lines().map(|line| format!("{}\n", line.trim())).collect();
    std::fs::write(folder.path().join("config"), lines).unwrap();
    for (profile, kind, why) in [
        ("fails", "Unavailable", "external process exited with code exit status: 3"),
        ("session", "Unavailable", "failed to load the cached SSO token"),
        ("role", "Denied", "profile `gone` was not defined"),
        ("none", "Denied", "profile `none` was not defined"),
    ] {
        let said = said(&place.address("missing"), folder.path(), &[("AWS_PROFILE", profile)]);
        assert!(said.contains(kind) && said.contains(why), "{profile}: {said}");
        assert!(!said.contains("HIDDEN") && !said.contains("sso.invalid"), "{profile}: {said}");
    }
    let said = said(&place.address("missing"), folder.path(), &[]);
    assert!(said.contains("no providers in chain provided credentials"), "{said}");
    assert!(said.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"), "{said}");
}
