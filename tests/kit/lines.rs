//! The output of a program that a test started, line by line. A program that prints nothing fails its test.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The time limit for a line, long enough for an interpreter to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of an output. A thread reads them, and closes the output after the value is dropped.
#[derive(Debug)]
pub struct Lines(Receiver<String>);

impl Lines {
    /// Begins to read an output.
    pub fn of(output: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// Waits for the next line, and returns it without white space at its end. At the end of the output, returns an empty
    /// text.
    ///
    /// # Panics
    /// If there is no line within the time limit.
    #[track_caller]
    pub fn next_line(&self) -> String {
        match self.0.recv_timeout(PATIENCE) {
            Ok(line) => line.trim_end().to_owned(),
            Err(RecvTimeoutError::Disconnected) => String::new(),
            Err(RecvTimeoutError::Timeout) => panic!("no line within {PATIENCE:?}"),
        }
    }
}
