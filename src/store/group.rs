//! Commits the revocations that wait at the same time in one transaction.
//!
//! A transaction that writes marks holds their lock until its commit is on disk. If each revocation had a transaction of
//! its own, the disk's time for a flush would bound the rate of revocations. Here, revocations that arrive while a
//! transaction commits wait, and the next transaction takes all of them.

use super::connect::PATIENCE;
use super::error::Reason;
use super::marks::{MARGIN, NewMark, Revocation, SessionEnd, insert};
use super::{Store, StoreError, Writing};
use crate::authenticate::Mark;
use serde_json::{Value, json};
use sqlx::Row;
use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The maximum number of revocations in a transaction.
const MEMBERS_MAX: usize = 128;
/// The maximum number of marks in a transaction, unless one revocation alone has more.
const MARKS_MAX: usize = 1024;
/// The time limit for a transaction. Its parts have shorter limits: 5 s each for a connection, for the lock, and for a
/// statement. A server that is unreachable enforces none of them.
const TOGETHER_MAX: Duration = Duration::from_secs(15);

/// The revocations that wait.
#[derive(Default)]
pub(super) struct Group(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    members: VecDeque<Member>,
    /// The id of the next member.
    next: u64,
    /// Whether a task commits them.
    is_running: bool,
}

struct Member {
    id: u64,
    revocation: Revocation,
    answer: oneshot::Sender<Result<bool, StoreError>>,
}

impl Group {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a revocation. Returns its id, and whether the caller must start the task that commits.
    fn add(&self, revocation: Revocation, answer: oneshot::Sender<Result<bool, StoreError>>) -> (u64, bool) {
        let mut waiting = self.waiting();
        let id = waiting.next;
        waiting.next += 1;
        waiting.members.push_back(Member { id, revocation, answer });
        (id, !std::mem::replace(&mut waiting.is_running, true))
    }

    /// Removes a revocation that still waits. Returns `false` if its transaction has begun.
    fn withdraw(&self, id: u64) -> bool {
        let mut waiting = self.waiting();
        let place = waiting.members.iter().position(|member| member.id == id);
        place.is_some_and(|place| waiting.members.remove(place).is_some())
    }

    /// Returns the members of the next transaction in the order of their arrival; `None` if there are none, and the task
    /// that commits must end.
    fn take(&self) -> Option<Vec<Member>> {
        let mut waiting = self.waiting();
        // Nobody waits for the answer to a cancelled revocation.
        waiting.members.retain(|member| !member.answer.is_closed());
        let (mut taken, mut marks, mut sids) = (Vec::new(), 0, HashSet::new());
        while let Some(member) = waiting.members.pop_front() {
            let (more, is_new) = match &member.revocation {
                Revocation::Marks(new) => (new.len(), true),
                // Of two callers that end one session, only the first ends it.
                Revocation::End(end) => (1, sids.insert(end.sid.clone())),
            };
            let fits = is_new && taken.len() < MEMBERS_MAX && marks + more <= MARKS_MAX;
            if !taken.is_empty() && !fits {
                waiting.members.push_front(member);
                break;
            }
            marks += more;
            taken.push(member);
        }
        waiting.is_running = !taken.is_empty();
        waiting.is_running.then_some(taken)
    }
}

/// The task that commits. If it panics or its runtime ends, everybody who waits gets an error.
struct Running {
    group: Arc<Group>,
    is_over: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.group.waiting();
            waiting.is_running = false;
            waiting.members.clear();
        }
    }
}

