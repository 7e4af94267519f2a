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

/// One event or span: its name or message, and its fields.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub name: String,
    fields: HashMap<&'static str, String>,
    /// The span that it happened in.
    pub within: Option<u64>,
    /// The span that this is.
    pub span: Option<u64>,
}

impl Told {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Visit for Told {
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
    told: Arc<Mutex<Vec<Told>>>,
    entered: Arc<Mutex<Vec<u64>>>,
    kinds: Arc<Mutex<HashMap<u64, &'static Metadata<'static>>>>,
    next: Arc<AtomicU64>,
}

impl Listener {
    /// Listens until the guard is dropped.
    pub fn new() -> (Self, DefaultGuard) {
        let listener = Self::default();
        let guard = tracing::subscriber::set_default(listener.clone());
        (listener, guard)
    }

    /// All of this name.
    pub fn all(&self, name: &str) -> Vec<Told> {
        self.told.lock().unwrap().iter().filter(|told| told.name == name).cloned().collect()
    }

    pub fn last(&self, name: &str) -> Told {
        self.all(name).pop().unwrap_or_else(|| panic!("nothing said {name}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        format!("{:?}", self.told.lock().unwrap())
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_response_cache")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let number = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let name = attributes.metadata().name().to_owned();
        let mut told = Told { name, span: Some(number), ..Told::default() };
        attributes.record(&mut told);
        self.kinds.lock().unwrap().insert(number, attributes.metadata());
        self.told.lock().unwrap().push(told);
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.told.lock().unwrap();
        let told = all.iter_mut().find(|told| told.span == Some(span.into_u64()));
        values.record(told.unwrap());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let within = self.entered.lock().unwrap().last().copied();
        let mut told = Told { within, ..Told::default() };
        event.record(&mut told);
        self.told.lock().unwrap().push(told);
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
