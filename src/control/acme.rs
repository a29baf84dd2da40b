//! Orders and renews the certificate of `[tls] acme`, follows the other gateways of the state folder, and reports.

use super::file_watch::FileWatch;
use crate::acme::{
    self, Acme, Attempts, Failure, Files, Kept, ORDERS_PER_DAY, Report, Settings, Wait, Window, back_off,
    renewal, window_age,
};
use crate::clock::Now;
use crate::journal::{Journal, Level};
use crate::metrics::{Exposition, Kind};
use crate::timestamp::rfc3339;
use crate::tls::{Certificates, ordered};
use crate::worker::Shared;
use aws_lc_rs::rand;
use std::sync::Arc;

/// The time after which a gateway looks again whether another gateway has finished its order, in seconds.
const TURN: u64 = 15;
/// The time between two requests for the renewal window if the server has none or cannot be asked, in seconds.
const WINDOW_RETRY: u64 = 6 * 3600;

/// The task's view of the order.
struct Keeper {
    journal: Journal,
    acme: Arc<Acme>,
    certificates: Certificates,
    files: Files,
    settings: Arc<Settings>,
    kept: Option<Kept>,
    attempts: Attempts,
    window: Option<Window>,
    /// The wait before the next request for the renewal window.
    ask_window: Wait,
    failures: u32,
    /// The wait before the next order after a failure, or while another gateway orders.
    not_before: Wait,
    /// Places the renewal within its window. Chosen anew for each certificate.
    random: u16,
}

/// Runs the orders. Never returns.
pub(super) async fn run(shared: Arc<Shared>, certificates: Certificates) {
    let mut interval = super::poll_interval();
    let mut keeper: Option<Keeper> = None;
    let mut watch = FileWatch::unread(Vec::new());
    loop {
        interval.tick().await;
        let Some(settings) = shared.acme.settings() else {
            if keeper.take().is_some() {
                shared.acme.challenges.clear();
            }
            continue;
        };
        let changed = match &mut keeper {
            Some(keeper) if keeper.settings == settings => {
                // The poll runs on a separate thread, because the folder may be slow.
                let looked = tokio::task::spawn_blocking(move || {
                    let changed = watch.poll().is_some();
                    (watch, changed)
                });
                let Ok((back, changed)) = looked.await else {
                    watch = keeper.watch();
                    continue;
                };
                watch = back;
                changed
            }
            _ => {
                let new = Keeper::new(&shared, certificates.clone(), settings);
                watch = new.watch();
                keeper = Some(new);
                true
            }
        };
        if let Some(keeper) = &mut keeper {
            keeper.tick(changed).await;
        }
    }
}

impl Keeper {
    fn new(shared: &Shared, certificates: Certificates, settings: Arc<Settings>) -> Self {
        shared.acme.status.update(|report| *report = Report::default());
        let files = Files::of(&settings.state);
        files.clear_stale();
        Self {
            journal: shared.journal.clone(),
            acme: shared.acme.clone(),
            certificates,
            files,
            settings,
            kept: None,
            attempts: Attempts::default(),
            window: None,
            ask_window: Wait::default(),
            failures: 0,
            not_before: Wait::default(),
            random: random(),
        }
    }

    /// Watches the files that other gateways change.
    fn watch(&self) -> FileWatch {
        FileWatch::unread(vec![self.files.certificate(), self.files.challenges()])
    }

    /// Follows the files if they `changed`, and orders a certificate if it is time.
    async fn tick(&mut self, changed: bool) {
        if changed {
            self.look();
        }
        self.show();
        let now = Now::read();
        if let Some(kept) = self.kept.clone().filter(|kept| kept.serves(&self.settings))
            && self.ask_window.is_over(now)
        {
            self.ask_window(&kept, now).await;
        }
        let next = self.next(now);
        let has_certificate = self.kept.is_some();
        self.acme.status.update(|report| {
            report.has_certificate = has_certificate;
            report.next = next;
        });
        if next <= now.unix {
            self.attempt(now).await;
        }
    }

