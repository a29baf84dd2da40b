//! Watches the files of TLS. New connections get the latest certificates. A certificate that expires soon, and a
//! revocation list that has expired, are logged.

use super::file_watch::{AGAIN, Due, FileWatch};
use crate::clock::Now;
use crate::journal::{Journal, Level};
use crate::timestamp::rfc3339;
use crate::tls::{Certificates, Followed, Validity};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A warning is logged this many seconds before a certificate expires: two weeks, because the operator may be on leave.
const SOON: u64 = 14 * 86_400;

/// The faults of certificates, and of rules for clients, that were found at the last read. They are logged once, however often
/// the files are read again.
type Faults = (Vec<String>, Vec<(Arc<str>, String)>);

/// The phase of a certificate's validity. Each change is logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Valid,
    NotYetValid,
    EndsSoon,
    Ended,
}

/// Watches the files and never returns. Each poll runs on a separate thread, because the folder may be slow.
pub(super) async fn watch(certificates: Certificates, journal: Journal) {
    let mut interval = super::poll_interval();
    let mut settings = certificates.settings();
    // The first poll reads the files again, because they may have changed since the process started.
    let mut watch = FileWatch::unread(settings.paths());
    let (mut logged, mut expired) = (BTreeMap::new(), BTreeMap::new());
    let mut known_faults = Faults::default();
    loop {
        interval.tick().await;
        let ours = certificates.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // A reload may have switched to other files.
            let now = ours.settings();
            if now != settings {
                watch = FileWatch::unread(now.paths());
                settings = now;
            }
            let mut followed = watch.poll().map(|due| (due, ours.follow(settings.clone())));
            if let Some((_, followed)) = &mut followed {
                watch.note_read(followed.has_faults().then_some(AGAIN));
                if watch.has_changed_since() {
                    followed.faults.clear();
                    followed.verifier_faults.clear();
                }
            }
            (settings, watch, followed)
        });
        let Ok((back, looked, followed)) = looked.await else {
            // The poll panicked, and the panic was logged. The next poll starts with a new watch.
            settings = certificates.settings();
            watch = FileWatch::unread(settings.paths());
            continue;
        };
        (settings, watch) = (back, looked);
        if let Some((due, mut followed)) = followed {
            let faults = (followed.faults.clone(), followed.verifier_faults.clone());
            if due == Due::Again && faults == known_faults {
                followed.faults.clear();
                followed.verifier_faults.clear();
            }
            known_faults = faults;
            log_followed(&followed, &journal);
        }
        log_phases(&certificates, &journal, &mut logged);
        log_expired_lists(&certificates, &journal, &mut expired);
    }
}

pub(super) fn log_followed(followed: &Followed, journal: &Journal) {
    for (certificate, ends) in &followed.replaced {
        let ends = ends.map(rfc3339).unwrap_or_default();
        let fields = [("certificate", &**certificate), ("ends", &ends)];
        journal.event(Level::Info, "the certificate was replaced", &fields);
    }
    for why in &followed.faults {
        journal.event(
            Level::Error,
            "the certificate was not replaced; the current one stays in use",
            &[("why", why)],
        );
    }
    for name in &followed.verifiers {
        let fields = [("client_certificates", &**name)];
        journal.event(
            Level::Info,
            "the authorities and revocation lists for client certificates were replaced",
            &fields,
        );
    }
    for (name, why) in &followed.verifier_faults {
        journal.event(
            Level::Error,
            "the authorities and revocation lists for client certificates were not replaced; the current ones stay in use",
            &[("client_certificates", name), ("why", why)],
        );
    }
}

/// The phases that were logged, by the name of the certificate.
type Logged = BTreeMap<Box<str>, (Option<Validity>, Phase)>;

/// Logs each change of a certificate's phase once.
fn log_phases(certificates: &Certificates, journal: &Journal, logged: &mut Logged) {
    let all = certificates.all();
    logged.retain(|label, _| all.iter().any(|shown| shown.label == *label));
    for shown in all {
        let validity = shown.validity;
        let now = validity.map_or(Phase::Valid, |validity| phase(validity, Now::read().unix));
        if logged.insert(shown.label.clone(), (validity, now)) != Some((validity, now)) {
            log_phase(&shown.label, validity, now, journal);
        }
    }
}

/// Logs each revocation list that has expired, once. `logged` contains the ends of lists, by rule.
fn log_expired_lists(certificates: &Certificates, journal: &Journal, logged: &mut BTreeMap<Arc<str>, u64>) {
    for known in certificates.verifiers() {
        let Some(ends) = known.lists_end.filter(|ends| Now::read().unix > *ends) else { continue };
        if logged.insert(known.rule.name.clone(), ends) != Some(ends) {
            let fields = [("client_certificates", &*known.rule.name), ("ends", &*rfc3339(ends))];
            let message = "a revocation list has expired; every client certificate is refused";
            journal.event(Level::Error, message, &fields);
        }
    }
}

fn log_phase(label: &str, validity: Option<Validity>, now: Phase, journal: &Journal) {
    let ends = validity.map(|validity| rfc3339(validity.ends)).unwrap_or_default();
    let begins = validity.map(|validity| rfc3339(validity.begins)).unwrap_or_default();
    let (level, message, moment) = match now {
        Phase::Valid => return,
        Phase::NotYetValid => (Level::Error, "the certificate is not valid yet", ("begins", &*begins)),
        Phase::EndsSoon => (Level::Warn, "the certificate expires soon", ("ends", &*ends)),
        Phase::Ended => (Level::Error, "the certificate has expired", ("ends", &*ends)),
    };
    journal.event(level, message, &[("certificate", label), moment]);
}

fn phase(Validity { begins, ends }: Validity, now: u64) -> Phase {
    // A certificate for six days is renewed two days before its end.
    let soon = SOON.min(ends.saturating_sub(begins) / 4);
    if now > ends {
        Phase::Ended
    } else if now < begins {
        Phase::NotYetValid
    } else if now.saturating_add(soon) > ends {
        Phase::EndsSoon
    } else {
        Phase::Valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_reported_two_weeks_before_it_expires_and_afterwards() {
        let now = 1_800_000_000;
        for (ends, logged) in [
            (now - 1, Phase::Ended),
            (now, Phase::EndsSoon),
            (now + SOON - 1, Phase::EndsSoon),
            (now + SOON, Phase::Valid),
            (u64::MAX, Phase::Valid),
        ] {
            assert_eq!(phase(Validity { begins: 0, ends }, now), logged, "{ends}");
        }
        let day = 86_400;
        for (left, logged) in [(2 * day, Phase::Valid), (day, Phase::EndsSoon)] {
            let short = Validity { begins: now + left - 6 * day, ends: now + left };
            assert_eq!(phase(short, now), logged, "a certificate for six days");
        }
        let later = Validity { begins: now + 1, ends: u64::MAX };
        assert_eq!(phase(later, now), Phase::NotYetValid);
    }
}
