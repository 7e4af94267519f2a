//! Redis as a single server, as a cluster, and under sentinels.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::child::{Server, free_port};
use super::find;

const HOST: &str = "127.0.0.1";

/// A server, and the commands that tests send to it directly, without the storage.
pub struct Redis {
    pub server: Server,
    pub port: u16,
}

impl Redis {
    /// Starts a server, or returns the reason why it cannot.
    pub fn start(arguments: &[&str]) -> Result<Self, String> {
        Self::on(free_port(), arguments)
    }

    fn on(port: u16, arguments: &[&str]) -> Result<Self, String> {
        let program = find("redis-server")?;
        let number = port.to_string();
        let own = ["--port", &number, "--bind", HOST, "--save", "", "--enable-debug-command", "yes"];
        let all = own.iter().chain(arguments).map(ToString::to_string).collect::<Vec<_>>();
        let server = Server::start(program, all, move || answers(port));
        Ok(Self { server, port })
    }

    /// Starts a server whose data outlives it.
    pub fn durable(arguments: &[&str]) -> Result<Self, String> {
        Self::start(&[&["--appendonly", "yes", "--appendfsync", "always"], arguments].concat())
    }

    /// Sends a command, and returns the reply as one text.
    ///
    /// The text of an error begins with a dash.
    pub fn command(&self, words: &[&str]) -> String {
        command(self.port, words).unwrap()
    }

    /// Sends a command, and panics if the reply is an error.
    pub fn ok(&self, words: &[&str]) -> String {
        let reply = self.command(words);
        assert!(!reply.starts_with('-'), "{words:?}: {reply}");
        reply
    }

    /// Sends a command to the server on a port.
    pub fn ask(port: u16, words: &[&str]) -> String {
        command(port, words).unwrap()
    }

    /// Returns the keys on the server on a port that match a pattern.
    pub fn names(port: u16, pattern: &str) -> Vec<String> {
        command(port, &["KEYS", pattern]).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> =
            self.ok(&["KEYS", pattern]).split_whitespace().map(str::to_owned).collect();
        keys.sort();
        keys
    }
}

/// Three masters, without replicas unless a test adds one.
pub struct Cluster(pub Vec<Redis>);

const CLUSTER: [&str; 10] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "1000",
    "--appendonly",
    "yes",
    "--cluster-require-full-coverage",
    "no",
    "--repl-diskless-sync-delay",
    "0",
];

impl Cluster {
    pub fn start() -> Result<Self, String> {
        let nodes: Result<Vec<_>, _> = (0..3).map(|_| Redis::start(&CLUSTER)).collect();
        let nodes = nodes?;
        for (node, slots) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            node.ok(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]);
        }
        for (number, node) in nodes.iter().enumerate() {
            node.ok(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for node in &nodes[1..] {
            node.ok(&["CLUSTER", "MEET", HOST, &nodes[0].port.to_string()]);
        }
        let cluster = Self(nodes);
        cluster.wait();
        Ok(cluster)
    }

    /// Adds a replica of a master, and waits until it can replace it.
    pub fn add_replica(&self, master: usize) -> Redis {
        let master = &self.0[master];
        let own = ["--cluster-replica-validity-factor", "0"];
        let replica = Redis::start(&[&CLUSTER[..], &own].concat()).unwrap();
        replica.ok(&["CLUSTER", "MEET", HOST, &master.port.to_string()]);
        let id = master.ok(&["CLUSTER", "MYID"]);
        until("the replica knows its master", || replica.command(&["CLUSTER", "REPLICATE", &id]) == "OK");
        let of_replica = replica.ok(&["CLUSTER", "MYID"]);
        until("every node knows the replica, which follows", || {
            let is_slave = |nodes: String| {
                nodes.lines().any(|line| line.starts_with(&of_replica) && line.contains("slave"))
            };
            // The replica knows the others only from its master at first, and forgets one whose handshake takes too long. If
            // it has lost all when the master dies, no one can elect it.
            let knows_all =
                |nodes: String| nodes.lines().count() > self.0.len() && !nodes.contains("handshake");
            self.0.iter().all(|node| is_slave(node.ok(&["CLUSTER", "NODES"])))
                && knows_all(replica.ok(&["CLUSTER", "NODES"]))
                && sees_all_slots(&replica)
                && replica.ok(&["INFO", "replication"]).contains("master_link_status:up")
        });
        replica
    }

    /// Waits until every node sees the whole cluster.
    pub fn wait(&self) {
        until("the cluster is complete", || self.0.iter().all(sees_all_slots));
    }

    pub fn address(&self, name: &str) -> String {
        let nodes: Vec<_> = self.0.iter().map(|node| format!("{HOST}:{}", node.port)).collect();
        format!("redis+cluster://{}/?cache_name={name}", nodes.join(","))
    }
}

