//! Passwords against their hashes, on a few threads of the lowest priority.
//!
//! Promises that a failed attempt costs the same work whether the account exists or not and whatever hash it has, and
//! that however many attempts there are, memory and processor time have a bound: what cannot wait is told to come back.
//! How a hash is written and checked is [`stored`]'s; what work is, and how it is made equal, [`work`]'s.

mod equalize;
mod kdf;
mod stored;
mod work;

pub use kdf::HashFault;
pub use stored::{check_hash, password_hash, scheme};

use crate::store::PasswordHash;
use equalize::{spend, work_of_schemes};
use kdf::Arena;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use stored::StoredHash;
use tokio::sync::oneshot;
use work::Work;
use zeroize::Zeroizing;

/// The result of checking a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    /// It is the account's password.
    Correct {
        /// Its hash at the cost of today, where the stored one is of another kind or too cheap: to be stored instead.
        upgraded: Option<String>,
    },
    /// It is not, or there is no such account.
    Wrong,
}

/// There is no room, in the queue or in memory: to be tried again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many passwords are being checked")
    }
}

impl std::error::Error for Busy {}

/// The hash of a password at the cost of today, made on the thread that asks: for commands, which have nothing else to
/// do. Takes 19 MiB and some 20 ms.
///
/// # Errors
/// When the system gives no memory or no random numbers.
pub fn hash_password(password: &str) -> Result<PasswordHash, Busy> {
    stored::hash(password, &mut Arena::default()).map(password_hash)
}

/// Threads that hash passwords. They end when this is dropped.
#[derive(Clone)]
pub struct Hashers {
    jobs: SyncSender<Job>,
    patience: Duration,
}

/// The maximum time that a password waits for its check. Expensive imported hashes, or requests that leave the threads
/// little time, slow the queue down; the client must get this reason before the time limit of the whole request.
const PATIENCE: Duration = Duration::from_secs(10);

impl fmt::Debug for Hashers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashers").finish_non_exhaustive()
    }
}

enum Job {
    Verify {
        password: Zeroizing<String>,
        stored: Option<String>,
        schemes: Arc<[String]>,
        answer: oneshot::Sender<Result<PasswordCheck, Busy>>,
    },
    Hash {
        password: Zeroizing<String>,
        answer: oneshot::Sender<Result<String, Busy>>,
    },
    #[cfg(test)]
    Run(Box<dyn FnOnce() + Send>),
}

impl Hashers {
    /// Starts so many threads, before which so many passwords may wait. Each thread keeps the 19 MiB of our own hashes;
    /// while it checks an imported hash it takes what that one asks for, 128 MiB at most.
    ///
    /// Their priority is the lowest there is (nice 19; on Linux a thread has its own): when all cores are busy they get
    /// what the threads that serve requests leave over, one part in about seventy of a core that both want.
    pub fn start(threads: usize, queue: usize) -> Self {
        let (jobs, waiting) = mpsc::sync_channel(queue.max(1));
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            // If no thread can be started, the queue fills up or closes; requests are refused either way.
            let _ = std::thread::Builder::new().name("hasher".to_owned()).spawn(move || run_worker(&waiting));
        }
        Self { jobs, patience: PATIENCE }
    }

    /// Whether this is the password of the account with this hash; none: of an account that does not exist, or has no
    /// password. `schemes` are those of all accounts' hashes, as [`scheme`] names them: a wrong password costs as much
    /// as the dearest hash of each kind, so that its time tells nothing of the account.
    ///
    /// # Errors
    /// When too many are waiting already, or it is late.
    pub async fn verify(
        &self,
        password: Zeroizing<String>,
        stored: Option<String>,
        schemes: Arc<[String]>,
    ) -> Result<PasswordCheck, Busy> {
        let (answer, verdict) = oneshot::channel();
        self.jobs.try_send(Job::Verify { password, stored, schemes, answer }).map_err(|_| Busy)?;
        self.within_patience(verdict).await
    }

    /// The hash of a password at the cost of today.
    ///
    /// # Errors
    /// When too many are waiting already, or it is late.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Busy> {
        let (answer, hash) = oneshot::channel();
        self.jobs.try_send(Job::Hash { password, answer }).map_err(|_| Busy)?;
        self.within_patience(hash).await
    }

    /// Returns an answer, unless it is late. Jobs that nobody waits for any longer are not started.
    async fn within_patience<T>(&self, answer: oneshot::Receiver<Result<T, Busy>>) -> Result<T, Busy> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

fn run_worker(waiting: &Mutex<Receiver<Job>>) {
    // Without it logins would be served at the cost of requests; that is no reason to serve none.
    let _ = rustix::process::setpriority_process(None, 19);
    let mut arena = Arena::default();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A fault in one hash costs one answer, whose sender is dropped with the job, and not the thread.
        if catch_unwind(AssertUnwindSafe(|| run_job(job, &mut arena))).is_err() {
            arena = Arena::default();
        }
    }
}

fn run_job(job: Job, arena: &mut Arena) {
    match job {
        // The requester has left, and nobody would read the answer.
        Job::Verify { answer, .. } if answer.is_closed() => {}
        Job::Hash { answer, .. } if answer.is_closed() => {}
        Job::Verify { password, stored, schemes, answer } => {
            let verdict = judge(&password, stored.as_deref(), &schemes, arena, &mut Work::default());
            let _ = answer.send(verdict);
        }
        Job::Hash { password, answer } => drop(answer.send(stored::hash(&password, arena))),
        #[cfg(test)]
        Job::Run(run) => run(),
    }
}

/// Decides about a password, and counts the work that it took.
fn judge(
    password: &str,
    stored: Option<&str>,
    schemes: &[String],
    arena: &mut Arena,
    done: &mut Work,
) -> Result<PasswordCheck, Busy> {
    // A hash that we cannot check, or would not at its price, has no password. `user import` lets none in.
    if let Some(stored) = stored.and_then(|stored| StoredHash::parse(stored).ok()) {
        done.add(&stored.work());
        if stored.matches(password, arena)? {
            let upgraded =
                stored.needs_upgrade(password).then(|| stored::hash(password, arena)).transpose()?;
            return Ok(PasswordCheck::Correct { upgraded });
        }
    }
    let distinct: BTreeSet<&str> = schemes.iter().map(String::as_str).collect();
    let missing = work_of_schemes(distinct).less(done);
    spend(&missing, password, arena)?;
    done.add(&missing);
    Ok(PasswordCheck::Wrong)
}

#[cfg(test)]
mod tests;
