//! A scripted origin on a real socket.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub type Piece = Result<Bytes, std::io::Error>;
pub type SentBody = BoxBody<Bytes, std::io::Error>;

/// A response of the origin.
pub struct Answer {
    response: Response<Bytes>,
    never: bool,
}

pub fn answer(body: impl Into<Bytes>) -> Answer {
    Answer { response: Response::new(body.into()), never: false }
}

pub fn redirect_to(code: u16, location: &str) -> Answer {
    answer("").status(code).field("location", location)
}

impl Answer {
    pub fn status(mut self, code: u16) -> Self {
        *self.response.status_mut() = code.try_into().unwrap();
        self
    }

    pub fn field(mut self, name: &'static str, value: &str) -> Self {
        self.response.headers_mut().insert(name, value.try_into().unwrap());
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.response.body_mut() = body.into();
        self
    }

    /// Never sends the response.
    pub fn never(mut self) -> Self {
        self.never = true;
        self
    }

    async fn into_response(self) -> Response<SentBody> {
        if self.never {
            std::future::pending::<()>().await;
        }
        self.response.map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed())
    }
}

/// A request to the origin.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An origin that records its requests.
pub struct Origin {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Origin {
    /// Starts an origin that answers each request from `script`.
    pub async fn start(mut script: impl FnMut(&Request<Bytes>) -> Answer + Send + 'static) -> Self {
        let script = Arc::new(Mutex::new(move |request: &Request<Bytes>| script(request)));
        Self::serve(move |request| {
            let answer = (script.lock().unwrap())(&request);
            answer.into_response()
        })
        .await
    }

    /// Starts an origin that sends the pieces of one body as they come.
    ///
    /// An error breaks the body off.
    pub async fn piecewise(fields: &'static [(&'static str, &'static str)]) -> (Self, mpsc::Sender<Piece>) {
        let (sender, receiver) = mpsc::channel::<Piece>(1);
        let receiver = Arc::new(Mutex::new(Some(receiver)));
        let origin = Self::serve(move |_| {
            let receiver = receiver.lock().unwrap().take().expect("only one request is expected");
            let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
                Some((receiver.recv().await?.map(Frame::data), receiver))
            });
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
            for (name, value) in fields {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            std::future::ready(response)
        })
        .await;
        (origin, sender)
    }

    /// Starts an origin that answers each request with a response whose body may break off.
    pub async fn serve<F>(answer: impl Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<SentBody>> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let remembered = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, answer.clone(), Arc::clone(&remembered)));
            }
        });
        Self { port, asked }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().unwrap().clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.path.clone()).collect()
    }
}

async fn connection<F>(
    stream: TcpStream,
    answer: impl Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    asked: Arc<Mutex<Vec<Asked>>>,
) where
    F: Future<Output = Response<SentBody>> + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (answer, asked) = (answer.clone(), Arc::clone(&asked));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (method, path, headers) = (head.method.clone(), head.uri.to_string(), head.headers.clone());
            asked.lock().unwrap().push(Asked { method, path, headers, body: body.clone() });
            Ok::<_, Infallible>(answer(Request::from_parts(head, body)).await)
        }
    });
    let _ =
        http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(stream), service).await;
}

/// Returns a URL at which no server listens.
pub async fn refusing() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}
