//! A server in Java that speaks MongoDB's protocol.
//!
//! Maven downloads it once, into cargo's target directory.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::child::{Server, free_port};
use super::find;

/// A running server.
pub struct MongoDb {
    pub server: Server,
    pub port: u16,
}

impl MongoDb {
    /// Starts a server, or returns the reason why it cannot.
    pub fn start() -> Result<Self, String> {
        let (java, jars, port) = (find("java")?, jars()?, free_port());
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/mongodb/TestMongo.java");
        let arguments = [
            super::SHORT_LIVED_JVM.to_owned(),
            "-cp".to_owned(),
            format!("{}/*", jars.display()),
            program.display().to_string(),
            port.to_string(),
            "data.h2".to_owned(),
        ];
        let server = Server::start(java, arguments, move || listens(port));
        Ok(Self { server, port })
    }

    /// Returns the address for tests that are not about timeouts.
    ///
    /// On busy cores the server needs longer than the defaults allow. The driver closes all connections when it misses one
    /// check.
    pub fn patient_url(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?connectTimeoutMS=20000&serverSelectionTimeoutMS=20000", self.port)
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(1)).is_ok()
}

/// Returns the folder with the server's jars.
fn jars() -> Result<PathBuf, String> {
    static FETCHED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FETCHED.get_or_init(fetch).clone()
}

fn fetch() -> Result<PathBuf, String> {
    // Cargo's folder for the files of tests, which is within the target directory.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mongo-java-server-1.47.0");
    let done = folder.join("done");
    if done.exists() {
        return Ok(folder);
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/mongodb/pom.xml");
    let status = Command::new(find("mvn")?)
        .args(["-q", "-f"])
        .arg(project)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {
            std::fs::write(done, "").map_err(|_| "mongo-java-server cannot be kept".to_owned())?;
            Ok(folder)
        }
        _ => Err("mongo-java-server cannot be fetched by Maven".to_owned()),
    }
}
