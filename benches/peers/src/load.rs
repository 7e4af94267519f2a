//! Latency against load, over sockets.
//!
//! A server of hyper has one core, and the client another. The client is an open loop: requests are due at times that do
//! not depend on the answers, and the latency counts from when a request was due. So a stall is seen by every request that
//! was due meanwhile, not only by the one that met it (coordinated omission).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use peers::origin::{Ask, Bare};
use peers::peers::{Origin, ours};
use peers::report::{Table, duration};
use tower::{Layer, Service};
use tower_response_cache::storage::{MemoryStorage, SqliteStorage};

use crate::chart;

/// The length of every body.
const LEN: usize = 1024;
/// As many requests are on their way at once. More wait in the client, and their latency counts.
const CONNECTIONS: usize = 64;
/// The loads that are offered, in parts of the rate that the server reaches when requests never wait.
const LOADS: [f64; 11] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];

/// The work of the server.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    NoCache,
    Memory,
    Sqlite,
}

/// The latencies of one kind of request at each load.
pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
}

#[derive(Clone, Copy)]
pub struct Point {
    /// Requests per second that were due.
    pub rate: f64,
    /// Latencies in seconds.
    pub median: f64,
    pub p99: f64,
}

/// Starts a server with a runtime of one thread on the first core, and returns its address.
fn serve(kind: Kind, folder: &Path) -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let path = folder.join(address.port().to_string());
    std::thread::spawn(move || {
        pin(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let origin = Origin::new(LEN);
            match kind {
                Kind::NoCache => accept(listener, Bare::new(LEN)).await,
                Kind::Memory => accept(listener, ours(MemoryStorage::new()).layer(origin)).await,
                // The threads of the storage inherit the core.
                Kind::Sqlite => {
                    let storage = SqliteStorage::open(path).await.unwrap();
                    accept(listener, ours(storage).layer(origin)).await;
                }
            }
        });
    });
    address
}

async fn accept<S, B>(listener: tokio::net::TcpListener, service: S)
where
    S: Service<Ask, Response = Response<B>, Future: Send> + Clone + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let service = service.clone();
        let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (mut parts, _) = request.into_parts();
            parts.uri = format!("http://example.com{}", parts.uri).parse().unwrap();
            service.clone().call(Request::from_parts(parts, Empty::new()))
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
        );
    }
}

/// Keeps the thread on a core, if the system allows it.
fn pin(core: usize) {
    if let Some(core) = core_affinity::get_core_ids().and_then(|cores| cores.get(core).copied()) {
        core_affinity::set_for_current(core);
    }
}

struct Connection {
    stream: TcpStream,
    /// The bytes of the response that have come.
    received: Vec<u8>,
    due: Instant,
}

/// A client with its connections.
struct Client {
    poll: Poll,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    is_miss: bool,
    next: u64,
}

impl Client {
    fn connect(address: SocketAddr, is_miss: bool) -> Self {
        let poll = Poll::new().unwrap();
        let connections = (0..CONNECTIONS)
            .map(|number| {
                let stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = TcpStream::from_std(stream);
                poll.registry().register(&mut stream, Token(number), Interest::READABLE).unwrap();
                Connection { stream, received: Vec::new(), due: Instant::now() }
            })
            .collect();
        Self { poll, connections, idle: (0..CONNECTIONS).collect(), is_miss, next: 0 }
    }

    /// Sends requests for a time, so many each second, and returns their latencies and how many were answered in a second.
    ///
    /// Without a rate, a request is due whenever a connection is free.
    fn run(&mut self, rate: Option<f64>, time: Duration) -> (Histogram<u64>, f64) {
        let mut latencies = Histogram::new(3).unwrap();
        let mut events = Events::with_capacity(CONNECTIONS);
        let mut waiting = VecDeque::new();
        let began = Instant::now();
        let mut due = began;
        let mut now = began;
        loop {
            let is_over = now.duration_since(began) >= time;
            if is_over && self.idle.len() == CONNECTIONS && waiting.is_empty() {
                break;
            }
            match rate {
                Some(rate) => {
                    while due <= now && due.duration_since(began) < time {
                        waiting.push_back(due);
                        // Requests that do not know of each other come at exponentially distributed intervals.
                        due += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
                    }
                }
                None if !is_over => waiting.extend(self.idle.iter().map(|_| now)),
                None => {}
            }
            while let Some(due) = waiting.pop_front() {
                let Some(free) = self.idle.pop() else {
                    waiting.push_front(due);
                    break;
                };
                self.send(free, due);
            }
            // It never sleeps, for waking up would take longer than a hit.
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            now = Instant::now();
            for event in &events {
                let Token(number) = event.token();
                if self.receive(number) {
                    let latency = now.duration_since(self.connections[number].due);
                    latencies.record(latency.as_nanos() as u64).unwrap();
                    self.idle.push(number);
                }
            }
        }
        let answered = latencies.len() as f64 / began.elapsed().as_secs_f64();
        (latencies, answered)
    }

