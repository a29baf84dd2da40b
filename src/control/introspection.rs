//! Asks issuers about tokens for the requests that wait, with one task per issuer that is asked, and reports the state
//! of these questions.

use super::tasks::Tasks;
use crate::authenticate::{Issuer, Trust, read_introspection, signer_of};
use crate::clock::Now;
use crate::denial::Denial;
use crate::introspection::{Answered, Asked, Introspector, LATENCIES, Verdict};
use crate::journal::Level;
use crate::key_source::{FetchError, Waited};
use crate::metrics::{Exposition, Kind};
use crate::timestamp::rfc3339;
use crate::worker::Shared;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time that a question waits for the issuer's keys if no known key verifies the signed answer.
const KEYS_WAIT: Duration = Duration::from_secs(3);

/// The tasks that ask issuers for the current policy.
#[derive(Debug, Default)]
pub(super) struct Interviewers(Tasks<Introspector>);

impl Interviewers {
    /// Starts and stops tasks to match the current policy. An issuer that is still asked in the same way keeps its
    /// task.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>) {
        let policy = shared.policy.load();
        let wanted = asked(&policy.trust).cloned().collect();
        let start = |introspector| tokio::task::spawn_local(keep_asking(shared.clone(), introspector));
        self.0.follow(wanted, start, Introspector::abandon);
    }
}

/// Sends each question as it arrives. The introspector bounds their number. Never returns.
async fn keep_asking(shared: Arc<Shared>, introspector: Arc<Introspector>) {
    loop {
        let asked = introspector.next().await;
        tokio::task::spawn_local(ask(shared.clone(), asked));
    }
}

/// Asks one question, and logs if the issuer stops or starts to answer.
async fn ask(shared: Arc<Shared>, asked: Asked) {
    let introspector = asked.introspector().clone();
    let begun = Instant::now();
    let answer = match introspector.ask(asked.token()).await {
        Ok(answered) => verdict(&shared, &introspector, &answered).await,
        Err(error) => Err(error),
    };
    let why = answer.as_ref().err().map(|error| error.why.clone());
    let is_news = asked.end(answer, begun.elapsed(), Now::read());
    if !is_news {
        return;
    }
    let issuer = &*introspector.settings().issuer;
    match why {
        Some(why) => {
            let event = "an issuer gives no usable answer about a token";
            shared.journal.event(Level::Warn, event, &[("issuer", issuer), ("why", &why)]);
        }
        None => {
            let event = "an issuer answers about tokens again";
            shared.journal.event(Level::Info, event, &[("issuer", issuer)]);
        }
    }
}

/// Reads an answer. If no known key verifies a signed answer, waits for the issuer's next key set and tries once more.
async fn verdict(
    shared: &Shared,
    introspector: &Arc<Introspector>,
    answered: &Answered,
) -> Result<Verdict, FetchError> {
    let signed_for = introspector.settings().signed_for.as_deref();
    let mut has_waited = false;
    loop {
        let now = Now::read();
        let policy = shared.policy.load();
        let issuer = policy.trust.issuers().iter().find(|issuer| is_asked_by(issuer, introspector));
        let Some(issuer) = issuer else {
            let why = "the policy no longer asks this issuer".to_owned();
            return Err(FetchError { kind: "content", why });
        };
        let refused = match read_introspection(&answered.body, issuer, signed_for, answered.asked, now) {
            Ok(verdict) => return Ok(verdict),
            Err(refused) => refused,
        };
        let is_unverified = matches!(
            refused.denial,
            Denial::UnknownKey | Denial::BadSignature | Denial::UnsupportedAlgorithm
        );
        if let Some(source) = issuer.source.clone().filter(|_| is_unverified && !has_waited) {
            has_waited = true;
            let kid = signer_of(&answered.body);
            if source.wanted(kid.as_deref()).wait(now.steady + KEYS_WAIT, now).await == Waited::Fetched {
                continue;
            }
        }
        let words = refused.words().unwrap_or("the answer cannot be read").to_owned();
        return Err(FetchError { kind: "content", why: words });
    }
}

