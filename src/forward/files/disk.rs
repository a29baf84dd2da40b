//! Reads files on other threads, because a file system may wait for its disk or its server.
//!
//! A core has a bounded number of such threads at work, for each folder, for each mount and for all of them. A thread that
//! waits for a file system cannot be stopped, so it keeps its places until the file system answers, and requests do not
//! wait longer than [`WAIT_MAX`] for it. Folders of other mounts have places left.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::future::{Ready, ready};
use std::hash::Hash;
use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tower_http::services::fs::{self as library, Backend};

/// The maximum number of a core's threads that read files. The runtime has 512 threads for all purposes.
const TASKS_MAX: usize = 256;
/// The maximum number of these threads for the folders of one mount.
const MOUNT_MAX: usize = 64;
/// The maximum number of these threads for one folder. A mount below a folder, such as a share, then leaves places to the
/// other folders of the folder's own mount.
const FOLDER_MAX: usize = 32;
/// The maximum wait for a free thread, and then for the file system.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);
/// The number of bytes that are read at once. A client that does not read keeps a few pieces in memory.
pub(super) const PIECE: usize = 32 * 1024;

/// The threads of one core that read files.
#[derive(Debug)]
pub(crate) struct DiskTasks {
    all: Arc<Semaphore>,
    folders: Bounded<PathBuf>,
    /// By the device of the folder.
    mounts: Bounded<u64>,
    wait_max: Duration,
}

/// The places of each key. A key without work is forgotten once another one is added, so keys of previous policies do not
/// pile up.
#[derive(Debug)]
struct Bounded<K> {
    max: usize,
    places: RefCell<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Hash + Eq> Bounded<K> {
    fn new(max: usize) -> Self {
        Self { max, places: RefCell::default() }
    }

    fn of<Q: ToOwned<Owned = K> + Hash + Eq + ?Sized>(&self, key: &Q) -> Arc<Semaphore>
    where
        K: std::borrow::Borrow<Q>,
    {
        let mut known = self.places.borrow_mut();
        if let Some(places) = known.get(key) {
            return places.clone();
        }
        // Work in progress holds the semaphore.
        known.retain(|_, places| Arc::strong_count(places) > 1);
        known.entry(key.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.max))).clone()
    }
}

/// The threads that may read the files of one folder.
#[derive(Clone, Debug)]
pub(super) struct FolderTasks {
    /// The places of the folder, of its mount, and of the core.
    bounds: [Arc<Semaphore>; 3],
    wait_max: Duration,
}

type Places = [OwnedSemaphorePermit; 3];

/// The reason why a file system gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// All threads for the folder wait for file systems.
    Busy,
    /// The file system did not answer in time.
    Silent,
    /// The gateway stops.
    Stopping,
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(
                f,
                "all threads of this core that may read the folder wait for file systems, and none ended within {WAIT_MAX:?}"
            ),
            Self::Silent => write!(f, "the file system did not answer within {WAIT_MAX:?}"),
            Self::Stopping => f.write_str("the gateway stops"),
        }
    }
}

impl Default for DiskTasks {
    fn default() -> Self {
        Self::bounded(TASKS_MAX, MOUNT_MAX, FOLDER_MAX, WAIT_MAX)
    }
}

impl DiskTasks {
    fn bounded(tasks_max: usize, mount_max: usize, folder_max: usize, wait_max: Duration) -> Self {
        let all = Arc::new(Semaphore::new(tasks_max));
        Self { all, folders: Bounded::new(folder_max), mounts: Bounded::new(mount_max), wait_max }
    }

    /// Returns the threads for a folder of the mount with this device number.
    pub(super) fn of(&self, folder: &Path, mount: u64) -> FolderTasks {
        let bounds = [self.folders.of(folder), self.mounts.of(&mount), self.all.clone()];
        FolderTasks { bounds, wait_max: self.wait_max }
    }
}

impl FolderTasks {
    async fn places(&self) -> Result<Places, AcquireError> {
        let [folder, mount, all] = self.bounds.clone();
        Ok([folder.acquire_owned().await?, mount.acquire_owned().await?, all.acquire_owned().await?])
    }