    /// Reads the files of the folder.
    fn look(&mut self) {
        let kept = self.files.kept();
        if kept != self.kept {
            (self.window, self.ask_window, self.random) = (None, Wait::default(), random());
            if kept.as_ref().is_some_and(|kept| kept.serves(&self.settings)) {
                // Another gateway may have ordered it.
                self.failures = 0;
            }
            self.kept = kept;
        }
        self.attempts = self.files.read_attempts(&self.settings);
        self.files.follow_challenges(&self.settings, &self.acme);
    }

    /// Shows the ordered certificate to clients, if they get another one.
    fn show(&self) {
        let (mut settings, ordered) = (self.certificates.settings(), ordered(&self.settings.state));
        if self.kept.is_none() || !settings.is_ordered || settings.default.as_ref() == Some(&ordered) {
            return;
        }
        settings.default = Some(ordered);
        super::certificates::log_followed(&self.certificates.follow(settings), &self.journal);
    }

    /// Returns the time of the next order.
    fn next(&self, now: Now) -> u64 {
        let wanted = match &self.kept {
            Some(kept) if kept.serves(&self.settings) => {
                // The pauses after failures are shorter.
                let ordered = if self.failures == 0 { self.attempts.latest() } else { 0 };
                renewal(kept.validity, self.window, self.random, ordered)
            }
            Some(_) | None => 0,
        };
        wanted.max(self.not_before.end(now)).max(self.attempts.allowed(now.unix))
    }

    async fn ask_window(&mut self, kept: &Kept, now: Now) {
        self.ask_window = Wait::begin(now, WINDOW_RETRY);
        match acme::renewal_window(&self.settings, &self.files, kept).await {
            Ok(Some((window, delay))) => {
                if self.window != Some(window) {
                    let fields = [("from", &*rfc3339(window.start)), ("until", &*rfc3339(window.end))];
                    let event = "the ACME server suggests when to renew the certificate";
                    self.journal.event(Level::Info, event, &fields);
                }
                self.window = Some(window);
                self.ask_window = Wait::begin(now, window_age(delay));
            }
            Ok(None) => {}
            // The window that is known stays in force, and two thirds of the lifetime otherwise.
            Err(failure) => {
                self.ask_window = self.ask_window.max(demanded(&failure, Now::read()));
                let fields = [("type", &*failure.kind), ("detail", &*failure.detail)];
                let event = "the ACME server cannot be asked when to renew the certificate";
                self.journal.event(Level::Info, event, &fields);
            }
        }
    }

    /// Orders a certificate, unless another gateway orders one.
    async fn attempt(&mut self, now: Now) {
        let outcome = match self.files.lock() {
            Ok(None) => {
                self.not_before = Wait::begin(now, TURN);
                return;
            }
            Ok(Some(lock)) => {
                // Another gateway may have ordered a certificate since the last look.
                self.look();
                self.show();
                if self.next(now) > now.unix {
                    return;
                }
                let outcome = self.order(now.unix).await;
                drop(lock);
                outcome
            }
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(order) => self.succeeded(&order),
            Err(failure) => self.failed(failure),
        }
    }

    async fn order(&mut self, now: u64) -> Result<acme::Order, Failure> {
        self.attempts.begin(now);
        // The file is written first. A full disk must not lead to one order after the other.
        self.files.write_attempts(&self.settings, &self.attempts)?;
        let fields = [("domains", &*self.domains()), ("directory", &*self.settings.directory.to_string())];
        self.journal.event(Level::Info, "ordering a certificate from the ACME server", &fields);
        // A certificate that was not replaced at the first attempt is not named again.
        let replaced = self.kept.as_ref().filter(|_| self.failures == 0);
        let outcome = acme::order(&self.settings, &self.files, &self.acme, replaced).await;
        if let Err(Failure { not_before: Some(until), .. }) = &outcome {
            self.attempts.wait_until(Some(*until));
            self.files.write_attempts(&self.settings, &self.attempts)?;
        }
        outcome
    }

