//! Reads files on other threads, because a file system may wait for its disk or its server.
//!
//! A core has a bounded number of such threads at work. A thread that waits for a file system cannot be stopped, so it keeps
//! its place until the file system answers, and requests do not wait longer than [`WAIT_MAX`] for it.

use std::fmt;
use std::fs::{File, Metadata};
use std::future::{Ready, ready};
use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::sync::Semaphore;
use tower_http::services::fs::{self as library, Backend};

/// The maximum number of a core's threads that read files. The runtime has 512 threads for all purposes.
const TASKS_MAX: usize = 64;
/// The maximum wait for a free thread, and then for the file system.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);
/// The number of bytes that are read at once. A client that does not read keeps a few pieces in memory.
pub(super) const PIECE: usize = 32 * 1024;

/// The threads of one core that read files.
#[derive(Clone, Debug)]
pub(crate) struct DiskTasks {
    places: Arc<Semaphore>,
    wait_max: Duration,
}

/// The reason why a file system gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// All threads wait for file systems.
    Busy,
    /// The file system did not answer in time.
    Silent,
    /// The gateway stops.
    Stopping,
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => {
                write!(
                    f,
                    "{TASKS_MAX} reads of this core wait for file systems, and none ended within {WAIT_MAX:?}"
                )
            }
            Self::Silent => write!(f, "the file system did not answer within {WAIT_MAX:?}"),
            Self::Stopping => f.write_str("the gateway stops"),
        }
    }
}

impl Default for DiskTasks {
    fn default() -> Self {
        Self::bounded(TASKS_MAX, WAIT_MAX)
    }
}

impl DiskTasks {
    fn bounded(tasks_max: usize, wait_max: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(tasks_max)), wait_max }
    }

    /// Runs `work` on another thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskFault> {
        let place = tokio::time::timeout(self.wait_max, self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_elapsed| DiskFault::Busy)?.map_err(|_closed| DiskFault::Stopping)?;
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        let done = tokio::time::timeout(self.wait_max, task).await.map_err(|_elapsed| DiskFault::Silent)?;
        done.map_err(|_stopped| DiskFault::Stopping)
    }
}

/// An open file as the library's file system, which has no other file.
#[derive(Clone, Debug)]
pub(super) struct OneFile {
    file: Arc<File>,
    metadata: Metadata,
    tasks: DiskTasks,
}

impl OneFile {
    pub(super) fn new(file: File, tasks: DiskTasks) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { file: Arc::new(file), metadata, tasks })
    }

    pub(super) fn len(&self) -> u64 {
        self.metadata.len()
    }
}

impl Backend for OneFile {
    type File = Reader;
    type Metadata = Metadata;
    type OpenFuture = Ready<io::Result<Reader>>;
    type MetadataFuture = Ready<io::Result<Metadata>>;

    fn open(&self, _path: PathBuf) -> Self::OpenFuture {
        ready(Ok(Reader { source: self.clone(), position: 0, reading: None }))
    }

    fn metadata(&self, _path: PathBuf) -> Self::MetadataFuture {
        ready(Ok(self.metadata.clone()))
    }
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send + Sync>>;

/// Reads the bytes that the file had when it was opened. A file that shrinks meanwhile causes an error. Bytes that are
/// appended meanwhile are not read, because the answer states the length.
pub(super) struct Reader {
    source: OneFile,
    position: u64,
    reading: Option<Reading>,
}

impl library::File for Reader {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Ready<io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.source.metadata.clone()))
    }
}

impl AsyncSeek for Reader {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let SeekFrom::Start(position) = position else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        self.position = position;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.source.len().saturating_sub(this.position);
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE).min(buffer.remaining());
        if length == 0 {
            return Poll::Ready(Ok(()));
        }
        let reading =
            this.reading.get_or_insert_with(|| Box::pin(read(this.source.clone(), this.position, length)));
        let read = std::task::ready!(reading.as_mut().poll(cx));
        this.reading = None;
        let bytes = read?;
        // The library asks for at least as many bytes as before.
        buffer.put_slice(&bytes[..bytes.len().min(buffer.remaining())]);
        this.position += bytes.len() as u64;
        Poll::Ready(Ok(()))
    }
}

async fn read(source: OneFile, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let OneFile { file, tasks, .. } = source;
    let work = move || {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, position).map(|()| bytes)
    };
    match tasks.run(work).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter meanwhile"))
        }
        Ok(read) => read,
        Err(fault) => Err(io::Error::new(io::ErrorKind::TimedOut, fault.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    #[test]
    fn a_file_system_without_an_answer_keeps_a_bounded_number_of_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        runtime.block_on(async {
            let tasks = DiskTasks::bounded(3, Duration::from_millis(20));
            for _ in 0..3 {
                let held = held.clone();
                let stuck = move || held.lock().unwrap().recv().unwrap_or_default();
                assert_eq!(tasks.run(stuck).await, Err(DiskFault::Silent));
            }
            assert_eq!(tasks.run(|| ()).await, Err(DiskFault::Busy), "the threads still wait");
            release.send(()).unwrap();
            let patient = DiskTasks { wait_max: Duration::from_secs(60), ..tasks };
            assert_eq!(patient.run(|| 7).await, Ok(7), "a thread that ends gives its place back");
        });
        drop(release);
    }
}
