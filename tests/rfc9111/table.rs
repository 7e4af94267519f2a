//! The language of the cases.
//!
//! A [`Case`] is a list of steps. A step begins with a request ([`get`](Case::get), [`send`](Case::send)). The methods
//! that follow define the origin's answers, which are used if the origin is asked, and the expectations.
//!
//! Fields are written `name: value | name: value`. In expected fields, `name` alone means that the field is present,
//! and `!name` that it is absent. A name that occurs twice means two lines in this order. `{60}` stands for the HTTP
//! date one minute after the case begins, `{-60}` for the date one minute before it, and `{now}` for the clock's date.
//!
//! If a step defines no answer, the origin answers a conditional request with 304, and any other request with a 200
//! that is not stored. The 304 has the entity tag of the request if there is exactly one.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_response_cache::storage::MemoryStorage;
use tower_response_cache::{
    CacheLayer, CacheLayerBuilder, CacheStatus, Clock, MissReason, MockClock, NotStored, Outcome,
    StaleReason, Stored, ValidateReason,
};

type Settings = fn(CacheLayerBuilder<MemoryStorage>) -> CacheLayerBuilder<MemoryStorage>;

/// The body of an answer that sets none.
pub const BODY: &str = "0123456789";

/// A sequence of requests, with the origin's answers and the expectations.
pub struct Case {
    name: String,
    section: &'static str,
    settings: Vec<Settings>,
    steps: Vec<Step>,
    pause: Duration,
}

struct Step {
    pause: Duration,
    method: Method,
    uri: String,
    fields: String,
    answers: Vec<Reply>,
    wants: Vec<Want>,
}

#[derive(Clone)]
struct Reply {
    /// `None` if the origin cannot be reached.
    status: Option<u16>,
    fields: String,
    body: String,
    /// The time that the origin takes.
    delay: Duration,
}

enum Want {
    Outcome(Outcome),
    Word(&'static str),
    NotReused,
    Stored(Stored),
    NotStored,
    Asked(String),
    AskedTimes(usize),
    Shows(String),
    Code(u16),
    Body(String),
    Error,
}

/// Begins a case.
pub fn case(name: impl Into<String>, section: &'static str) -> Case {
    Case { name: name.into(), section, settings: Vec::new(), steps: Vec::new(), pause: Duration::ZERO }
}

impl Case {
    /// Makes the cache shared.
    pub fn shared(self) -> Self {
        self.with(|builder| builder.shared(true))
    }

    /// Adds a setting of the cache.
    pub fn with(mut self, settings: Settings) -> Self {
        self.settings.push(settings);
        self
    }

    /// Advances the clock by `seconds` before the next request.
    pub fn after(mut self, seconds: u64) -> Self {
        self.pause += Duration::from_secs(seconds);
        self
    }

    /// Sends a GET for `/a`.
    pub fn get(self, fields: &str) -> Self {
        self.send("GET", fields)
    }

    pub fn send(mut self, method: &str, fields: &str) -> Self {
        self.steps.push(Step {
            pause: std::mem::take(&mut self.pause),
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            uri: "http://example.com/a".to_owned(),
            fields: fields.to_owned(),
            answers: Vec::new(),
            wants: Vec::new(),
        });
        self
    }

    /// Sends the request to this URI or path instead of `/a`.
    pub fn at(mut self, uri: &str) -> Self {
        let uri = if uri.starts_with('/') { format!("http://example.com{uri}") } else { uri.to_owned() };
        self.step().uri = uri;
        self
    }

    /// Makes the origin answer 200.
    ///
    /// A step may define several answers. The last one is repeated.
    pub fn ok(self, fields: &str) -> Self {
        self.answer(200, fields)
    }

    pub fn not_modified(self, fields: &str) -> Self {
        self.answer(304, fields)
    }

    pub fn answer(mut self, status: u16, fields: &str) -> Self {
        let body = if matches!(status, 204 | 304) { "" } else { BODY };
        let (fields, body) = (fields.to_owned(), body.to_owned());
        self.step().answers.push(Reply { status: Some(status), fields, body, delay: Duration::ZERO });
        self
    }

    /// Makes the origin unreachable.
    pub fn down(mut self) -> Self {
        let (fields, body) = (String::new(), String::new());
        self.step().answers.push(Reply { status: None, fields, body, delay: Duration::ZERO });
        self
    }

    /// Sets the body of the last answer.
    pub fn body(mut self, body: &str) -> Self {
        self.step().answers.last_mut().expect("the step has an answer").body = body.to_owned();
        self
    }

    /// Delays the last answer by `seconds`.
    pub fn slow(mut self, seconds: u64) -> Self {
        self.step().answers.last_mut().expect("the step has an answer").delay = Duration::from_secs(seconds);
        self
    }

    /// Expects a fresh response from the storage, without a request to the origin.
    pub fn hit(self) -> Self {
        self.want(Want::Outcome(Outcome::Hit)).want(Want::AskedTimes(0))
    }

    /// Expects a stale response, served for this reason.
    pub fn stale(self, reason: StaleReason) -> Self {
        self.want(Want::Outcome(Outcome::Stale(reason)))
    }

