//! The certificate, while the gateway runs: one that replaces it is shown to the next client, and one that is about to end
//! is told of.

use super::watched::Watched;
use crate::clock::Now;
use crate::journal::{Journal, Level};
use crate::timestamp::rfc3339;
use crate::tls::{Certificates, Files, Validity};

/// How long before its end a certificate is told of, in seconds: two weeks, in which a person may be on leave.
const SOON: u64 = 14 * 86_400;

/// What was told last of a certificate's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    NotYet,
    Soon,
    Ended,
}

/// Looks after the certificate, for ever. The files are looked at on a thread of their own: their folder may be slow.
pub(super) async fn watch(certificates: Certificates, journal: Journal) {
    let mut interval = super::looks();
    let mut files = certificates.files();
    // Read again once: they may have changed since the start of the process read them.
    let mut watched = Watched::unread(paths(&files));
    let mut told = (None, Told::Nothing);
    loop {
        interval.tick().await;
        let ours = certificates.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // A reload may have led to other files, and has read them.
            let now = ours.files();
            if now != files {
                watched = Watched::unread(paths(&now));
                files = now;
            }
            let outcome = watched.look().then(|| ours.follow(files.clone()));
            (files, watched, outcome)
        });
        let Ok((back, looked, outcome)) = looked.await else {
            // It ended in a panic, which was told; the next look begins anew.
            files = certificates.files();
            watched = Watched::unread(paths(&files));
            continue;
        };
        (files, watched) = (back, looked);
        match outcome {
            Some(Ok(true)) => {
                let ends = certificates.ends().map(rfc3339).unwrap_or_default();
                journal.event(Level::Info, "the certificate was replaced", &[("ends", &ends)]);
            }
            Some(Ok(false)) | None => {}
            Some(Err(why)) => journal.event(
                Level::Error,
                "the certificate was not replaced; the old one goes on",
                &[("why", &why)],
            ),
        }
        tell_end(&certificates, &journal, &mut told);
    }
}

fn paths(files: &Files) -> Vec<std::path::PathBuf> {
    vec![files.certificate.clone(), files.key.clone()]
}

/// Logs once when a certificate is not valid yet, once when it expires soon, and once when it has expired.
fn tell_end(certificates: &Certificates, journal: &Journal, told: &mut (Option<Validity>, Told)) {
    let validity = certificates.validity();
    let now = match validity {
        Some(validity) => state(validity, Now::read().unix),
        None => Told::Nothing,
    };
    if *told == (validity, now) {
        return;
    }
    *told = (validity, now);
    let at = validity.map(|validity| rfc3339(validity.ends)).unwrap_or_default();
    match now {
        Told::Nothing => {}
        Told::NotYet => {
            let begins = validity.map(|validity| rfc3339(validity.begins)).unwrap_or_default();
            journal.event(Level::Error, "the certificate is not valid yet", &[("begins", &begins)]);
        }
        Told::Soon => journal.event(Level::Warn, "the certificate ends soon", &[("ends", &at)]),
        Told::Ended => journal.event(Level::Error, "the certificate has ended", &[("ends", &at)]),
    }
}

const fn state(Validity { begins, ends }: Validity, now: u64) -> Told {
    if now > ends {
        Told::Ended
    } else if now < begins {
        Told::NotYet
    } else if now.saturating_add(SOON) > ends {
        Told::Soon
    } else {
        Told::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end_and_after_it() {
        let now = 1_800_000_000;
        for (ends, told) in [
            (now - 1, Told::Ended),
            (now, Told::Soon),
            (now + SOON - 1, Told::Soon),
            (now + SOON, Told::Nothing),
            (u64::MAX, Told::Nothing),
        ] {
            assert_eq!(state(Validity { begins: now, ends }, now), told, "{ends}");
        }
        let later = Validity { begins: now + 1, ends: u64::MAX };
        assert_eq!(state(later, now), Told::NotYet);
    }
}
