//! A progress bar on the standard error, for commands that may take long.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tower_response_cache::storage::Storage;

use crate::target::Target;
use crate::text;

/// A bar that disappears when it is dropped. It is hidden where the standard error is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows the bar; without a number of steps it only counts.
    pub fn begin(what: &'static str, steps: Option<u64>) -> Self {
        let (bar, template) = match steps {
            Some(steps) => {
                (ProgressBar::new(steps), "{msg} [{bar:20}] {human_pos} of {human_len}, {rate}, {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{msg} {spinner} {human_pos}, {rate}"),
        };
        // The templates are valid; if indicatif ever rejects one, its own style is good enough.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("rate", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            // A rate of billions is no rate any more, so the cast cannot truncate one.
            let _ = write!(to, "{}/s", text::grouped(state.per_sec().round() as u64)); // writes to memory
        });
        let bar = bar.with_message(what).with_style(style);
        if !bar.is_hidden() {
            // The ticks keep the rate and the spinner moving while the storage is slow.
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// Shows a bar for all responses of a storage.
    ///
    /// Counts them first, unless no bar is shown or the command is about a part of them.
    pub async fn over_all(what: &'static str, target: &Target) -> Self {
        let is_shown = console::Term::stderr().is_term() && !target.is_own;
        let steps = match is_shown {
            // Only the bar is worse without the number.
            true => target.storage.size().await.ok(),
            false => None,
        };
        Self::begin(what, steps)
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
