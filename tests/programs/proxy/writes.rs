//! The order in which interim heads and hyper's bytes are written, byte by byte.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::rt::Write;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, DuplexStream};

use crate::activity::Activity;
use crate::interim::{CLIENT, Interims, Ticket, ticket};
use crate::limits::Limits;
use crate::wire::Wire;

struct Connection {
    interims: Arc<Interims>,
    wire: Wire<TokioIo<DuplexStream>>,
    client: DuplexStream,
}

impl Connection {
    /// Creates a connection that takes `room` bytes before its client reads.
    fn new(room: usize) -> Self {
        let (server, client) = tokio::io::duplex(room);
        let interims = Arc::<Interims>::default();
        let (activity, slowest) = (Arc::new(Activity::new()), Limits::default().client);
        let wire = Wire::new(TokioIo::new(server), Arc::clone(&interims), activity, Arc::default(), slowest);
        Self { interims, wire, client }
    }

    async fn ticket(&self) -> Ticket {
        CLIENT.scope(Some(Arc::clone(&self.interims)), ticket()).await.unwrap()
    }

    async fn finished(&self) -> bool {
        poll_once(|cx| self.interims.poll_finish(cx)).await.is_some()
    }

    /// Polls a write once. Returns `None` if it is pending.
    async fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        poll_once(|cx| Pin::new(&mut self.wire).poll_write(cx, bytes)).await.map(Result::unwrap)
    }

    async fn flush(&mut self) -> bool {
        poll_once(|cx| Pin::new(&mut self.wire).poll_flush(cx)).await.map(Result::unwrap).is_some()
    }

    async fn read(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.client.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

async fn poll_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    poll_fn(|cx| {
        Poll::Ready(match poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

const HEAD: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

fn send(ticket: &Ticket) {
    let mut headers = HeaderMap::new();
    headers.insert("link", HeaderValue::from_static("</a>"));
    headers.insert("content-length", HeaderValue::from_static("5")); // an interim response has no content
    ticket.send(StatusCode::EARLY_HINTS, &headers);
}

#[tokio::test]
async fn interim_head_waits_for_hyper_flush() {
    let mut connection = Connection::new(1024);
    let ticket = connection.ticket().await;
    send(&ticket);
    // hyper still writes the previous response, so the interim head waits for its flush.
    assert_eq!(connection.write(b"the rest").await, Some(8));
    assert!(!connection.finished().await);
    assert!(connection.flush().await);
    assert!(connection.finished().await);
    assert_eq!(connection.read(8 + HEAD.len()).await, format!("the rest{HEAD}"));
}

#[tokio::test]
async fn started_interim_head_is_completed() {
    let mut connection = Connection::new(10);
    let ticket = connection.ticket().await;
    send(&ticket);
    assert!(!connection.flush().await);
    // hyper now writes something after all, such as 100 Continue. It must not come between.
    assert_eq!(connection.write(b"more").await, None);
    assert!(!connection.finished().await);
    assert_eq!(connection.read(10).await, HEAD[..10]);
    let mut rest = String::new();
    while rest.len() < HEAD.len() - 10 {
        assert!(!connection.finished().await);
        assert!(connection.write(b"more").await.is_none());
        rest += &connection.read(10.min(HEAD.len() - 10 - rest.len())).await;
    }
    assert_eq!(rest, HEAD[10..]);
    assert!(connection.flush().await);
    assert!(connection.finished().await);
}

#[tokio::test]
async fn ticket_is_void_after_its_request() {
    let mut connection = Connection::new(1024);
    let first = connection.ticket().await;
    assert!(connection.finished().await);
    send(&first);
    let second = connection.ticket().await;
    send(&first);
    assert!(connection.flush().await && connection.finished().await);
    send(&second);
    assert_eq!(connection.write(b"x").await, Some(1));
    assert!(connection.flush().await);
    assert_eq!(connection.read(1).await, "x");
    drop(connection.wire);
    let mut rest = String::new();
    connection.client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
}

#[tokio::test]
async fn no_ticket_outside_client_task() {
    assert!(ticket().await.is_none());
    let interims = Arc::<Interims>::default();
    let elsewhere = async { tokio::spawn(ticket()).await.unwrap().is_none() };
    assert!(CLIENT.scope(Some(interims), elsewhere).await);
    assert!(CLIENT.scope(None, ticket()).await.is_none());
}

#[tokio::test]
async fn queued_interim_heads_are_bounded() {
    let mut connection = Connection::new(1 << 20);
    let ticket = connection.ticket().await;
    for _ in 0..10_000 {
        send(&ticket);
    }
    while !connection.flush().await {
        tokio::task::yield_now().await; // tokio limits how often a task can write without yielding
    }
    drop(connection.wire);
    let mut sent = String::new();
    connection.client.read_to_string(&mut sent).await.unwrap();
    assert!(sent.len() <= 64 * 1024 && sent.len() > 60 * 1024 && sent.len().is_multiple_of(HEAD.len()));
}
