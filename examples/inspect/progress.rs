//! A progress bar on the standard error, for commands that may take long.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that disappears when it is dropped. It is hidden where the standard error is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows the bar; without a number of steps it only counts.
    pub fn begin(what: &'static str, steps: Option<u64>) -> Self {
        let (bar, template) = match steps {
            Some(steps) => (ProgressBar::new(steps), "{msg} [{bar:30}] {human_pos}/{human_len} {eta}"),
            None => (ProgressBar::new_spinner(), "{msg} {spinner} {human_pos} {per_sec}"),
        };
        // The templates are valid; if indicatif ever rejects one, its own style is good enough.
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_message(what).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if !bar.is_hidden() {
            // The ticks keep the rate and the spinner moving while the storage is slow.
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    pub fn step(&self) {
        self.0.inc(1);
    }

    /// Returns the bar for a callback, which may outlive the borrow of this.
    pub fn bar(&self) -> ProgressBar {
        self.0.clone()
    }
}

impl Drop for Progress {
    /// Clears the bar also when the command fails, so that the error stands on a line of its own.
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