/// Returns whether a node of a cluster sees an owner for each slot.
fn sees_all_slots(node: &Redis) -> bool {
    let info = node.command(&["CLUSTER", "INFO"]);
    info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
}

/// A master, its replica, and three sentinels that watch them.
pub struct Sentinels {
    pub master: Redis,
    pub replica: Redis,
    sentinels: Vec<Redis>,
    /// The files in which the sentinels keep their state.
    _files: tempfile::TempDir,
}

impl Sentinels {
    pub fn start() -> Result<Self, String> {
        let master = Redis::start(&[])?;
        let port = master.port.to_string();
        let replica = Redis::start(&["--replicaof", HOST, &port, "--repl-diskless-sync-delay", "0"])?;
        until("the replica follows", || {
            replica.command(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let files = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut sentinels = Vec::new();
        for number in 0..3 {
            // A sentinel writes its state into the file that it was started with.
            let path = files.path().join(format!("{number}.conf"));
            let text = format!(
                "sentinel monitor main {HOST} {port} 2\nsentinel down-after-milliseconds main 500\n\
                 sentinel failover-timeout main 3000\n"
            );
            std::fs::write(&path, text).map_err(|error| error.to_string())?;
            let port = free_port();
            let (number, path) = (port.to_string(), path.to_string_lossy().into_owned());
            let arguments =
                [path, "--sentinel".into(), "--port".into(), number, "--bind".into(), HOST.into()];
            let server = Server::start(find("redis-server")?, arguments, move || answers(port));
            sentinels.push(Redis { server, port });
        }
        until("the sentinels know each other and the replica", || {
            sentinels.iter().all(|sentinel| {
                let known = sentinel.command(&["SENTINEL", "MASTER", "main"]);
                let words: Vec<_> = known.split_whitespace().collect();
                let after = |name| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
                after("num-other-sentinels") == Some("2") && after("num-slaves") == Some("1")
            })
        });
        Ok(Self { master, replica, sentinels, _files: files })
    }

    pub fn address(&self, name: &str) -> String {
        let all: Vec<_> = self.sentinels.iter().map(|one| format!("{HOST}:{}", one.port)).collect();
        format!("redis+sentinel://{}/0?master=main&cache_name={name}", all.join(","))
    }
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(120), "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns whether a server answers.
///
/// A server that asks for a password, or still loads its data, answers too.
fn answers(port: u16) -> bool {
    command(port, &["PING"]).is_ok_and(|reply| !reply.is_empty())
}

fn command(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((HOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    reply(&mut BufReader::new(stream))
}

fn reply(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let number = || line[1..].parse::<i64>().unwrap_or(-1);
    match line.as_bytes().first() {
        Some(b'$') if number() >= 0 => {
            let mut bytes = vec![0; number() as usize + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Some(b'*') => {
            let parts: std::io::Result<Vec<_>> = (0..number().max(0)).map(|_| reply(from)).collect();
            Ok(parts?.join("\n"))
        }
        Some(b'-') => Ok(line.to_owned()),
        _ => Ok(line.get(1..).unwrap_or_default().to_owned()),
    }
}