    fn succeeded(&mut self, order: &acme::Order) {
        self.acme.status.issued.add(1);
        if order.is_new_account {
            let fields = [("terms", order.terms.as_deref().unwrap_or("none"))];
            self.journal.event(Level::Info, "an account was created at the ACME server", &fields);
        }
        (self.failures, self.not_before) = (0, Wait::default());
        self.look();
        self.show();
        let next = self.next(Now::read());
        self.acme.status.update(|report| {
            *report = Report { has_certificate: true, next, failures: 0, last: None };
        });
        let ends = self.kept.as_ref().map_or(0, |kept| kept.validity.ends);
        let fields = [("domains", &*self.domains()), ("ends", &*rfc3339(ends)), ("renewal", &*rfc3339(next))];
        self.journal.event(Level::Info, "the ACME server issued the certificate", &fields);
    }

    fn failed(&mut self, failure: Failure) {
        self.acme.status.failed.add(1);
        let now = Now::read();
        self.failures = self.failures.saturating_add(1);
        self.not_before = Wait::begin(now, back_off(self.failures, random())).max(demanded(&failure, now));
        let next = self.next(now);
        let is_valid = self.kept.as_ref().is_some_and(|kept| kept.validity.fault(now.unix).is_none());
        let fields = [
            ("domains", &*self.domains()),
            ("type", &*failure.kind),
            ("detail", &*failure.detail),
            ("failures", &*self.failures.to_string()),
            ("next", &*rfc3339(next)),
            ("in_use", if is_valid { "a valid certificate" } else { "no valid certificate" }),
        ];
        let level = if is_valid { Level::Warn } else { Level::Error };
        self.journal.event(level, "the ACME server issued no certificate", &fields);
        let failures = self.failures;
        self.acme.status.update(|report| {
            (report.next, report.failures, report.last) = (next, failures, Some((now.unix, failure)));
        });
    }

    fn domains(&self) -> String {
        self.settings.domains.join(",")
    }
}

/// Returns the wait that the server demands.
fn demanded(failure: &Failure, now: Now) -> Wait {
    Wait::begin(now, failure.not_before.unwrap_or(0).saturating_sub(now.unix))
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without random numbers, the time is not randomized.
    let _ = rand::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}

/// Describes the order for operators, in one line. Returns nothing if the policy has no `[tls] acme`.
pub(super) fn line(shared: &Shared) -> String {
    let Some(settings) = shared.acme.settings() else { return String::new() };
    let Report { has_certificate, next, last, failures } = shared.acme.status.report();
    let state = if has_certificate {
        "the ordered certificate is in use"
    } else {
        "no certificate was issued yet, so clients get the self-signed one"
    };
    let next = if next == 0 { String::new() } else { format!("; next order {}", rfc3339(next)) };
    let error = match last {
        Some((at, failure)) => {
            format!("; {failures} orders failed in a row, the last at {}: {failure}", rfc3339(at))
        }
        None => String::new(),
    };
    format!("acme: {}: {state}{next}{error}\n", settings.domains.join(","))
}

/// Writes the metrics, if the policy has `[tls] acme`.
pub(super) fn write_metrics(out: &mut Exposition, acme: &Acme) {
    if acme.settings().is_none() {
        return;
    }
    let report = acme.status.report();
    let help = "Whether the ordered certificate is in use (1) or the self-signed one until it is issued (0).";
    out.family("portcullis_acme_certificate_issued", help, Kind::Gauge);
    out.sample(&[], u64::from(report.has_certificate));
    out.family("portcullis_acme_orders_total", "Orders at the ACME server, by outcome.", Kind::Counter);
    out.sample(&[("outcome", "issued")], acme.status.issued.get());
    out.sample(&[("outcome", "failed")], acme.status.failed.get());
    let help = "Orders at the ACME server that failed since the last one that succeeded.";
    out.family("portcullis_acme_failures_in_a_row", help, Kind::Gauge);
    out.sample(&[], u64::from(report.failures));
    let help = "Time of the next order at the ACME server, in seconds since 1970.";
    out.family("portcullis_acme_next_order_timestamp_seconds", help, Kind::Gauge);
    out.sample(&[], report.next);
    let help = "Maximum number of orders at the ACME server within 24 hours.";
    out.family("portcullis_acme_orders_per_day_max", help, Kind::Gauge);
    out.sample(&[], u64::try_from(ORDERS_PER_DAY).unwrap_or(u64::MAX));
}
