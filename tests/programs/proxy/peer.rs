//! HTTP/1 that is read and written by hand, on either side of the proxy.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The time after which a hanging test fails. No step takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the step takes too long")
}

/// The first line of a message and its fields.
#[derive(Clone, Debug)]
pub struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Self { line, fields: lines.map(field).collect() }
    }

    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str()).collect()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// A message with its content.
///
/// `cut` is set if the content was cut off.
#[derive(Debug)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
    pub cut: bool,
}

impl Message {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One end of a connection.
pub struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        patiently(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends bytes, unless the other end has closed.
    pub async fn try_send(&mut self, bytes: &str) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_bytes()).await
    }

    /// Sends bytes again and again, until the other end closes.
    pub async fn send_until_closed(&mut self, bytes: &[u8]) {
        patiently(async { while self.stream.write_all(bytes).await.is_ok() {} }).await;
    }

    /// Reads more bytes. Returns `false` if the other end has closed.
    async fn more(&mut self) -> bool {
        patiently(self.stream.read_buf(&mut self.read)).await.is_ok_and(|len| len > 0)
    }

    /// Reads the next head. Returns `None` if the other end closed instead.
    pub async fn try_head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                return Some(Head::parse(&String::from_utf8(head).unwrap()));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub async fn head(&mut self) -> Head {
        self.try_head().await.expect("the other end sends a head")
    }

    /// Reads `len` bytes, or fewer if the other end closes.
    pub async fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len && self.more().await {}
        let len = len.min(self.read.len());
        self.read.drain(..len).collect()
    }

    /// Reads all bytes until the other end closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads the content of a message, if any. Returns also whether it was cut off.
    pub async fn content(&mut self, head: &Head) -> (Vec<u8>, bool) {
        if let Some(len) = head.get("content-length") {
            let len = len.parse().unwrap();
            let body = self.bytes(len).await;
            let cut = body.len() < len;
            return (body, cut);
        }
        if head.get("transfer-encoding") != Some("chunked") {
            return (Vec::new(), false);
        }
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line().await else { return (body, true) };
            let len = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            let chunk = self.bytes(len).await;
            let cut = chunk.len() < len;
            body.extend(chunk);
            if cut {
                return (body, true);
            }
            if len == 0 {
                while self.line().await.is_some_and(|line| !line.is_empty()) {} // trailers
                return (body, false);
            }
            self.line().await;
        }
    }

    /// Reads a whole response with its content.
    pub async fn response(&mut self) -> Message {
        let head = self.head().await;
        let (body, cut) = self.content(&head).await;
        Message { head, body, cut }
    }

    /// Reads a response without content, such as one to HEAD or a 304.
    pub async fn bodiless(&mut self) -> Message {
        Message { head: self.head().await, body: Vec::new(), cut: false }
    }

    pub async fn ask(&mut self, request: &str) -> Message {
        self.send(request).await;
        self.response().await
    }

    /// Sends a GET for a path, and reads the response.
    pub async fn get(&mut self, path: &str) -> Message {
        self.ask(&get(path)).await
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n")
}