    /// Runs `work` on another thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskFault> {
        let places = tokio::time::timeout(self.wait_max, self.places()).await;
        let places = places.map_err(|_elapsed| DiskFault::Busy)?.map_err(|_closed| DiskFault::Stopping)?;
        let task = tokio::task::spawn_blocking(move || {
            let _places = places;
            work()
        });
        let done = tokio::time::timeout(self.wait_max, task).await.map_err(|_elapsed| DiskFault::Silent)?;
        done.map_err(|_stopped| DiskFault::Stopping)
    }

    /// Closes a file on another thread, because NFS 4 waits for the server's answer. The file stays open until a thread is
    /// free.
    fn close(&self, file: File) {
        // Without a runtime, the process ends.
        let Ok(runtime) = Handle::try_current() else { return };
        let tasks = self.clone();
        let close = move |places: Places| {
            let _places = places;
            drop(file);
        };
        let [folder, mount, all] = self.bounds.clone().map(Semaphore::try_acquire_owned);
        if let (Ok(folder), Ok(mount), Ok(all)) = (folder, mount, all) {
            drop(runtime.spawn_blocking(move || close([folder, mount, all])));
            return;
        }
        drop(runtime.spawn(async move {
            if let Ok(places) = tasks.places().await {
                drop(tokio::task::spawn_blocking(move || close(places)));
            }
        }));
    }
}

/// An open file. It is closed on another thread.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// `None` only while it is dropped.
    file: Option<File>,
    tasks: FolderTasks,
}

impl OpenFile {
    /// Reads the bytes at a position, all of which the file had when it was opened. A file that became shorter meanwhile
    /// causes an error.
    pub(super) async fn read(self: Arc<Self>, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let tasks = self.tasks.clone();
        // The core's allocator uses the memory again. Each of the other threads would keep some of its own.
        let mut bytes = vec![0; length];
        let work = move || self.read_exact_at(&mut bytes, position).map(|()| bytes);
        match tasks.run(work).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter meanwhile"))
            }
            Ok(read) => read,
            Err(fault) => Err(io::Error::new(io::ErrorKind::TimedOut, fault.to_string())),
        }
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        match &self.file {
            Some(file) => file.read_exact_at(bytes, position),
            None => Err(io::Error::other("the file is closed")),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.tasks.close(file);
        }
    }
}

/// An open file as the library's file system, which has no other file.
#[derive(Clone, Debug)]
pub(super) struct OneFile {
    file: Arc<OpenFile>,
    metadata: Metadata,
}

impl OneFile {
    /// Takes an open file. May wait for the file system.
    pub(super) fn new(file: File, tasks: FolderTasks) -> io::Result<Self> {
        let metadata = file.metadata();
        let file = Arc::new(OpenFile { file: Some(file), tasks });
        Ok(Self { file, metadata: metadata? })
    }

    pub(super) fn len(&self) -> u64 {
        self.metadata.len()
    }

    pub(super) fn open_file(&self) -> Arc<OpenFile> {
        self.file.clone()
    }
}

/// A read of a piece of a file.
pub(super) type Reading = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>>>>;

impl Backend for OneFile {
    type File = Unread;
    type Metadata = Metadata;
    type OpenFuture = Ready<io::Result<Unread>>;
    type MetadataFuture = Ready<io::Result<Metadata>>;

    fn open(&self, _path: PathBuf) -> Self::OpenFuture {
        ready(Ok(Unread(self.metadata.clone())))
    }

    fn metadata(&self, _path: PathBuf) -> Self::MetadataFuture {
        ready(Ok(self.metadata.clone()))
    }
}

/// The file for the library, which determines the head of the answer from its metadata. The library would read each piece
/// into a buffer of its own, so the gateway reads the file itself.
pub(super) struct Unread(Metadata);

impl library::File for Unread {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Ready<io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.0.clone()))
    }
}

impl AsyncSeek for Unread {
    fn start_seek(self: Pin<&mut Self>, _position: SeekFrom) -> io::Result<()> {
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(0))
    }
}