fn is_asked_by(issuer: &Issuer, introspector: &Arc<Introspector>) -> bool {
    issuer.introspector.as_ref().is_some_and(|known| Arc::ptr_eq(known, introspector))
}

fn asked(trust: &Trust) -> impl Iterator<Item = &Arc<Introspector>> {
    trust.issuers().iter().filter_map(|issuer| issuer.introspector.as_ref())
}

/// Describes the questions for operators, in one line per issuer that is asked about tokens.
pub(super) fn lines(trust: &Trust) -> String {
    asked(trust).map(|introspector| line(introspector)).collect()
}

fn line(introspector: &Introspector) -> String {
    let (settings, status) = (introspector.settings(), introspector.status());
    let error = match &status.error {
        Some((at, error)) => format!("; the last question failed at {}: {error}", rfc3339(*at)),
        None => String::new(),
    };
    format!(
        "introspection: {}: {} active and {} inactive tokens known, {} questions open{error}\n",
        settings.issuer, status.active, status.inactive, status.open
    )
}

/// Describes the questions to one issuer as JSON.
pub(crate) fn json(introspector: &Introspector) -> Value {
    let (settings, status) = (introspector.settings(), introspector.status());
    json!({
        "endpoint": settings.endpoint.to_string(),
        "signed": settings.signed_for.is_some(),
        "always": settings.always,
        "prefixes": settings.prefixes.iter().map(|prefix| &**prefix).collect::<Vec<_>>(),
        "active": status.active,
        "inactive": status.inactive,
        "open": status.open,
        "last_error": status.error.map(|(at, error)| json!({ "at": rfc3339(at), "why": error.why })),
    })
}

/// Writes the metrics. The issuer labels are names from the policy.
pub(super) fn write_metrics(out: &mut Exposition, trust: &Trust) {
    let all: Vec<_> = asked(trust).map(|known| (&*known.settings().issuer, known.status())).collect();
    let help = "Questions to an issuer about tokens, by outcome.";
    out.family("portcullis_introspections_total", help, Kind::Counter);
    for (issuer, status) in &all {
        for outcome in ["active", "inactive"] {
            let count = status.outcomes.get(outcome).copied().unwrap_or(0);
            out.sample(&[("issuer", issuer), ("outcome", outcome)], count);
        }
        let failures = status.outcomes.iter().filter(|(kind, _)| !["active", "inactive"].contains(*kind));
        for (kind, count) in failures {
            out.sample(&[("issuer", issuer), ("outcome", kind)], *count);
        }
    }
    let help = "Requests with a token about which the issuer was not asked, by the bound that was reached.";
    out.family("portcullis_introspections_not_asked_total", help, Kind::Counter);
    for (issuer, status) in &all {
        for (bound, count) in &status.over {
            out.sample(&[("issuer", issuer), ("bound", bound)], *count);
        }
    }
    let help = "Duration of questions to an issuer about tokens.";
    out.family("portcullis_introspection_seconds", help, Kind::Histogram);
    for (issuer, status) in &all {
        out.spread_durations(&[("issuer", issuer)], &LATENCIES, &status.latencies, status.micros);
    }
    let help = "Tokens whose verification found an answer of the issuer without a question.";
    out.family("portcullis_introspection_hits_total", help, Kind::Counter);
    all.iter().for_each(|(issuer, status)| out.sample(&[("issuer", issuer)], status.hits));
    let help = "Kept answers of an issuer about tokens.";
    out.family("portcullis_introspection_answers", help, Kind::Gauge);
    for (issuer, status) in &all {
        for (standing, count) in [("active", status.active), ("inactive", status.inactive)] {
            out.sample(&[("issuer", issuer), ("standing", standing)], count as u64);
        }
    }
    let help = "Questions to an issuer about tokens that are open now.";
    out.family("portcullis_introspection_open", help, Kind::Gauge);
    all.iter().for_each(|(issuer, status)| out.sample(&[("issuer", issuer)], status.open as u64));
}
