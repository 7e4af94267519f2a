//! A link to a server that can be slow, hang, be cut or refuse connections.
//!
//! A test changes this while the link is in use.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the link treats every connection, from the moment that this is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// The speed in each direction of each connection.
    pub bytes_per_second: Option<u64>,
    /// The time that is added to each piece of data.
    pub latency: Duration,
    /// Whether connections are accepted, but no byte moves.
    pub hangs: bool,
    /// Whether open connections are closed, and new ones as soon as they are made.
    pub refuses: bool,
    /// The number of bytes from the server after which each connection is cut.
    ///
    /// They are counted from when this was set.
    pub cut_after: Option<u64>,
    /// The number of cuts. Connections of an older generation are cut.
    generation: u64,
    /// The number of changes, which distinguishes one setting from the next.
    set: u64,
}

/// A proxy in front of a server.
///
/// It has a runtime of its own, so that no test can block it.
pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    accepted: Arc<Mutex<u64>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    pub fn to(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (link, seen) = watch::channel(Link::default());
        // A listener of tokio would belong to the current runtime, which is that of the test.
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = listener.local_addr().unwrap().port();
        let accepted = Arc::<Mutex<u64>>::default();
        let count = Arc::clone(&accepted);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                tokio::spawn(carry(client, SocketAddr::from(([127, 0, 0, 1], port)), seen.clone()));
            }
        });
        Self { port: own, link, accepted, runtime: Some(runtime) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of connections that were made.
    pub fn accepted(&self) -> u64 {
        *self.accepted.lock().unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut Link)) {
        self.link.send_modify(|link| {
            change(link);
            link.set += 1;
        });
    }

    /// Resets the link to how it was at first. Open connections stay open.
    pub fn heal(&self) {
        self.set(|link| *link = Link { generation: link.generation, set: link.set, ..Link::default() });
    }

    /// Cuts all open connections.
    pub fn cut(&self) {
        self.set(|link| link.generation += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a task must not wait for its threads
        }
    }
}

async fn carry(client: TcpStream, server: SocketAddr, link: watch::Receiver<Link>) {
    let generation = link.borrow().generation;
    if link.borrow().refuses {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = link.clone();
    let is_cut = async move {
        // An error means that the proxy is gone.
        let _ = cut.wait_for(|link| link.generation != generation || link.refuses).await;
    };
    tokio::select! {
        () = pass(from_client, to_server, link.clone(), false) => {}
        () = pass(from_server, to_client, link, true) => {}
        () = is_cut => {}
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut link: watch::Receiver<Link>,
    is_reply: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    let (mut sent, mut counted) = (0, link.borrow().set);
    loop {
        let now = *link.borrow();
        // Small pieces keep the speed of a slow link even.
        let most =
            now.bytes_per_second.map_or(buffer.len(), |speed| (speed as usize / 50).clamp(1, buffer.len()));
        let Ok(count @ 1..) = from.read(&mut buffer[..most]).await else { return };
        let Ok(now) = link.wait_for(|link| !link.hangs).await.map(|link| *link) else { return };
        let time = now.bytes_per_second.map_or(0.0, |speed| count as f64 / speed as f64);
        let time = now.latency + Duration::from_secs_f64(time);
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        if counted != now.set {
            (sent, counted) = (0, now.set);
        }
        let rest = now.cut_after.filter(|_| is_reply).map_or(u64::MAX, |after| after.saturating_sub(sent));
        let piece = count.min(usize::try_from(rest).unwrap_or(usize::MAX));
        if to.write_all(&buffer[..piece]).await.is_err() || piece < count {
            return;
        }
        sent += piece as u64;
    }
}
