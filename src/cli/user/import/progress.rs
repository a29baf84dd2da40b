//! Shows the progress of an import: as a bar on a terminal, and otherwise as a message every 10,000 lines of the file.

use crate::cli::print_error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Number of lines of the file between two messages.
const EVERY: u64 = 10_000;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// The last reported number of lines, if there is no bar.
    reported: u64,
}

impl Progress {
    /// Starts the display. `size` is the size of the file in bytes, if known.
    pub(super) fn start(size: Option<u64>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None, reported: 0 };
        }
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = match size {
            Some(_) => "{bar:40} {percent:>3} %  {msg}  {eta} left",
            None => "{spinner} {msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar: Some(bar), reported: 0 }
    }

    /// Reports the number of imported lines and bytes.
    pub(super) fn done(&mut self, line: u64, bytes: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("line {line}"));
                bar.set_position(bytes);
            }
            None if line >= self.reported + EVERY => {
                self.reported = line - line % EVERY;
                print_error(&format!("{} lines", self.reported));
            }
            None => {}
        }
    }

    /// Prints a line to standard error, above the bar.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print_error(text)),
            None => print_error(text),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
