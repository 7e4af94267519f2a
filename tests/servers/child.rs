//! A server program as a child process.
//!
//! It can be killed, stopped, continued, and started again on its port.

use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Whether a restarted server finds its data again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Kept,
    Lost,
}

/// A server with its data in a folder of its own. Dropping it kills the server.
pub struct Server {
    program: PathBuf,
    arguments: Vec<OsString>,
    child: Option<Child>,
    folder: TempDir,
    answers: Box<dyn Fn() -> bool + Send>,
}

impl Server {
    /// Starts a program in an empty folder, and waits until `answers` returns true.
    pub fn start(
        program: PathBuf,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        answers: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { program, arguments, child: None, folder, answers: Box::new(answers) };
        server.launch();
        server.wait();
        server
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the server (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended by itself
            let _ = child.wait();
        }
    }

    /// Terminates the server (SIGTERM), and waits for its end.
    pub fn terminate(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Stops the server (SIGSTOP). It holds its connections and does nothing.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets a stopped server continue (SIGCONT).
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// Starts the server again, and waits until it answers.
    pub fn restart(&mut self, data: Data) {
        self.launch_again(data);
        self.wait();
    }

    /// Starts the server again, and does not wait.
    pub fn launch_again(&mut self, data: Data) {
        self.kill();
        if data == Data::Lost {
            self.folder = tempfile::tempdir().unwrap();
        }
        self.launch();
    }

    /// Waits until the server answers.
    pub fn wait(&mut self) {
        let begun = Instant::now();
        while !(self.answers)() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "{} ended while it started: {ended:?}", self.program.display());
            assert!(begun.elapsed() < Duration::from_secs(60), "{} does not answer", self.program.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn launch(&mut self) {
        // A test process that is killed drops nothing, so the kernel has to kill the server with it.
        let mut command = match super::find("setpriv") {
            Ok(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL"]).arg(&self.program);
                command
            }
            Err(_) => Command::new(&self.program),
        };
        command.args(&self.arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(spawn(command).unwrap());
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("the server runs").id();
        let status = Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts children from one thread that never ends.
///
/// The kernel kills a child when the thread that started it ends, and each test has a thread of its own.
fn spawn(command: Command) -> io::Result<Child> {
    static PARENT: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let parent = PARENT.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    parent.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap()
}

/// Returns a free port, and each port only once.
///
/// The port 10,000 above it is free too, since the nodes of a cluster talk to each other there. Both are below the
/// ports that the system gives to clients.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap();
    for _ in 0..1000 {
        let port = fastrand::u16(11_000..22_000);
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if !given.contains(&port) && is_free(port) && is_free(port + 10_000) {
            given.push(port);
            return port;
        }
    }
    panic!("no port is free");
}
