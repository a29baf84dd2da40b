//! Stores marks durably, in the authority's store or in a file of the state folder.
//!
//! A separate thread writes the file, because a disk may be slow. It writes all waiting marks together.

use super::mark_file::{self, MarkFile};
use crate::authenticate::{SignalMark, SignalMarks};
use crate::authority::{Authority, Sweeps};
use crate::clock::Now;
use crate::journal::{Journal, Level};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Jobs, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The maximum number of requests that wait until their marks are on the disk.
const WAITING: usize = 256;
/// The interval at which the file is polled for marks of other processes.
const POLLED: Duration = Duration::from_millis(500);
/// The interval at which expired marks are deleted.
const SWEPT: Duration = Duration::from_secs(60);
/// The time that a request waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reason why marks are not in force. The transmitter gets an error and sends its signal again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecorded {
    /// The marks cannot be made durable.
    Unavailable,
    /// Too many marks exist.
    Full,
}

/// The place where marks are kept.
#[derive(Clone, Debug)]
pub struct Recorder {
    marks: Arc<SignalMarks>,
    authority: Option<Arc<Authority>>,
    file: Option<Arc<FileWriter>>,
}

impl Recorder {
    /// Creates a recorder. Marks go to the store of the authority, or to the file if there is no authority.
    pub fn new(
        marks: Arc<SignalMarks>,
        authority: Option<Arc<Authority>>,
        file: Option<Arc<FileWriter>>,
    ) -> Self {
        Self { marks, authority, file }
    }

    /// Makes marks durable and applies them. Marks that change nothing are not written again.
    ///
    /// # Errors
    /// Returns an error if the marks are not in force, or would be lost by a restart.
    pub async fn record(&self, mut marks: Vec<SignalMark>, now: Now) -> Result<(), Unrecorded> {
        marks.retain(|mark| !self.marks.covers(mark));
        if marks.is_empty() {
            return Ok(());
        }
        if !self.marks.has_room(marks.len()) {
            return Err(Unrecorded::Full);
        }
        let recording = async {
            match (&self.authority, &self.file) {
                (Some(authority), _) => authority.record_signals(marks, now).await.is_ok(),
                (None, Some(file)) => file.record(marks).await,
                (None, None) => false,
            }
        };
        match tokio::time::timeout(PATIENCE, recording).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Unrecorded::Unavailable),
        }
    }
}

/// Adds the marks in the file of a state folder to `marks`, and changes nothing there.
///
/// # Errors
/// Returns a sentence for the operator.
pub fn read_marks(folder: &Path, marks: &SignalMarks) -> Result<(), String> {
    mark_file::read_only(folder, marks).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Marks that wait for the disk.
struct Job {
    marks: Vec<SignalMark>,
    done: oneshot::Sender<bool>,
}

/// The thread that writes the file. It ends when this handle is dropped.
#[derive(Debug)]
pub struct FileWriter {
    jobs: SyncSender<Job>,
}

impl FileWriter {
    /// Reads the file of a state folder and starts the thread that writes the file. With `only_read`, a missing file is
    /// not created, and the result is `None`.
    ///
    /// # Errors
    /// Returns a sentence for the operator. Marks may then be missing, so the caller must not serve a policy with
    /// signals.
    pub fn start(
        folder: &Path,
        marks: &Arc<SignalMarks>,
        only_read: bool,
        journal: &Journal,
    ) -> Result<Option<Arc<Self>>, String> {
        if only_read && !mark_file::exists(folder) {
            return Ok(None);
        }
        let file = MarkFile::open(folder, marks.clone())?;
        let (jobs, received) = sync_channel(WAITING);
        let (marks, journal) = (marks.clone(), journal.clone());
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || run(file, &received, &marks, &journal))
            .map_err(|error| format!("cannot start: {error}"))?;
        Ok(Some(Arc::new(Self { jobs })))
    }

    async fn record(&self, marks: Vec<SignalMark>) -> bool {
        let (done, outcome) = oneshot::channel();
        if self.jobs.try_send(Job { marks, done }).is_err() {
            return false;
        }
        outcome.await.unwrap_or(false)
    }
}

fn run(mut file: MarkFile, received: &Jobs<Job>, marks: &SignalMarks, journal: &Journal) {
    let (mut swept, mut sweeps) = (Instant::now(), Sweeps::from(Now::read()));
    let mut fails = false;
    loop {
        let outcome = match received.recv_timeout(POLLED) {
            Ok(first) => {
                let mut jobs = vec![first];
                jobs.extend(received.try_iter().take(WAITING));
                let all: Vec<SignalMark> = jobs.iter().flat_map(|job| &job.marks).copied().collect();
                let written = file.append(&all);
                for job in jobs {
                    // The transmitter may have disconnected.
                    let _ = job.done.send(written.is_ok());
                }
                written
            }
            Err(RecvTimeoutError::Timeout) => file.poll(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match &outcome {
            Ok(()) if fails => journal.event(Level::Info, "the file of signal marks works again", &[]),
            Err(error) if !fails => journal.event(
                Level::Error,
                "cannot use the file of signal marks: signals are not accepted",
                &[("error", &error.to_string())],
            ),
            Ok(()) | Err(_) => {}
        }
        fails = outcome.is_err();
        if swept.elapsed() >= SWEPT {
            swept = Instant::now();
            marks.forget(sweeps.time(Now::read()).unix);
        }
    }
}