    fn send(&mut self, number: usize, due: Instant) {
        let query = if self.is_miss { self.next } else { 0 };
        self.next += 1;
        let connection = &mut self.connections[number];
        connection.due = due;
        connection.received.clear();
        let request = format!(
            "GET /a/usual/path?with=a&query={query} HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\nuser-agent: bench\r\n\r\n"
        );
        // A connection without a request under way takes one at once.
        connection.stream.write_all(request.as_bytes()).unwrap();
    }

    /// Reads what has come, and returns whether the response is complete.
    fn receive(&mut self, number: usize) -> bool {
        let connection = &mut self.connections[number];
        let mut buffer = [0; 4096];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(len) => connection.received.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
            if is_complete(&connection.received) {
                return true;
            }
        }
        false
    }
}

/// Returns whether a response has come to its end. All bodies have the same length.
fn is_complete(received: &[u8]) -> bool {
    // The head has a few hundred bytes and cannot end before those of the body have come.
    let Some(start) = received.len().checked_sub(LEN + 4) else { return false };
    &received[start..start + 4] == b"\r\n\r\n"
}

/// Measures a server at each load, three times in turn.
fn measure(name: &str, address: SocketAddr, is_miss: bool, is_quick: bool) -> Series {
    let (rounds, time) = if is_quick { (1, 10) } else { (3, 250) };
    let time = Duration::from_millis(time);
    let mut client = Client::connect(address, is_miss);
    client.run(None, time); // stores the response, and lets the machine get up to speed
    let (_, most) = client.run(None, time);
    let mut runs: Vec<Vec<Point>> = LOADS.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (load, runs) in LOADS.iter().zip(&mut runs) {
            let rate = load * most;
            let (latencies, _) = client.run(Some(rate), time);
            let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e9;
            runs.push(Point { rate, median: at(0.5), p99: at(0.99) });
        }
    }
    let middle =
        |runs: &[Point], value: fn(&Point) -> f64| peers::sample::median(runs.iter().map(value).collect());
    let points = runs.iter().map(|runs| Point {
        rate: runs[0].rate,
        median: middle(runs, |point| point.median),
        p99: middle(runs, |point| point.p99),
    });
    Series { name: name.to_owned(), points: points.collect() }
}

/// Measures hits and misses, draws them, and returns their tables.
pub fn tables(is_quick: bool, pictures: Option<&Path>) -> Vec<Table> {
    pin(1);
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Vec::new();
    for (title, file, is_miss) in
        [("hits", "load-hits.svg", false), ("misses, stored", "load-misses.svg", true)]
    {
        let kinds = [("no cache", Kind::NoCache), ("memory", Kind::Memory), ("SQLite", Kind::Sqlite)];
        let series = kinds.map(|(name, kind)| measure(name, serve(kind, folder.path()), is_miss, is_quick));
        if let Some(folder) = pictures {
            chart::draw(&folder.join(file), title, &series);
        }
        let columns = LOADS.iter().map(|load| format!("{:.0} %", load * 100.0));
        let mut table = Table::new(
            &format!("Latency against load: {title}"),
            "Median and 99th percentile at parts of the highest rate.",
            columns.chain(["100 % is".to_owned()]).collect(),
        );
        for one in &series {
            for point in &one.points {
                table.push(&one.name, format!("{}, {}", duration(point.median), duration(point.p99)));
            }
            table.push(&one.name, format!("{:.0}/s", one.points[LOADS.len() - 1].rate));
        }
        tables.push(table);
    }
    tables
}
