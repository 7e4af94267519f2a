//! A bar for what takes long, on the standard error, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Gone when it is dropped. Clones move the same bar.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// So many steps, or an unknown number.
    pub fn begin(what: &'static str, steps: Option<u64>) -> Self {
        let (bar, template) = match steps {
            Some(steps) => (ProgressBar::new(steps), "{msg} [{bar:30}] {human_pos}/{human_len} {eta}"),
            None => (ProgressBar::new_spinner(), "{msg} {spinner} {human_pos} {per_sec}"),
        };
        // A template of this program's own: it is right, or the default will do.
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_message(what).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    pub fn step(&self) {
        self.0.inc(1);
    }

    pub fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Ends the bar also when the work fails.
pub struct Shown(pub Progress);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.end();
    }
}
