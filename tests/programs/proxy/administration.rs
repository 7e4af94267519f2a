//! The administration of the proxy's cache, asked by curl.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;

use super::clients::run;
use super::operating::{line, logged, stopped};
use super::program::{program, running};

const TOKEN: &str = "sixteen bytes or more";

/// Starts curl, and returns what it prints: the content and the status.
fn curl(arguments: &[&str]) -> Option<String> {
    let output = run("curl", &[&["-sS", "-w", " %{http_code}"], arguments].concat())?;
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn curl_administers_the_cache() {
    let origin = running(&["--listen", "127.0.0.1:0", "--bare", "5"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\nanother line\n")).unwrap();
    let origin = format!("http://{}", origin.address);
    let by_file = ["--origin", &origin, "--admin", "127.0.0.1:0", "--admin-token", file.to_str().unwrap()];
    let mut by_variable = program();
    by_variable.env("ADMIN_TOKEN", TOKEN);
    for (command, arguments) in [(by_variable, &by_file[..4]), (program(), &by_file)] {
        let (proxy, mut log) = logged(command, arguments);
        let told = line(&mut log, "administration on ");
        let admin = told.trim_end().split_once("administration on ").unwrap().1.to_owned();
        let bearer = format!("Authorization: Bearer {TOKEN}");
        for path in ["/a", "/b"] {
            assert!(proxy.get(path).contains("fwd=uri-miss"));
            assert!(proxy.get(path).contains("; hit"));
        }
        let host = "Host: example.test";
        let Some(refused) = curl(&["-X", "PURGE", "-H", host, &format!("{admin}a")]) else { return };
        assert!(refused.ends_with(" 401"), "{refused}");
        assert!(proxy.get("/a").contains("; hit"));
        let purged = curl(&["-X", "PURGE", "-H", host, "-H", &bearer, &format!("{admin}a")]).unwrap();
        assert_eq!(purged, "{\"count\":1,\"soft\":false} 200");
        assert!(proxy.get("/a").contains("fwd=uri-miss") && proxy.get("/b").contains("; hit"));
        let listed =
            curl(&["-u", &format!("any:{TOKEN}"), &format!("{admin}api/v1/entries?sort=url&limit=1")]);
        let listed = listed.unwrap();
        assert!(
            listed.contains("\"url\":\"http://example.test/a\"") && listed.contains("\"matching\":2"),
            "{listed}"
        );
        let content = "{\"urls\":[\"http://example.test/c\"]}";
        let fields = ["-H", &bearer, "-H", "X-Cache-Admin: 1", "-H", "Content-Type: application/json"];
        let warmed = curl(&[&fields[..], &["-d", content, &format!("{admin}api/v1/warm")]].concat()).unwrap();
        assert!(warmed.contains("\"stored\":1,") && warmed.ends_with(" 200"), "{warmed}");
        assert!(proxy.get("/c").contains("; hit"));
        // The administration is at its own address only, and the token is in no log.
        assert!(!proxy.get("/api/v1/entries").contains("matching"));
        assert!(!stopped(proxy, log).contains(TOKEN) && !told.contains(TOKEN));
    }
}

/// Serves responses with a tag until the test ends, one connection after the other.
fn origin_with_tags() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            // To the empty line that ends the head.
            while stream.by_ref().lines().next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let response = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nSurrogate-Key: news\r\n\
                            Content-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.into_inner().write_all(response.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn tags_of_the_origin_are_purged() {
    let origin = origin_with_tags();
    let arguments =
        ["--origin", &origin, "--admin", "127.0.0.1:0", "--tag-fields", "cache-tag, surrogate-key"];
    for (soft, expected) in [("0", "fwd=uri-miss"), ("1", "fwd=stale")] {
        let mut command = program();
        command.env("ADMIN_TOKEN", TOKEN);
        let (proxy, mut log) = logged(command, &arguments);
        let told = line(&mut log, "administration on ");
        let admin = told.trim_end().split_once("administration on ").unwrap().1;
        assert!(proxy.get("/a").contains("fwd=uri-miss"));
        assert!(proxy.get("/a").contains("; hit"));
        let fields =
            ["-H", &format!("Authorization: Bearer {TOKEN}"), "-H", &format!("Fastly-Soft-Purge: {soft}")];
        let purge = ["-X", "PURGE", "-H", "Surrogate-Key: news", admin];
        let Some(purged) = curl(&[&fields[..], &purge].concat()) else { return };
        assert!(purged.ends_with(" 200"), "{purged}");
        let answer = proxy.get("/a");
        assert!(answer.contains(expected), "{answer}");
        stopped(proxy, log);
    }
}

#[test]
fn administration_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = folder.path().join("missing").to_str().unwrap().to_owned();
    let cases = [
        (None, None, "needs a token: the variable ADMIN_TOKEN has none"),
        (Some("short"), None, "at least 16 bytes"),
        (Some(TOKEN), Some(file("empty", "")), "the file of --admin-token has none"),
        (Some(TOKEN), Some(file("short", "secret\n")), "at least 16 bytes"),
        (Some(TOKEN), Some(missing), "cannot read --admin-token"),
    ];
    for (variable, file, expected) in cases {
        let mut command: Command = program();
        command.args(["--listen", "127.0.0.1:0", "--origin", "http://127.0.0.1:1", "--admin", "127.0.0.1:0"]);
        command.env_remove("ADMIN_TOKEN");
        command.envs(variable.map(|token| ("ADMIN_TOKEN", token)));
        command.args(file.iter().flat_map(|file| ["--admin-token", file]));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{text}");
        assert!(text.lines().count() == 1 && text.contains(expected) && !text.contains("secret"), "{text}");
    }
}
