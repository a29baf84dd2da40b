//! Watches the certificate files. New connections get the latest certificate. A certificate that expires soon is
//! logged.

use super::file_watch::FileWatch;
use crate::clock::Now;
use crate::journal::{Journal, Level};
use crate::timestamp::rfc3339;
use crate::tls::{Certificates, Files, Validity};

/// A warning is logged this many seconds before a certificate expires: two weeks, because the operator may be on leave.
const SOON: u64 = 14 * 86_400;

/// The phase of a certificate's validity. Each change is logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Valid,
    NotYetValid,
    EndsSoon,
    Ended,
}

/// Watches the certificate and never returns. Each poll runs on a separate thread, because the folder may be slow.
pub(super) async fn watch(certificates: Certificates, journal: Journal) {
    let mut interval = super::poll_interval();
    let mut files = certificates.files();
    // The first poll reads the files again, because they may have changed since the process started.
    let mut watch = FileWatch::unread(paths(&files));
    let mut logged = (None, Phase::Valid);
    loop {
        interval.tick().await;
        let ours = certificates.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // A reload may have switched to other files.
            let now = ours.files();
            if now != files {
                watch = FileWatch::unread(paths(&now));
                files = now;
            }
            let outcome = watch.poll().then(|| ours.follow(files.clone()));
            (files, watch, outcome)
        });
        let Ok((back, looked, outcome)) = looked.await else {
            // The poll panicked, and the panic was logged. The next poll starts with a new watch.
            files = certificates.files();
            watch = FileWatch::unread(paths(&files));
            continue;
        };
        (files, watch) = (back, looked);
        match outcome {
            Some(Ok(true)) => {
                let ends = certificates.ends().map(rfc3339).unwrap_or_default();
                journal.event(Level::Info, "the certificate was replaced", &[("ends", &ends)]);
            }
            Some(Ok(false)) | None => {}
            Some(Err(why)) => journal.event(
                Level::Error,
                "the certificate was not replaced; the current one stays in use",
                &[("why", &why)],
            ),
        }
        log_phase(&certificates, &journal, &mut logged);
    }
}

fn paths(files: &Files) -> Vec<std::path::PathBuf> {
    vec![files.certificate.clone(), files.key.clone()]
}

/// Logs each change of the certificate's phase once.
fn log_phase(certificates: &Certificates, journal: &Journal, logged: &mut (Option<Validity>, Phase)) {
    let validity = certificates.validity();
    let now = match validity {
        Some(validity) => phase(validity, Now::read().unix),
        None => Phase::Valid,
    };
    if *logged == (validity, now) {
        return;
    }
    *logged = (validity, now);
    let at = validity.map(|validity| rfc3339(validity.ends)).unwrap_or_default();
    match now {
        Phase::Valid => {}
        Phase::NotYetValid => {
            let begins = validity.map(|validity| rfc3339(validity.begins)).unwrap_or_default();
            journal.event(Level::Error, "the certificate is not valid yet", &[("begins", &begins)]);
        }
        Phase::EndsSoon => journal.event(Level::Warn, "the certificate expires soon", &[("ends", &at)]),
        Phase::Ended => journal.event(Level::Error, "the certificate has expired", &[("ends", &at)]),
    }
}

const fn phase(Validity { begins, ends }: Validity, now: u64) -> Phase {
    if now > ends {
        Phase::Ended
    } else if now < begins {
        Phase::NotYetValid
    } else if now.saturating_add(SOON) > ends {
        Phase::EndsSoon
    } else {
        Phase::Valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end_and_after_it() {
        let now = 1_800_000_000;
        for (ends, logged) in [
            (now - 1, Phase::Ended),
            (now, Phase::EndsSoon),
            (now + SOON - 1, Phase::EndsSoon),
            (now + SOON, Phase::Valid),
            (u64::MAX, Phase::Valid),
        ] {
            assert_eq!(phase(Validity { begins: now, ends }, now), logged, "{ends}");
        }
        let later = Validity { begins: now + 1, ends: u64::MAX };
        assert_eq!(phase(later, now), Phase::NotYetValid);
    }
}
