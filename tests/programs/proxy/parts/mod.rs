//! Programs that ask for parts of files, through a proxy that stores them, from an origin that breaks off.

mod kills;
mod media;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::clients::run;
use super::program::running;
use crate::examples::Running;

const SLICE: usize = 64 * 1024;

/// Serves one file by ranges, and the page beside it.
///
/// It shares the numbers of [`State`] with the test by a file, so that they outlive it. The file `asked` gets a line with the range
/// of each request for the file.
const ORIGIN: &str = r#"
import http.server, mimetypes, mmap, os, random, signal, struct, sys, threading
data, random, lock = open('file', 'rb').read(), random.Random(7), threading.Lock()
state = mmap.mmap(os.open('state', os.O_RDWR), 32)
asked = os.open('asked', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
SENT, BREAKS, PERCENT, KILL_AT = 0, 1, 2, 3

def get(number):
    return struct.unpack_from('<Q', state, 8 * number)[0]
def add(number, count):
    struct.pack_into('<Q', state, 8 * number, get(number) + count)
def kill_if_told():
    if 0 < get(KILL_AT) <= get(SENT):
        struct.pack_into('<Q', state, 8 * KILL_AT, 0)
        os.kill(os.getpid(), signal.SIGKILL)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *arguments):
        pass
    def do_HEAD(self):
        self.do_GET()
    def do_GET(self):
        if self.path == '/page':
            text = open('page', 'rb').read()
            self.send_response(200)
            self.send_header('Content-Type', 'text/html')
            self.send_header('Content-Length', str(len(text)))
            self.send_header('Cache-Control', 'no-store')
            self.end_headers()
            self.wfile.write(text)
            return
        with lock:
            kill_if_told()
        if '"a"' in self.headers.get('If-None-Match', ''):
            self.send_response(304)
            self.send_header('ETag', '"a"')
            self.end_headers()
            return
        first, last, code = 0, len(data) - 1, 200
        wanted = self.headers.get('Range')
        if wanted and self.headers.get('If-Range', '"a"') == '"a"':
            begin, end = wanted.split('=')[1].split('-')
            first, code = int(begin) if begin else len(data) - int(end), 206
            last = min(int(end), last) if begin and end else last
        if first > last:
            self.send_response(416)
            self.send_header('Content-Range', 'bytes */%d' % len(data))
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        self.send_response(code)
        self.send_header('ETag', '"a"')
        self.send_header('Cache-Control', 'max-age=3600')
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Type', mimetypes.guess_type(self.path)[0] or 'application/octet-stream')
        self.send_header('Content-Length', str(last + 1 - first))
        if code == 206:
            self.send_header('Content-Range', 'bytes %d-%d/%d' % (first, last, len(data)))
        self.end_headers()
        if self.command == 'HEAD':
            return
        os.write(asked, b'%d-%d\n' % (first, last))
        end = last + 1
        with lock:
            breaks = random.randrange(100) < get(PERCENT)
            if breaks:
                end = random.randrange(first, last + 1)
                add(BREAKS, 1)
        for at in range(first, end, 1024):
            piece = data[at:min(end, at + 1024)]
            # Counted before it is sent, so that the test finds it counted when it has arrived.
            with lock:
                kill_if_told()
                add(SENT, len(piece))
            self.wfile.write(piece)
        if breaks:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *arguments):
        pass
server = Server(('127.0.0.1', int(sys.argv[1])), Handler)
print('listening on http://127.0.0.1:%d' % server.server_port, flush=True)
server.serve_forever()
"#;

/// The numbers that the origin and the test share.
#[derive(Clone)]
struct State(Arc<File>);

impl State {
    fn get(&self, number: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 8 * number).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn set(&self, number: u64, value: u64) {
        self.0.write_all_at(&value.to_le_bytes(), 8 * number).unwrap();
    }

    /// Returns how many bytes of the file were sent.
    fn sent(&self) -> usize {
        self.get(0) as usize
    }

    /// Returns how many times a response broke off.
    fn breaks(&self) -> usize {
        self.get(1) as usize
    }

    /// Lets every response break off with a chance of so many percent.
    fn set_breaks(&self, percent: u64) {
        self.set(2, percent);
    }

    /// Lets the origin kill itself when it has sent so many bytes.
    fn set_kill_at(&self, sent: usize) {
        self.set(3, sent as u64);
    }
}

/// The kills of the origin that are left, and where they happen.
struct Kills {
    left: usize,
    /// The next one happens when at most so many bytes more have been sent.
    within: usize,
    random: fastrand::Rng,
}

impl Kills {
    /// Decides where the next one happens, if one is left.
    fn plan(&mut self, state: &State) {
        let at = state.sent() + self.random.usize(1..=self.within);
        state.set_kill_at(if self.left > 0 { at } else { 0 });
    }
}

