//! How far an import is: a bar on a terminal, now and then a line elsewhere.

use crate::cli::print_error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Lines of the file between two lines about it.
const EVERY: u64 = 10_000;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Lines that were told of, where there is no bar.
    told: u64,
}

impl Progress {
    /// Of a file of so many bytes, where that is known.
    pub(super) fn start(size: Option<u64>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None, told: 0 };
        }
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = match size {
            Some(_) => "{bar:40} {percent:>3} %  {msg}  {eta} left",
            None => "{spinner} {msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar: Some(bar), told: 0 }
    }

    /// The lines up to this one are done, and so many bytes.
    pub(super) fn done(&mut self, line: u64, bytes: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("line {line}"));
                bar.set_position(bytes);
            }
            None if line >= self.told + EVERY => {
                self.told = line - line % EVERY;
                print_error(&format!("{} lines", self.told));
            }
            None => {}
        }
    }

    /// Tells something without tearing the bar.
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
