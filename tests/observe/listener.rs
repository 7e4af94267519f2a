//! A subscriber that records the spans and events of the crate in this thread.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

/// An event or span, with its name or message and its fields.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub name: String,
    fields: HashMap<&'static str, String>,
    /// The id of the span that an event happened in.
    pub within: Option<u64>,
    /// The id of this span, or `None` for an event.
    pub span: Option<u64>,
}

impl Recorded {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Visit for Recorded {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.name = text,
            name => drop(self.fields.insert(name, text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

#[derive(Clone, Default)]
pub struct Listener {
    recorded: Arc<Mutex<Vec<Recorded>>>,
    entered: Arc<Mutex<Vec<u64>>>,
    kinds: Arc<Mutex<HashMap<u64, &'static Metadata<'static>>>>,
    next: Arc<AtomicU64>,
}

impl Listener {
    /// Starts to record. Dropping the guard ends it.
    pub fn new() -> (Self, DefaultGuard) {
        let listener = Self::default();
        let guard = tracing::subscriber::set_default(listener.clone());
        (listener, guard)
    }

    /// Returns all spans and events with this name.
    pub fn all(&self, name: &str) -> Vec<Recorded> {
        self.recorded.lock().unwrap().iter().filter(|recorded| recorded.name == name).cloned().collect()
    }

    pub fn last(&self, name: &str) -> Recorded {
        self.all(name).pop().unwrap_or_else(|| panic!("nothing is named {name}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        format!("{:?}", self.recorded.lock().unwrap())
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_response_cache")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let number = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let name = attributes.metadata().name().to_owned();
        let mut recorded = Recorded { name, span: Some(number), ..Recorded::default() };
        attributes.record(&mut recorded);
        self.kinds.lock().unwrap().insert(number, attributes.metadata());
        self.recorded.lock().unwrap().push(recorded);
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.recorded.lock().unwrap();
        let recorded = all.iter_mut().find(|recorded| recorded.span == Some(span.into_u64()));
        values.record(recorded.unwrap());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let within = self.entered.lock().unwrap().last().copied();
        let mut recorded = Recorded { within, ..Recorded::default() };
        event.record(&mut recorded);
        self.recorded.lock().unwrap().push(recorded);
    }

    fn current_span(&self) -> Current {
        match self.entered.lock().unwrap().last() {
            Some(number) => Current::new(Id::from_u64(*number), self.kinds.lock().unwrap()[number]),
            None => Current::none(),
        }
    }

    fn enter(&self, span: &Id) {
        self.entered.lock().unwrap().push(span.into_u64());
    }

    fn exit(&self, span: &Id) {
        let mut entered = self.entered.lock().unwrap();
        let at = entered.iter().rposition(|number| *number == span.into_u64());
        entered.remove(at.unwrap());
    }
}
