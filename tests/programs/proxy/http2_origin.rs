//! Origins that speak HTTP/2.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::peer::{get, patiently};
use super::program::{program, running};
use super::world::Proxy;
use crate::examples::Running;
use crate::limits::Limits;
use crate::origin::Speaks;

struct Asked {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    connection: usize,
}

async fn started() -> (mpsc::UnboundedReceiver<Asked>, Proxy) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut connection = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut http = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = http.accept().await {
                    let _ = sender.send(Asked { request, respond, connection }); // the test may have ended
                }
            });
            connection += 1;
        }
    });
    (asked, Proxy::speaking(Speaks::Http2, port, Limits::default()).await)
}

fn answer(mut asked: Asked) {
    let response = Response::builder().header("cache-control", "max-age=60").body(()).unwrap();
    let mut body = asked.respond.send_response(response, false).unwrap();
    body.send_data("hello".into(), true).unwrap();
}

#[tokio::test]
async fn host_becomes_the_authority() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client
        .send("GET /a?b HTTP/1.1\r\nHost: example.test:81\r\nTE: trailers\r\nConnection: TE, x-hop\r\nX-Hop: 1\r\n\r\n")
        .await;
    let asked = patiently(origin.recv()).await.unwrap();
    assert_eq!(asked.request.uri(), "http://example.test:81/a?b");
    let headers = asked.request.headers();
    assert!(!["host", "connection", "x-hop"].iter().any(|name| headers.contains_key(*name)), "{headers:?}");
    assert_eq!(headers["te"], "trailers");
    answer(asked);
    let response = client.response().await;
    assert_eq!(
        (response.text().as_str(), response.head.get("via")),
        ("hello", Some("2 tower-response-cache"))
    );
    let hit = client.ask("GET /a?b HTTP/1.1\r\nHost: example.test:81\r\n\r\n").await;
    assert!(hit.head.get("cache-status").unwrap().contains("; hit"));
    assert!(origin.try_recv().is_err());
}

#[tokio::test]
async fn refused_request_is_sent_once_more() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut asked = patiently(origin.recv()).await.unwrap();
    asked.respond.send_reset(Reason::REFUSED_STREAM);
    let again = patiently(origin.recv()).await.unwrap();
    assert_eq!((asked.connection, again.connection), (0, 1));
    answer(again);
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn failed_request_is_not_repeated() {
    let (mut origin, proxy) = started().await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut asked = patiently(origin.recv()).await.unwrap();
    asked.respond.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(client.response().await.head.status(), 502);
    assert!(origin.try_recv().is_err());
}

#[test]
fn https_origin_chooses_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let mut origin = program();
    origin.args(["--listen", "127.0.0.1:0", "--bare", "5", "--tls-cert", certificate, "--tls-key", key]);
    let origin = Running::start(origin);
    let url = format!("https://localhost:{}", origin.address.rsplit_once(':').unwrap().1);
    let options = ["--listen", "127.0.0.1:0", "--origin", &url, "--origin-ca", certificate];
    let chosen = running(&options).get("/");
    assert!(chosen.contains("via: 2 tower-response-cache"), "{chosen}");
    let older = running(&[&options[..], &["--origin-http1"]].concat()).get("/");
    assert!(older.contains("via: 1.1 tower-response-cache"), "{older}");
    let unknown = running(&options[..4]).get("/"); // no public authority has signed it
    assert!(unknown.starts_with("HTTP/1.1 502 "), "{unknown}");
}
