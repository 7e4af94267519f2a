//! A server in front of DynamoDB that answers some requests itself and forwards the others.
//!
//! Its answers have the form that the API reference describes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// How the front answers a request.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Answers with an error of this name.
    Error(&'static str),
    /// Answers that no item of the batch was processed.
    Unprocessed,
    /// Forwards the request to DynamoDB.
    HandOn,
}

#[derive(Default)]
struct Script {
    next: VecDeque<Answer>,
    then: Option<Answer>,
    asked: Vec<(String, String)>,
    running: usize,
    most_running: usize,
}

pub struct Front {
    pub endpoint: String,
    script: Arc<Mutex<Script>>,
}

impl Front {
    pub async fn of(endpoint: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::<Mutex<Script>>::default();
        let (known, behind) = (Arc::clone(&script), endpoint.parse::<Uri>().unwrap());
        let client = Client::builder(TokioExecutor::new()).build_http();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, behind, client) = (Arc::clone(&known), behind.clone(), client.clone());
                let answer = hyper::service::service_fn(move |request| {
                    answer(request, Arc::clone(&script), behind.clone(), client.clone())
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { endpoint: own, script }
    }

    /// Sets the answers to the next requests, one for each.
    ///
    /// Requests after these are forwarded.
    pub fn answers(&self, next: &[Answer]) {
        let mut script = self.script.lock().unwrap();
        (script.next, script.then) = (next.iter().copied().collect(), None);
    }

    /// Sets the answer to all requests that [`answers`](Self::answers) does not cover.
    pub fn always(&self, answer: Answer) {
        self.script.lock().unwrap().then = Some(answer);
    }

    /// Returns the operations and bodies of the requests since the last call.
    pub fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }

    /// Returns the largest number of requests that ran at the same time.
    pub fn most_running(&self) -> usize {
        self.script.lock().unwrap().most_running
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
    behind: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    {
        let mut script = script.lock().unwrap();
        script.running += 1;
        script.most_running = script.most_running.max(script.running);
    }
    let answer = answer_counted(request, &script, behind, client).await;
    script.lock().unwrap().running -= 1;
    Ok(answer)
}

async fn answer_counted(
    request: Request<Incoming>,
    script: &Mutex<Script>,
    behind: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
) -> Response<Full<Bytes>> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let target = head.headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let answer = {
        let mut script = script.lock().unwrap();
        script.asked.push((target, text.clone()));
        script.next.pop_front().or(script.then).unwrap_or(Answer::HandOn)
    };
    let own = |code: u16, body: String| {
        let answer = Response::builder().status(code).header("content-type", "application/x-amz-json-1.0");
        answer.body(Full::from(body)).unwrap()
    };
    match answer {
        Answer::Error(name) => own(
            400,
            format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{name}","message":"secret text"}}"#),
        ),
        Answer::Unprocessed => own(200, text.replacen("RequestItems", "UnprocessedItems", 1)),
        Answer::HandOn => {
            let mut uri = behind.into_parts();
            uri.path_and_query = head.uri.path_and_query().cloned();
            head.uri = Uri::from_parts(uri).unwrap();
            let answer = client.request(Request::from_parts(head, Full::new(body))).await.unwrap();
            let (head, body) = answer.into_parts();
            Response::from_parts(head, Full::new(body.collect().await.unwrap().to_bytes()))
        }
    }
}