impl Store {
    /// Commits a revocation, together with others that wait. Returns `false` for a session that this call did not end: it
    /// is not a session of that account, has ended, or another transaction has locked it. If the caller is cancelled, the
    /// revocation may still be committed.
    pub(super) async fn revoke_together(&self, revocation: Revocation) -> Result<bool, StoreError> {
        let (answer, mut done) = oneshot::channel();
        let (id, must_start) = self.group.add(revocation, answer);
        if must_start {
            #[expect(
                clippy::disallowed_methods,
                reason = "the transaction must not end with the caller that happens to be first"
            )]
            tokio::spawn(self.clone().commit_all());
        }
        let answer = match timeout(PATIENCE, &mut done).await {
            Ok(answer) => answer,
            Err(_) if self.group.withdraw(id) => {
                let why = "the revocations before it were not committed in time".to_owned();
                return Err(StoreError::trouble(Reason::NoConnection, why));
            }
            Err(_) => done.await,
        };
        let lost = |_| Err(StoreError::trouble(Reason::Other, "the transaction was abandoned".to_owned()));
        answer.unwrap_or_else(lost)
    }

    /// Commits revocations until none wait.
    async fn commit_all(self) {
        let mut running = Running { group: self.group.clone(), is_over: false };
        while let Some(members) = self.group.take() {
            self.commit_members(members).await;
        }
        running.is_over = true;
    }

    /// Commits these revocations and answers their callers.
    async fn commit_members(&self, members: Vec<Member>) {
        let (revocations, answers): (Vec<_>, Vec<_>) =
            members.into_iter().map(|member| (member.revocation, member.answer)).unzip();
        let error = match self.try_together(&revocations).await {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // The caller may have been cancelled.
                    let _ = answer.send(Ok(outcome));
                }
                return;
            }
            Err(error) => error,
        };
        // A fault that passes is the same for all. Any other fault may be that of one member, so each gets a transaction
        // of its own.
        let is_of_one = !matches!(error, StoreError::Unavailable(_)) && revocations.len() > 1;
        for (answer, revocation) in answers.into_iter().zip(&revocations) {
            let done = match is_of_one {
                true => self.try_together(slice::from_ref(revocation)).await.map(|outcomes| outcomes[0]),
                false => Err(error.clone()),
            };
            let _ = answer.send(done);
        }
    }

    /// Commits these revocations in one transaction. Fails if that takes too long, or if another server has become the
    /// primary server.
    async fn try_together(&self, revocations: &[Revocation]) -> Result<Vec<bool>, StoreError> {
        let moved = pin!(self.moved());
        tokio::select! {
            biased;
            done = timeout(TOGETHER_MAX, self.write_together(revocations)) => {
                done.unwrap_or_else(|_| Err(StoreError::late(TOGETHER_MAX)))
            }
            () = moved => Err(StoreError::moved()),
        }
    }

    async fn write_together(&self, revocations: &[Revocation]) -> Result<Vec<bool>, StoreError> {
        let mut transaction = self.begin().await?;
        let ends: Vec<&SessionEnd> = revocations
            .iter()
            .filter_map(|revocation| match revocation {
                Revocation::End(end) => Some(end),
                Revocation::Marks(_) => None,
            })
            .collect();
        let used = match ends.is_empty() {
            true => HashMap::new(),
            false => end_free(&mut transaction, &ends).await?,
        };
        let outcomes: Vec<bool> = revocations
            .iter()
            .map(|revocation| match revocation {
                Revocation::Marks(_) => true,
                Revocation::End(end) => used.contains_key(&end.sid),
            })
            .collect();
        if !outcomes.contains(&true) {
            transaction.undo().await;
            return Ok(outcomes);
        }
        self.lock_marks(&mut transaction).await?;
        // Read this after the lock: see `LOCK`.
        let longest = if used.is_empty() { 0 } else { longest_life(&mut transaction).await? };
        let mut marks = Vec::with_capacity(revocations.len());
        for revocation in revocations {
            match revocation {
                Revocation::Marks(new) => marks.extend_from_slice(new),
                Revocation::End(SessionEnd { sid, now, .. }) => {
                    let Some(used) = used.get(sid) else { continue };
                    let kept = (*used).max(*now).saturating_add(longest).saturating_add(MARGIN);
                    marks.push(NewMark { mark: Mark::Session(sid.clone()), kept, made: *now });
                }
            }
        }
        insert(&mut transaction, &marks).await?;
        transaction.commit().await?;
        Ok(outcomes)
    }
}

/// Ends sessions that no other transaction has locked. Returns the last use of each session that this call ended.
///
/// Other transactions lock rows in another order, so a transaction that ends several sessions must not wait for any.
async fn end_free(
    transaction: &mut Writing,
    ends: &[&SessionEnd],
) -> Result<HashMap<String, i64>, StoreError> {
    let statement = match transaction.dialect().is_server() {
        true => {
            "WITH free AS MATERIALIZED (
                 SELECT s.id, w.why, w.at
                 FROM json_to_recordset(CAST($1 AS json))
                      AS w (sid TEXT COLLATE \"C\", account TEXT COLLATE \"C\", why TEXT, at BIGINT)
                 JOIN sessions s ON s.id = w.sid
                 WHERE s.ended IS NULL AND s.account = COALESCE(w.account, s.account)
                 FOR NO KEY UPDATE OF s SKIP LOCKED)
             UPDATE sessions s SET ended = free.why, over = CASE WHEN s.over < free.at THEN s.over ELSE free.at END
             FROM free WHERE s.id = free.id
             RETURNING s.id, s.used"
        }
        false => {
            "UPDATE sessions SET ended = w.why, over = CASE WHEN sessions.over < w.at THEN sessions.over ELSE w.at END
             FROM (SELECT json_extract(value, '$.sid') AS sid, json_extract(value, '$.account') AS account,
                          json_extract(value, '$.why') AS why, json_extract(value, '$.at') AS at
                   FROM json_each($1)) AS w
             WHERE sessions.id = w.sid AND sessions.ended IS NULL
                   AND sessions.account = COALESCE(w.account, sessions.account)
             RETURNING id, used"
        }
    };
    let wanted: Value = ends
        .iter()
        .map(|end| json!({ "sid": end.sid, "account": end.account, "why": end.why, "at": end.now }))
        .collect();
    let rows = transaction.query(statement).bind(wanted.to_string()).fetch_all(&mut **transaction).await?;
    let mut used = HashMap::new();
    for row in &rows {
        used.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(used)
}

/// Returns how long access tokens may live, in milliseconds.
async fn longest_life(transaction: &mut Writing) -> Result<i64, StoreError> {
    let row = transaction.query("SELECT longest FROM token_life").fetch_optional(&mut **transaction).await?;
    Ok(row.map_or(Ok(0), |row| row.try_get(0))?)
}
