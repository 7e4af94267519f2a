//! Programs that ask for parts of files, through a proxy that stores them, from an origin that breaks off.

use std::path::Path;
use std::process::Command;

use super::clients::run;
use super::program::running;
use crate::examples::Running;

const SLICE: usize = 64 * 1024;

/// Serves one file by ranges, and counts the bytes that it sends.
///
/// `/breaks/N` lets every request for the file break off with a chance of N percent. `/report` says how many bytes of the file
/// were sent, and how many times a request broke off.
const ORIGIN: &str = r#"
import http.server, random, sys, threading
data, random, lock = open('file', 'rb').read(), random.Random(7), threading.Lock()
state = {'percent': 0, 'sent': 0, 'breaks': 0}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *arguments):
        pass
    def say(self, text):
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.send_header('Cache-Control', 'no-store')
        self.end_headers()
        self.wfile.write(text.encode())
    def do_HEAD(self):
        self.do_GET()
    def do_GET(self):
        if self.path.startswith('/breaks/'):
            state['percent'] = int(self.path.split('/')[2])
            return self.say('ok')
        if self.path == '/report':
            return self.say('%d %d' % (state['sent'], state['breaks']))
        first, last, code = 0, len(data) - 1, 200
        asked = self.headers.get('Range')
        if asked and self.headers.get('If-Range', '"a"') == '"a"':
            begin, end = asked.split('=')[1].split('-')
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
        self.send_header('Content-Length', str(last + 1 - first))
        if code == 206:
            self.send_header('Content-Range', 'bytes %d-%d/%d' % (first, last, len(data)))
        self.end_headers()
        if self.command == 'HEAD':
            return
        end = last + 1
        with lock:
            breaks = random.randrange(100) < state['percent']
            if breaks:
                end = random.randrange(first, last + 1)
        for at in range(first, end, 1024):
            piece = data[at:min(end, at + 1024)]
            self.wfile.write(piece)
            with lock:
                state['sent'] += len(piece)
        if breaks:
            state['breaks'] += 1
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *arguments):
        pass
server = Server(('127.0.0.1', 0), Handler)
print('listening on http://127.0.0.1:%d' % server.server_port, flush=True)
server.serve_forever()
"#;

struct World {
    _origin: Running,
    origin: String,
    _proxy: Running,
    url: String,
    file: Vec<u8>,
}

impl World {
    /// Returns `None` if there is no Python.
    fn new(folder: &Path, len: usize, options: &[&str]) -> Option<Self> {
        run("python3", &["--version"])?;
        let file: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect();
        std::fs::write(folder.join("file"), &file).unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", ORIGIN]).current_dir(folder);
        let origin_process = Running::start(python);
        let origin = format!("http://{}", origin_process.address);
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--origin", &origin];
        arguments.extend(options);
        let proxy = running(&arguments);
        let url = format!("http://{}/file", proxy.address);
        Some(Self { _origin: origin_process, origin, _proxy: proxy, url, file })
    }

    fn breaks(&self, percent: u32) {
        run("curl", &["-sS", &format!("{}/breaks/{percent}", self.origin)]).unwrap();
    }

    /// Returns how many bytes of the file were sent, and how many times a request broke off.
    fn report(&self) -> (usize, usize) {
        let output = run("curl", &["-sS", &format!("{}/report", self.origin)]).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut numbers = text.split(' ').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

fn slices() -> String {
    format!("{SLICE}B")
}

#[test]
fn eight_connections_cost_the_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let Some(world) = World::new(folder.path(), 6_000_000, &["--slices", &slices()]) else { return };
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
    let Some(world) = World::new(folder.path(), 6_000_000, &options) else { return };
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
        let Some(world) = World::new(folder.path(), 3_000_000, &options) else { return };
        let path = |name: &str| target.path().join(name).to_str().unwrap().to_owned();
        world.breaks(if is_sliced { 10 } else { 60 });
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
        world.breaks(0);
        let file = path("curl");
        std::fs::write(&file, &world.file[..1_000_000]).unwrap();
        if run("curl", &["-sS", "-C", "-", "-o", &file, &world.url]).is_some() {
            assert!(std::fs::read(&file).unwrap() == world.file);
        }
        assert_eq!(world.report(), (sent, breaks), "all of it is stored");
    }
}