    /// Expects a stored response that a 304 confirmed, revalidated for this reason.
    pub fn revalidated(self, reason: ValidateReason) -> Self {
        self.want(Want::Outcome(Outcome::Revalidated(reason)))
    }

    /// Expects the origin's response, fetched for this reason.
    pub fn miss(self, reason: MissReason) -> Self {
        self.want(Want::Outcome(Outcome::Miss(reason)))
    }

    /// Expects the origin's response, fetched for any reason.
    pub fn forwarded(self) -> Self {
        self.want(Want::Word("miss"))
    }

    /// Expects that no stored response is served without asking the origin.
    pub fn not_reused(self) -> Self {
        self.want(Want::NotReused)
    }

    pub fn bypass(self) -> Self {
        self.want(Want::Word("bypass"))
    }

    /// Expects a 504 from the cache itself.
    pub fn refused(self) -> Self {
        self.want(Want::Outcome(Outcome::Refused)).want(Want::AskedTimes(0)).code(504)
    }

    /// Expects the error of the inner service.
    pub fn error(self) -> Self {
        self.want(Want::Error)
    }

    pub fn stores(self) -> Self {
        self.want(Want::Stored(Stored::Storing))
    }

    pub fn freshened(self) -> Self {
        self.want(Want::Stored(Stored::Freshened))
    }

    /// Expects that the response is not stored, for this reason.
    pub fn stores_not(self, reason: NotStored) -> Self {
        self.want(Want::Stored(Stored::No(reason)))
    }

    /// Expects that the response is not stored, for any reason.
    pub fn stores_nothing(self) -> Self {
        self.want(Want::NotStored)
    }

    /// Expects these fields in the last request to the origin.
    pub fn asked(self, fields: &str) -> Self {
        self.want(Want::Asked(fields.to_owned()))
    }

    /// Expects this number of requests to the origin in this step.
    pub fn asked_times(self, times: usize) -> Self {
        self.want(Want::AskedTimes(times))
    }

    /// Expects these fields in the response.
    pub fn shows(self, fields: &str) -> Self {
        self.want(Want::Shows(fields.to_owned()))
    }

    pub fn code(self, status: u16) -> Self {
        self.want(Want::Code(status))
    }

    /// Expects this body of the response.
    pub fn gives(self, body: &str) -> Self {
        self.want(Want::Body(body.to_owned()))
    }

    fn want(mut self, want: Want) -> Self {
        self.step().wants.push(want);
        self
    }

