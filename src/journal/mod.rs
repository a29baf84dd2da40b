//! Writes log lines on a separate thread. Requests never wait for the log, and its memory is bounded.
//!
//! If the sink is slow, full or closed, lines are dropped and counted. The sink never stops the process. The module
//! `line` formats the lines.

pub(crate) mod line;

pub(crate) use line::LineWriter;
pub use line::{Level, Style};

use crate::clock::Now;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of batches that wait to be written. A batch has up to 32 KiB, so at most 8 MiB wait.
const BATCHES_WAITING: usize = 256;

/// The time that [`Journal::close`] waits for a sink that accepts nothing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle of the journal. Cloning is cheap.
#[derive(Clone)]
pub struct Journal {
    style: Style,
    level: Level,
    batches: SyncSender<Batch>,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    /// Text that may contain any character.
    Text(&'v str),
    /// A number, such as a count.
    Number(u64),
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(text: &'v String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value<'_> {
    fn from(number: usize) -> Self {
        Self::Number(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

struct Shared {
    dropped: AtomicU64,
    /// Disconnected once the writer thread has ended.
    ended: Mutex<Receiver<()>>,
}

enum Batch {
    Lines(Vec<u8>),
    Close,
}

impl Journal {
    /// Starts the thread that writes to `sink`. Events below `level` are omitted.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be created.
    pub fn start(style: Style, level: Level, sink: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (batches, waiting) = sync_channel(BATCHES_WAITING);
        let (alive, ended) = sync_channel(0);
        let shared = Arc::new(Shared { dropped: AtomicU64::new(0), ended: Mutex::new(ended) });
        let counts = Arc::clone(&shared);
        thread::Builder::new().name("journal".into()).spawn(move || {
            // `write_all` drops `waiting` before `alive` is dropped. A batch that is sent after `close` has returned is
            // therefore rejected.
            write_all(sink, waiting, &counts.dropped);
            drop(alive);
        })?;
        Ok(Self { style, level, batches, shared })
    }

    /// Returns whether events of this level are written.
    pub(crate) fn enabled(&self, level: Level) -> bool {
        level >= self.level
    }

    /// Logs an event for operators. Values may contain any text. Keys are constants other than `time`, `level` and
    /// `message`.
    pub(crate) fn event(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.write_event(level, message, fields.iter().map(|(key, text)| (*key, Value::Text(text))));
    }

    /// Logs an event like [`Journal::event`], with numbers as JSON numbers.
    pub(crate) fn event_with(&self, level: Level, message: &str, fields: &[(&str, Value<'_>)]) {
        self.write_event(level, message, fields.iter().copied());
    }

    fn write_event<'f>(
        &self,
        level: Level,
        message: &str,
        fields: impl Iterator<Item = (&'f str, Value<'f>)>,
    ) {
        if !self.enabled(level) {
            return;
        }
        let now = Now::read();
        let mut out = Vec::with_capacity(256);
        let mut line = LineWriter::begin(self.style, &mut out, now.unix, now.subsec_nanos, level);
        line.message(message);
        for (key, value) in fields {
            match value {
                Value::Text(text) => line.text(key, text.as_bytes()),
                Value::Number(number) => line.number(key, number),
            }
        }
        line.end();
        // A rejected event is counted in the metrics.
        let _ = self.lines(out);
    }

    /// Passes a batch of whole lines to the writer. Never waits.
    ///
    /// # Errors
    /// Returns the batch if too many batches wait or the journal is closed. Its lines then count as dropped, so the
    /// caller can clear the buffer and continue.
    pub(crate) fn lines(&self, batch: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.batches.try_send(Batch::Lines(batch)) {
            Ok(()) => Ok(()),
            Err(
                TrySendError::Full(Batch::Lines(batch)) | TrySendError::Disconnected(Batch::Lines(batch)),
            ) => {
                self.shared.dropped.fetch_add(count_lines(&batch), Ordering::Relaxed);
                Err(batch)
            }
            Err(TrySendError::Full(Batch::Close) | TrySendError::Disconnected(Batch::Close)) => Ok(()),
        }
    }

    /// Returns the number of lines that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes all waiting batches and ends the thread. Waits at most two seconds for a sink that makes no progress.
    /// Lines that other handles pass later are dropped and counted. Returns whether all waiting lines were written to
    /// the sink, successfully or not.
    pub(crate) fn close(self) -> bool {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        // `send` would wait forever if the sink is not read.
        while let Err(TrySendError::Full(_)) = self.batches.try_send(Batch::Close) {
            if Instant::now() >= deadline {
                return false;
            }
            #[expect(clippy::disallowed_methods, reason = "the process is ending: no core serves any more")]
            thread::sleep(Duration::from_millis(5));
        }
        let ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Runs the writer thread until it receives `Batch::Close` or no handle is left.
#[allow(clippy::needless_pass_by_value, reason = "the channel ends with the writing")]
fn write_all(mut sink: Box<dyn Write + Send>, waiting: Receiver<Batch>, dropped: &AtomicU64) {
    let mut broken = false;
    while let Ok(mut next) = waiting.recv() {
        // Write all waiting batches before the flush, because a flush may be slow.
        loop {
            let Batch::Lines(lines) = next else {
                let _ = sink.flush();
                return;
            };
            // After an error, the last line may be incomplete. A newline separates it from the next line.
            let written = if broken { sink.write_all(b"\n") } else { Ok(()) };
            broken = written.and_then(|()| sink.write_all(&lines)).is_err();
            if broken {
                dropped.fetch_add(count_lines(&lines), Ordering::Relaxed);
            }
            match waiting.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        // If the flush fails, the next write fails too. The error is therefore ignored.
        let _ = sink.flush();
    }
}

fn count_lines(batch: &[u8]) -> u64 {
    batch.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::mpsc::channel;

    /// A sink that stores everything written to it.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A pipe that fails with `BrokenPipe` while the flag is true, as if its reader had exited.
    struct Broken(Arc<Mutex<bool>>, Kept);

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if *self.0.lock().unwrap() { Err(io::ErrorKind::BrokenPipe.into()) } else { self.1.write(bytes) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A pipe that is never read: a write blocks until the other end of the channel is dropped.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(style: Style, level: Level, sink: impl Write + Send + 'static) -> Journal {
        Journal::start(style, level, Box::new(sink)).unwrap()
    }

    #[test]
    fn events_and_batches_are_all_written_by_the_time_it_is_closed() {
        let kept = Kept::default();
        let journal = start(Style::Json, Level::Info, kept.clone());
        let other = journal.clone();
        other.lines(b"{\"n\":1}\n{\"n\":2}\n".to_vec()).unwrap();
        journal.event(Level::Warn, "a \"thing\"\nhappened", &[("upstream", "orders\u{1b}[2J")]);
        assert!(journal.close());
        let text = kept.text();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2]["message"], "a \"thing\"\nhappened");
        assert_eq!(lines[2]["level"], "warn");
        assert_eq!(lines[2]["upstream"], "orders\u{1b}[2J");
        assert_eq!(other.dropped(), 0);
        // The journal is closed for every handle.
        assert_eq!(other.lines(b"late\n".to_vec()), Err(b"late\n".to_vec()));
        assert_eq!(other.dropped(), 1);
    }

    #[test]
    fn an_event_reads_as_a_sentence_on_a_terminal_and_cannot_forge_a_second_line() {
        let kept = Kept::default();
        let journal = start(Style::Human, Level::Info, kept.clone());
        journal.event(
            Level::Error,
            "the policy did not load",
            &[("file", "a b"), ("fault", "x\n2026 INFO y")],
        );
        assert!(journal.close());
        let text = kept.text();
        assert_eq!(text.lines().count(), 1);
        let rest = &text["2026-01-01T00:00:00.000Z".len()..];
        assert_eq!(rest, " ERROR the policy did not load file=\"a b\" fault=\"x\\n2026 INFO y\"\n");
    }

    #[test]
    fn a_number_of_an_event_is_a_number_in_json() {
        for (style, written) in
            [(Style::Json, "\"core\":3,\"error\":\"7\"}\n"), (Style::Human, " core=3 error=7\n")]
        {
            let kept = Kept::default();
            let journal = start(style, Level::Info, kept.clone());
            journal.event_with(Level::Info, "m", &[("core", 3_usize.into()), ("error", "7".into())]);
            assert!(journal.close());
            assert!(kept.text().ends_with(written), "{}", kept.text());
        }
    }

    #[test]
    fn events_below_the_level_are_left_out() {
        let kept = Kept::default();
        let journal = start(Style::Human, Level::Warn, kept.clone());
        journal.event(Level::Info, "fine", &[]);
        journal.event(Level::Warn, "odd", &[]);
        assert!(journal.close());
        assert!(kept.text().contains("odd") && !kept.text().contains("fine"));
    }

    #[test]
    fn a_broken_pipe_costs_lines_and_nothing_else() {
        let (broken, kept) = (Arc::new(Mutex::new(true)), Kept::default());
        let journal = start(Style::Json, Level::Info, Broken(Arc::clone(&broken), kept.clone()));
        journal.lines(b"one\ntwo\n".to_vec()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while journal.dropped() < 2 && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(journal.dropped(), 2);
        *broken.lock().unwrap() = false;
        journal.lines(b"three\n".to_vec()).unwrap();
        assert!(journal.close());
        assert_eq!(kept.text(), "\nthree\n");
    }

    #[test]
    fn a_sink_that_takes_nothing_makes_nobody_wait() {
        let (reader, pipe) = channel::<()>();
        let journal = start(Style::Json, Level::Info, Stuck(pipe));
        let mut refused = 0;
        // The writer holds at most one batch.
        for _ in 0..BATCHES_WAITING + 10 {
            refused += u64::from(journal.lines(b"line\n".to_vec()).is_err());
        }
        assert!((9..=10).contains(&refused), "{refused}");
        assert_eq!(journal.dropped(), refused);
        let before = Instant::now();
        assert!(!journal.clone().close());
        assert!(before.elapsed() < CLOSE_TIMEOUT * 2);
        drop(reader);
        assert!(journal.close());
    }
}
