//! Polls transmitters of signals, and opens the file of marks: the revocations that signals caused.

use crate::journal::Journal;
use crate::policy::{Policy, ServerSettings};
use crate::signals::{FileWriter, Poller, Receiver};
use crate::worker::Shared;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Returns the file of marks for a policy that will be served. With an authority, new marks go to the authority's
/// store. The file is then only read, because a policy without an authority may have written it.
///
/// # Errors
/// Returns a sentence for the operator. Marks may be missing, so the policy must not be served.
pub(crate) fn file(
    policy: &Policy,
    before: Option<&Policy>,
    settings: &ServerSettings,
    journal: &Journal,
) -> Result<Option<Arc<FileWriter>>, String> {
    if policy.receivers.is_empty() {
        return Ok(None);
    }
    if let Some(file) = before.and_then(|before| before.signal_file.clone()) {
        return Ok(Some(file));
    }
    let marks = policy.trust.revoked().signals();
    FileWriter::start(&settings.state_dir, marks, policy.issuer_settings.is_some(), journal)
        .map_err(|why| format!("[signals] the marks of signals: {why}"))
}

/// Starts a task for each transmitter that the current policy polls.
pub(super) fn poll_all(shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let policy = shared.policy.load();
    let polled = policy.receivers.iter().filter(|receiver| receiver.poll.is_some());
    polled.map(|receiver| tokio::task::spawn_local(poll(shared.clone(), receiver.clone()))).collect()
}

async fn poll(shared: Arc<Shared>, receiver: Arc<Receiver>) {
    let Some(poll) = &receiver.poll else { return };
    let mut poller = Poller::default();
    loop {
        // The issuer's keys may have changed since the last poll.
        let issuer = || shared.policy.load().trust.issuer_named(&receiver.issuer).cloned();
        let recorder = shared.policy.load().recorder();
        let pause = poller.poll(&receiver, poll, &recorder, &shared.journal, issuer).await;
        tokio::time::sleep(pause).await;
    }
}