    fn step(&mut self) -> &mut Step {
        self.steps.last_mut().expect("a request precedes its answers and expectations")
    }
}

/// Runs all cases, and panics with a list of those that failed.
pub fn run(cases: impl IntoIterator<Item = Case>) {
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in cases {
        count += 1;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let story = AssertUnwindSafe(play(&case)).catch_unwind();
        let found = runtime.block_on(story).unwrap_or_else(|_| vec!["panicked".to_owned()]);
        if !found.is_empty() {
            wrong.push(format!("{} \"{}\"\n    {}", case.section, case.name, found.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases failed:\n  {}\n", wrong.len(), wrong.join("\n  "));
}

async fn play(case: &Case) -> Vec<String> {
    let (clock, mock) = Clock::mock();
    let mut builder = CacheLayer::builder(MemoryStorage::new()).clock(clock);
    for settings in &case.settings {
        builder = settings(builder);
    }
    let dates = Dates { start: mock.now().into(), clock: mock };
    let origin = Origin { dates: dates.clone(), answers: Arc::default(), asked: Arc::default() };
    let service = builder.build().unwrap().layer(origin.clone());
    let mut wrong = Vec::new();
    for (at, step) in case.steps.iter().enumerate() {
        dates.clock.advance(step.pause);
        *origin.answers.lock().unwrap() = step.answers.clone();
        origin.asked.lock().unwrap().clear();
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = step.method.clone();
        *request.uri_mut() = step.uri.parse().unwrap();
        *request.headers_mut() = dates.fields(&step.fields);
        let got = match service.clone().oneshot(request).await {
            Ok(response) => {
                let status = response.extensions().get::<CacheStatus>().copied().expect("a cache status");
                let (head, body) = response.into_parts();
                let body = body.collect().await.expect("the body is complete").to_bytes();
                Some(Got { status, code: head.status, headers: head.headers, body })
            }
            Err(_) => None,
        };
        // Lets background tasks finish.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let asked = origin.asked.lock().unwrap().clone();
        for want in &step.wants {
            if let Err(text) = check(want, got.as_ref(), &asked, &dates) {
                wrong.push(format!("step {}: {text}", at + 1));
            }
        }
    }
    wrong
}

struct Got {
    status: CacheStatus,
    code: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

fn check(want: &Want, got: Option<&Got>, asked: &[HeaderMap], dates: &Dates) -> Result<(), String> {
    let same = |expected: String, got: String| {
        if expected == got { Ok(()) } else { Err(format!("expected {expected}, got {got}")) }
    };
    if let Want::AskedTimes(times) = want {
        return same(
            format!("{times} requests to the origin"),
            format!("{} requests to the origin", asked.len()),
        );
    }
    let Some(got) = got else {
        return if matches!(want, Want::Error) { Ok(()) } else { Err("got the origin's error".to_owned()) };
    };
    let status = &got.status;
    match want {
        Want::Outcome(outcome) => same(format!("{outcome:?}"), format!("{:?}", status.outcome())),
        Want::Word(word) if status.word() == *word => Ok(()),
        Want::Word(word) => Err(format!("expected {word}, got {status}")),
        Want::NotReused if !status.is_hit() && !matches!(status.outcome(), Outcome::Refused) => Ok(()),
        Want::NotReused => Err(format!("expected no reuse, got {status}")),
        Want::Stored(stored) => same(format!("{stored:?}"), format!("{:?}", status.stored())),
        Want::NotStored if matches!(status.stored(), Stored::Storing | Stored::Freshened) => {
            Err(format!("expected not to be stored, got {:?}", status.stored()))
        }
        Want::NotStored => Ok(()),
        Want::Asked(fields) => match asked.last() {
            Some(request) => {
                dates.compare(fields, request).map_err(|text| format!("the origin was asked: {text}"))
            }
            None => Err("the origin was not asked".to_owned()),
        },
        Want::Shows(fields) => dates.compare(fields, &got.headers),
        Want::Code(code) => same(format!("status {code}"), format!("status {}", got.code.as_u16())),
        Want::Body(body) => same(format!("{body:?}"), format!("{:?}", String::from_utf8_lossy(&got.body))),
        Want::Error => Err(format!("expected the origin's error, got {status}")),
        Want::AskedTimes(_) => Ok(()),
    }
}

/// The origin of a case.
///
/// It holds the answers of the current step, and the requests of that step.
#[derive(Clone)]
struct Origin {
    dates: Dates,
    answers: Arc<Mutex<Vec<Reply>>>,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Service<Request<Full<Bytes>>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let nth = self.asked.lock().unwrap().len();
        self.asked.lock().unwrap().push(request.headers().clone());
        let answers = self.answers.lock().unwrap();
        let answer = answers.get(nth).or(answers.last()).cloned().unwrap_or_else(|| unscripted(&request));
        self.dates.clock.advance(answer.delay);
        let response = answer.status.map(|status| {
            let body = if request.method() == Method::HEAD { String::new() } else { answer.body };
            let mut response = Response::new(Full::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.headers_mut() = self.dates.fields(&answer.fields);
            response
        });
        Box::pin(async move { response.ok_or_else(|| io::Error::other("the origin is down")) })
    }
}

fn unscripted(request: &Request<Full<Bytes>>) -> Reply {
    let asks = |name| request.headers().contains_key(name);
    let tag = request.headers().get(header::IF_NONE_MATCH).map(|tags| tags.to_str().unwrap());
    let (status, fields, body) = match tag {
        Some(tag) if !tag.contains(',') && tag != "*" => (304, format!("etag: {tag}"), ""),
        _ if tag.is_some() || asks(header::IF_MODIFIED_SINCE) => (304, String::new(), ""),
        _ => (200, "cache-control: no-store".to_owned(), "unscripted"),
    };
    Reply { status: Some(status), fields, body: body.to_owned(), delay: Duration::ZERO }
}

/// The dates that replace the placeholders in fields.
#[derive(Clone)]
struct Dates {
    start: SystemTime,
    clock: MockClock,
}

impl Dates {
    fn fill(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (what, after) = after.split_once('}').expect("a closing brace");
            let date = match what {
                "now" => self.clock.now().into(),
                _ => {
                    let seconds: i64 = what.parse().expect("seconds");
                    let distance = Duration::from_secs(seconds.unsigned_abs());
                    if seconds < 0 { self.start - distance } else { self.start + distance }
                }
            };
            filled = filled + before + &httpdate::fmt_http_date(date);
            rest = after;
        }
        filled + rest
    }

    fn fields(&self, text: &str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for line in lines(text) {
            let (name, value) = line.split_once(':').expect("name: value");
            let value = HeaderValue::from_bytes(self.fill(value.trim()).as_bytes()).unwrap();
            fields.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        fields
    }

    fn compare(&self, expected: &str, got: &HeaderMap) -> Result<(), String> {
        let texts = |fields: &HeaderMap, name: &str| -> Vec<String> {
            let values = fields.get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
        };
        for line in lines(expected) {
            if let Some(name) = line.strip_prefix('!') {
                if got.contains_key(name) {
                    return Err(format!("expected no {name}, got {:?}", texts(got, name)));
                }
            } else if !line.contains(':') && !got.contains_key(line) {
                return Err(format!("expected a field {line}, got none"));
            }
        }
        let with_values: Vec<_> = lines(expected).filter(|line| line.contains(':')).collect();
        let expected = self.fields(&with_values.join(" | "));
        for name in expected.keys() {
            let (expected, got) = (texts(&expected, name.as_str()), texts(got, name.as_str()));
            if expected != got {
                return Err(format!("expected {name} {expected:?}, got {got:?}"));
            }
        }
        Ok(())
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(" | ").map(str::trim).filter(|line| !line.is_empty())
}