/// The process of the origin. A thread starts it again when it is killed.
struct Origin {
    url: String,
    state: State,
    kills: Arc<Mutex<Kills>>,
    /// Nothing else gets the port while the origin is down. Nothing listens here, so that connections are refused then.
    _port: Socket,
    /// Dropping it ends the thread.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    fn start(folder: &Path) -> Self {
        let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Python sets it too.
        reserved.set_reuse_address(true).unwrap();
        reserved.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let port = reserved.local_addr().unwrap().as_socket().unwrap().port().to_string();
        std::fs::write(folder.join("state"), [0; 32]).unwrap();
        let state = File::options().read(true).write(true).open(folder.join("state")).unwrap();
        let state = State(Arc::new(state));
        let random = fastrand::Rng::with_seed(0);
        let kills = Arc::new(Mutex::new(Kills { left: 0, within: 1, random }));
        let folder = folder.to_owned();
        let start = move || {
            let mut python = Command::new("python3");
            python.args(["-c", ORIGIN, &port]).current_dir(&folder);
            Running::start(python)
        };
        let mut process = start();
        let url = format!("http://{}", process.address);
        let (running, ended) = channel();
        let (of_thread, planning) = (state.clone(), Arc::clone(&kills));
        let thread = std::thread::spawn(move || {
            while ended.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
                if process.child.try_wait().unwrap().is_some() {
                    let mut kills = planning.lock().unwrap();
                    kills.left =
                        kills.left.checked_sub(1).expect("the origin is killed as often as it is told");
                    kills.plan(&of_thread);
                    drop(kills);
                    process = start();
                }
            }
        });
        Self { url, state, kills, _port: reserved, running: Some(running), thread: Some(thread) }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.running = None;
        let _ = self.thread.take().unwrap().join(); // a panic there has failed what was asked of the origin
    }
}

struct World {
    origin: Origin,
    _proxy: Running,
    url: String,
    file: Vec<u8>,
}

impl World {
    /// Returns `None` if there is no Python.
    fn new(folder: &Path, file: Vec<u8>, options: &[&str]) -> Option<Self> {
        run("python3", &["--version"])?;
        std::fs::write(folder.join("file"), &file).unwrap();
        let origin = Origin::start(folder);
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--origin", &origin.url];
        arguments.extend(options);
        let proxy = running(&arguments);
        let url = format!("http://{}/file", proxy.address);
        Some(Self { origin, _proxy: proxy, url, file })
    }

    /// Returns how many bytes of the file were sent, and how many times a request broke off.
    fn report(&self) -> (usize, usize) {
        (self.origin.state.sent(), self.origin.state.breaks())
    }
}

fn file(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

fn slices() -> String {
    format!("{SLICE}B")
}

#[test]
fn eight_connections_cost_the_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let Some(world) = World::new(folder.path(), file(6_000_000), &["--slices", &slices()]) else { return };
    let directory = target.path().to_str().unwrap();
    let options = ["-q", "-x8", "-s8", "-k1M", "--file-allocation=none", "-d", directory, "-o", "whole"];
    if run("aria2c", &[&options[..], &[&world.url]].concat()).is_none() {
        return;
    }
    assert!(std::fs::read(target.path().join("whole")).unwrap() == world.file);
    // A connection that aria2c closes may end the slice that is under way, of which the origin has sent more than has arrived.
    let (sent, _) = world.report();
    assert!((world.file.len()..=world.file.len() + 8 * SLICE).contains(&sent), "{sent} bytes were sent");
}

#[test]
fn seek_in_a_long_file_costs_a_slice() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("cache.sqlite");
    let options = ["--slices", &slices(), "--storage", storage.to_str().unwrap()];
    let Some(world) = World::new(folder.path(), file(6_000_000), &options) else { return };
    for (number, start) in [3_000_000, 123, 5_999_990].into_iter().enumerate() {
        let range = format!("{start}-{}", start + 999);
        let Some(output) = run("curl", &["-sS", "-r", &range, &world.url]) else { return };
        assert!(output.stdout == world.file[start..world.file.len().min(start + 1000)]);
        assert!(world.report().0 <= (number + 1) * SLICE);
    }
    // Several ranges at once, of slices that are stored.
    let output = run("curl", &["-sS", "-r", "3000000-3000099,200-299", &world.url]).unwrap();
    for part in [&world.file[3_000_000..3_000_100], &world.file[200..300]] {
        assert!(output.stdout.windows(100).any(|window| window == part));
    }
}

/// Programs that continue what has broken off get the file, and the proxy asks only for what is missing.
#[test]
fn broken_downloads_are_continued() {
    for (options, is_sliced) in [(vec!["--store-parts"], false), (vec!["--slices", "65536B"], true)] {
        let folder = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        let Some(world) = World::new(folder.path(), file(3_000_000), &options) else { return };
        let path = |name: &str| target.path().join(name).to_str().unwrap().to_owned();
        world.origin.state.set_breaks(if is_sliced { 10 } else { 60 });
        let file = path("wget");
        // It continues from where it was, by Range.
        let wget =
            ["-q", "-c", "-t", "0", "--waitretry=0.01", "--retry-connrefused", "-O", &file, &world.url];
        if run("wget", &wget).is_some() {
            assert!(std::fs::read(&file).unwrap() == world.file);
        }
        let (sent, breaks) = world.report();
        // At most the bytes that were under way when a connection broke are lost.
        assert!(
            sent <= world.file.len() + breaks * SLICE,
            "{sent} bytes were sent, {breaks} requests broke off"
        );
        world.origin.state.set_breaks(0);
        let file = path("curl");
        std::fs::write(&file, &world.file[..1_000_000]).unwrap();
        if run("curl", &["-sS", "-C", "-", "-o", &file, &world.url]).is_some() {
            assert!(std::fs::read(&file).unwrap() == world.file);
        }
        assert_eq!(world.report(), (sent, breaks), "all of it is stored");
    }
}
