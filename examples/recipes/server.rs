//! A server on a free port, which counts its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;

/// A running server.
pub struct Server {
    pub url: String,
    count: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server that answers by a function of the request.
    pub async fn start(answer: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let app = Router::new().fallback(move |request: Request| {
            counter.fetch_add(1, Ordering::SeqCst);
            let response = answer(&request);
            async move { response }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, count }
    }

    /// Returns how many requests have come.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Returns a response with these fields.
pub fn response(fields: &[(&str, &str)], body: impl Into<String>) -> Response {
    let mut response = Response::builder();
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(body.into().into()).unwrap()
}
