//! Checks passwords against their hashes, on a few threads of the lowest priority.
//!
//! A failed attempt costs the same work for every account, and for accounts that do not exist. Memory and processor
//! time are bounded: if the queue is full, the attempt is refused as busy.
//!
//! [`stored`] parses and checks hashes, [`work`] counts the cost of a check, and `equalize` equalizes the cost of
//! failed attempts.

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
    /// The given password is correct.
    Correct {
        /// A new hash at the current cost, if the stored hash is of another kind or of a lower cost.
        upgraded: Option<String>,
    },
    /// The password is wrong, or the account does not exist.
    Wrong,
}

/// The queue is full, there is not enough memory, or the wait was too long. The caller may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many passwords are being checked")
    }
}

impl std::error::Error for Busy {}

/// Hashes a password at the current cost on the calling thread. Takes 19 MiB and about 20 ms, so only commands may call
/// this function.
///
/// # Errors
/// `Busy` if the system provides no memory or no random numbers.
pub fn hash_password(password: &str) -> Result<PasswordHash, Busy> {
    stored::hash(password, &mut Arena::default()).map(password_hash)
}

/// A pool of threads that hash passwords. The threads end when the last clone of the pool is dropped.
#[derive(Clone)]
pub struct Hashers {
    jobs: SyncSender<Job>,
    patience: Duration,
}

/// The time that a password waits for its check. It is shorter than the time limit of the request, so that the refusal
/// states the true cause.
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
    /// Starts `threads` threads with a queue of `queue` passwords.
    ///
    /// Each thread keeps 19 MiB of memory for the gateway's own hashes, and uses at most 128 MiB to check an imported
    /// hash. The threads have the lowest priority (nice 19): on busy cores, they get about one seventieth of a core.
    pub fn start(threads: usize, queue: usize) -> Self {
        let (jobs, waiting) = mpsc::sync_channel(queue.max(1));
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            // An error is ignored. Without any thread, the queue fills up or closes, and requests are refused.
            let _ = std::thread::Builder::new().name("hasher".to_owned()).spawn(move || run_worker(&waiting));
        }
        Self { jobs, patience: PATIENCE }
    }

    /// Checks a password against the account's hash. `stored` is `None` if there is no account or no password.
    ///
    /// A wrong password costs as much as the most expensive hash of each kind in `schemes`, so the time reveals nothing
    /// about the account. `schemes` lists the schemes of all accounts' hashes, in the format of [`scheme`].
    ///
    /// # Errors
    /// If the queue is full, or the answer does not arrive within the time limit.
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

    /// Hashes a password at the current cost.
    ///
    /// # Errors
    /// If the queue is full, or the answer does not arrive within the time limit.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Busy> {
        let (answer, hash) = oneshot::channel();
        self.jobs.try_send(Job::Hash { password, answer }).map_err(|_| Busy)?;
        self.within_patience(hash).await
    }

    /// Returns the answer, or `Busy` after the time limit. A worker skips a job whose requester no longer waits.
    async fn within_patience<T>(&self, answer: oneshot::Receiver<Result<T, Busy>>) -> Result<T, Busy> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

fn run_worker(waiting: &Mutex<Receiver<Job>>) {
    // Lower the priority, so that logins do not compete with requests for the processor. An error is ignored: slow
    // requests are better than no logins.
    let _ = rustix::process::setpriority_process(None, 19);
    let mut arena = Arena::default();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic fails only this job. The thread continues.
        if catch_unwind(AssertUnwindSafe(|| run_job(job, &mut arena))).is_err() {
            arena = Arena::default();
        }
    }
}

fn run_job(job: Job, arena: &mut Arena) {
    match job {
        // The requester no longer waits for the answer.
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

/// Checks a password, and adds the work that the check costs to `done`.
fn judge(
    password: &str,
    stored: Option<&str>,
    schemes: &[String],
    arena: &mut Arena,
    done: &mut Work,
) -> Result<PasswordCheck, Busy> {
    // A hash of an unknown kind or too high a cost matches no password.
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
