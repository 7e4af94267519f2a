//! Collects the crate's events while a test runs.

use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;

/// The crate's events of level INFO and above, in this thread.
#[derive(Clone, Default)]
pub struct Events {
    seen: Arc<Mutex<Vec<String>>>,
    guard: Arc<Mutex<Option<Guard>>>,
}

/// Keeps the subscriber set.
///
/// It stays in the thread that created it, because each test has one runtime in one thread.
struct Guard(#[allow(dead_code)] DefaultGuard);

impl Events {
    pub fn listen(&self) {
        let subscriber = Listener(Arc::clone(&self.seen));
        *self.guard.lock().unwrap() = Some(Guard(tracing::subscriber::set_default(subscriber)));
    }

    pub fn all(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Asserts that each outage was reported once, and its end too.
    ///
    /// Reads and writes have outages of their own, which an event names in the field `what`.
    pub fn assert_once_each(&self, down: &str, up: &str) {
        let events = self.all();
        let of = |text: &str| {
            let reported = events.iter().filter(|event| event.contains(text));
            let mut kinds: Vec<_> =
                reported.map(|event| event.split(' ').find(|word| word.starts_with("what="))).collect();
            kinds.sort_unstable();
            kinds
        };
        let (began, ended) = (of(down), of(up));
        assert!(!began.is_empty() && began.windows(2).all(|pair| pair[0] != pair[1]), "{events:?}");
        assert_eq!(began, ended, "{events:?}");
    }

    pub fn count(&self, text: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|event| event.contains(text)).count()
    }
}

struct Listener(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_response_cache") && *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