impl AsyncRead for Unread {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    /// Keeps threads until it is dropped.
    struct Hanging {
        release: mpsc::Sender<()>,
        held: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Hanging {
        fn new() -> Self {
            let (release, held) = mpsc::channel();
            Self { release, held: Arc::new(Mutex::new(held)) }
        }

        /// Returns work that ends after one message of `release`.
        fn work(&self) -> impl FnOnce() + Send + 'static {
            let held = self.held.clone();
            move || held.lock().unwrap().recv().unwrap_or_default()
        }
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let done = runtime.block_on(work);
        runtime.shutdown_background();
        done
    }

    fn patient(tasks: FolderTasks) -> FolderTasks {
        FolderTasks { wait_max: Duration::from_secs(60), ..tasks }
    }

    #[test]
    fn a_file_system_without_an_answer_keeps_a_bounded_number_of_threads() {
        let hanging = Hanging::new();
        block_on(async {
            let tasks = DiskTasks::bounded(9, 9, 3, Duration::from_millis(20));
            let tasks = tasks.of(Path::new("/share"), 1);
            for _ in 0..3 {
                assert_eq!(tasks.run(hanging.work()).await, Err(DiskFault::Silent));
            }
            assert_eq!(tasks.run(|| ()).await, Err(DiskFault::Busy), "the threads still wait");
            hanging.release.send(()).unwrap();
            assert_eq!(patient(tasks).run(|| 7).await, Ok(7), "a thread that ends gives its places back");
        });
    }

    #[test]
    fn a_folder_that_hangs_leaves_threads_to_the_others() {
        let hanging = Hanging::new();
        block_on(async {
            let tasks = DiskTasks::bounded(6, 4, 2, Duration::from_millis(20));
            let folders = ["/share/a", "/share/b", "/share/c"].map(|folder| tasks.of(Path::new(folder), 1));
            for folder in &folders[..2] {
                for _ in 0..2 {
                    assert_eq!(folder.run(hanging.work()).await, Err(DiskFault::Silent));
                }
                assert_eq!(folder.run(|| ()).await, Err(DiskFault::Busy), "the folder has no place");
            }
            assert_eq!(folders[2].run(|| ()).await, Err(DiskFault::Busy), "its mount hangs");
            let local = tasks.of(Path::new("/srv"), 2);
            for _ in 0..20 {
                assert_eq!(patient(local.clone()).run(|| 7).await, Ok(7), "another mount");
            }
            let nested = tasks.of(Path::new("/srv/nested"), 2);
            for _ in 0..2 {
                assert_eq!(nested.run(hanging.work()).await, Err(DiskFault::Silent));
            }
            assert_eq!(local.run(|| ()).await, Err(DiskFault::Busy), "all threads of the core wait");
        });
    }

    #[test]
    fn folders_of_previous_policies_are_forgotten_once_nothing_reads_them() {
        let tasks = DiskTasks::default();
        let read = tasks.of(Path::new("/a"), 1);
        for number in 0..100 {
            drop(tasks.of(Path::new(&format!("/{number}")), number));
        }
        assert!(tasks.folders.places.borrow().len() <= 2 && tasks.mounts.places.borrow().len() <= 2);
        assert!(Arc::ptr_eq(&read.bounds[0], &tasks.of(Path::new("/a"), 1).bounds[0]), "it is still read");
    }

    #[test]
    fn a_file_is_closed_on_another_thread_also_while_its_folder_hangs() {
        let hanging = Hanging::new();
        block_on(async {
            let tasks = DiskTasks::bounded(9, 9, 1, Duration::from_millis(20)).of(Path::new("/share"), 1);
            let path = std::env::current_exe().unwrap();
            let open = || OneFile::new(File::open(&path).unwrap(), tasks.clone()).unwrap();
            assert_eq!(tasks.run(hanging.work()).await, Err(DiskFault::Silent));
            let weak = Arc::downgrade(&open().file);
            assert!(weak.upgrade().is_none(), "nothing uses the file");
            // The closing task holds the bounds of its folder, besides `tasks`.
            let count = || Arc::strong_count(&tasks.bounds[0]);
            tokio::task::yield_now().await;
            assert!(count() > 2, "it waits for a place: {}", count());
            hanging.release.send(()).unwrap();
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while tasks.bounds[0].available_permits() == 0 || count() > 2 {
                assert!(std::time::Instant::now() < deadline, "{} left", count());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}
