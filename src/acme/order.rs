//! Carries out one order: account, order, challenges, certificate (RFC 8555 section 7.4).

use super::account::{self, Opened};
use super::challenges::Answer;
use super::transport::Transport;
use super::{Acme, Challenge, Failure, Files, Kept, Settings, Window};
use crate::clock::Now;
use crate::{outbound, tls};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier,
    NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::Der;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use zeroize::Zeroizing;

/// The time after which other gateways that share the state folder have read the answers to the challenges.
const SHARED_AFTER: Duration = Duration::from_secs(2);
/// The maximum time for the validation of the domains, and for the issuance.
const PATIENCE: Duration = Duration::from_secs(300);
/// The maximum time of a whole order.
const ORDER_MAX: Duration = Duration::from_secs(15 * 60);

/// The largest difference of the clocks for which the gateway waits until a certificate is valid, in seconds.
const CLOCK_DIFFERENCE: u64 = 120;

/// The facts of a successful order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// Whether an account was created.
    pub(crate) is_new_account: bool,
    /// The server's terms of service.
    pub(crate) terms: Option<String>,
}

/// Orders a certificate and keeps it in the folder. `replaced` is the certificate that it renews.
///
/// # Errors
/// Returns the reason why the certificate was not issued or not kept.
pub(crate) async fn order(
    settings: &Settings,
    files: &Files,
    acme: &Acme,
    replaced: Option<&Kept>,
) -> Result<Order, Failure> {
    let transport = Transport::new(settings)?;
    let carrying_out = without_panic(carry_out(settings, files, acme, replaced, &transport));
    let carried_out = tokio::time::timeout(ORDER_MAX, carrying_out);
    let outcome = match carried_out.await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(Failure::of("timeout", "the order took more than 15 minutes")),
    };
    acme.challenges.clear();
    // If the file cannot be written, the other gateways answer challenges that nobody asks about any more.
    let _ = files.share(&[]);
    outcome.map_err(|failure| transport.explain(failure))
}

async fn carry_out(
    settings: &Settings,
    files: &Files,
    acme: &Acme,
    replaced: Option<&Kept>,
    transport: &Transport,
) -> Result<Order, Failure> {
    let mut opened = account::open(settings, files, transport).await?;
    let mut placed = place(settings, &opened.account, replaced).await;
    if placed.as_ref().is_err_and(|failure| failure.is("accountDoesNotExist")) && !opened.is_new {
        opened = account::create(settings, files, transport).await?;
        placed = place(settings, &opened.account, replaced).await;
    }
    let mut order = placed?;
    prove(settings, files, acme, &mut order).await?;
    let pem = issue(settings, &mut order).await?;
    let begins = tls::check_issued(&pem, &settings.domains).map_err(|why| Failure::of("certificate", why))?;
    // A certificate that begins at the time of its issuance is early for a clock that is late.
    let early = begins.saturating_sub(Now::read().unix);
    if early > CLOCK_DIFFERENCE {
        let why = format!("the issued certificate begins {early} s from now: check this machine's clock");
        return Err(Failure::of("certificate", why));
    }
    tokio::time::sleep(Duration::from_secs(early)).await;
    files.keep(settings, &pem)?;
    let Opened { is_new, .. } = opened;
    Ok(Order { is_new_account: is_new, terms: transport.terms() })
}

async fn place(
    settings: &Settings,
    account: &Account,
    replaced: Option<&Kept>,
) -> Result<instant_acme::Order, Failure> {
    let domains: Vec<_> = settings.domains.iter().map(|domain| Identifier::Dns(domain.to_string())).collect();
    let new = || {
        let order = NewOrder::new(&domains);
        match &settings.profile {
            Some(profile) => order.profile(profile),
            None => order,
        }
    };
    if let Some(id) = replaced.and_then(identifier) {
        match account.new_order(&new().replaces(id)).await {
            Ok(order) => return Ok(order),
            // The server may not know the certificate, it may have been replaced already (RFC 9773 section 5), or the
            // server names an extension that it ignores.
            Err(error) if is_about_replacement(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(account.new_order(&new()).await?)
}

/// Whether an order may succeed that names no certificate to replace.
fn is_about_replacement(error: &instant_acme::Error) -> bool {
    match error {
        instant_acme::Error::Unsupported(_) => true,
        instant_acme::Error::Api(problem) => {
            let failure = Failure::problem(problem, None);
            ["alreadyReplaced", "malformed", "unauthorized", "serverInternal"]
                .iter()
                .any(|kind| failure.is(kind))
        }
        // The library reports its own findings about an answer in this way, too.
        instant_acme::Error::Other(inner) => !inner.is::<outbound::Error>(),
        _ => false,
    }
}

/// Returns the identifier of a certificate for renewal information (RFC 9773 section 4.1).
fn identifier(kept: &Kept) -> Option<CertificateIdentifier<'_>> {
    let (authority, serial) = kept.id.as_ref()?;
    Some(CertificateIdentifier::new(Der::from_slice(authority), Der::from_slice(serial)))
}

/// Answers the challenges of all domains, and waits until the server has validated them.
async fn prove(
    settings: &Settings,
    files: &Files,
    acme: &Acme,
    order: &mut instant_acme::Order,
) -> Result<(), Failure> {
    if order.state().authorizations.len() > settings.domains.len() {
        return Err(Failure::of("protocol", "the order has more authorizations than domains"));
    }
    let answers = answers(settings, order).await?;
    if !answers.is_empty() {
        acme.challenges.publish(settings.challenge, &answers).map_err(|why| Failure::of("challenge", why))?;
        files.share(&answers)?;
        tokio::time::sleep(SHARED_AFTER).await;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let domain = authorization.identifier().to_string();
            if let Some(mut challenge) = authorization.challenge(kind(settings.challenge)) {
                challenge.set_ready().await.map_err(|error| match error {
                    // The server may have validated the challenge before it answers.
                    instant_acme::Error::Api(problem) => Failure::problem(&problem, Some(&domain)),
                    error => error.into(),
                })?;
            }
        }
    }
    let policy = RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(PATIENCE);
    match order.poll_ready(&policy).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(refusal(order, Failure::of("order", "the server made the order invalid")).await),
        Err(error @ instant_acme::Error::Api(_)) => Err(refusal(order, error.into()).await),
        Err(error) => Err(error.into()),
    }
}

/// Returns the answers for the domains that the server has not validated yet.
pub(super) async fn answers(
    settings: &Settings,
    order: &mut instant_acme::Order,
) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let domain = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => {
                return Err(Failure::of("order", format!("{domain}: the authorization is {status:?}")));
            }
        }
        if !settings.domains.iter().any(|known| **known == *domain) {
            return Err(Failure::of("protocol", "the order has an authorization for another domain"));
        }
        let Some(challenge) = authorization.challenge(kind(settings.challenge)) else {
            let why = format!("{domain}: the server offers no {} challenge", settings.challenge.as_str());
            return Err(Failure::of("challenge", why));
        };
        let authorization = challenge.key_authorization().as_str().to_owned();
        answers.push(Answer { domain, token: challenge.token.clone(), authorization });
    }
    Ok(answers)
}

const fn kind(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Http01 => ChallengeType::Http01,
    }
}

/// Returns the problem of the first challenge that failed. An order's own error does not say what the server saw.
async fn refusal(order: &mut instant_acme::Order, otherwise: Failure) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            break;
        }
        let domain = authorization.identifier().to_string();
        let failed =
            authorization.challenges.iter().find(|challenge| challenge.status == ChallengeStatus::Invalid);
        if let Some(problem) = failed.and_then(|challenge| challenge.error.as_ref()) {
            return Failure::problem(problem, Some(&domain));
        }
    }
    otherwise
}

/// Requests the certificate with a new key. Returns the chain and the key in PEM.
async fn issue(settings: &Settings, order: &mut instant_acme::Order) -> Result<Zeroizing<String>, Failure> {
    let made = |error: rcgen::Error| Failure::of("key", error.to_string());
    let key = KeyPair::generate().map_err(made)?;
    let domains: Vec<String> = settings.domains.iter().map(ToString::to_string).collect();
    let mut parameters = CertificateParams::new(domains).map_err(made)?;
    parameters.distinguished_name = DistinguishedName::new();
    let request = parameters.serialize_request(&key).map_err(made)?;
    order.finalize_csr(request.der()).await?;
    let policy = RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(PATIENCE);
    let chain = order.poll_certificate(&policy).await?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}\n{}", chain.trim_end(), *key)))
}

/// Asks the server for the time in which to renew a certificate, and for how long the answer counts in seconds. Returns
/// `None` if the server has no such information or there is no account.
///
/// # Errors
/// Returns the reason why the server cannot be asked.
pub(crate) async fn renewal_window(
    settings: &Settings,
    files: &Files,
    kept: &Kept,
) -> Result<Option<(Window, u64)>, Failure> {
    without_panic(ask_for_window(settings, files, kept)).await
}

async fn ask_for_window(
    settings: &Settings,
    files: &Files,
    kept: &Kept,
) -> Result<Option<(Window, u64)>, Failure> {
    let Some(id) = identifier(kept) else { return Ok(None) };
    let transport = Transport::new(settings)?;
    let Some(account) = account::kept(settings, files, &transport).await? else { return Ok(None) };
    match account.renewal_info(&id).await {
        Ok((info, delay)) => {
            let unix = |time: time::OffsetDateTime| u64::try_from(time.unix_timestamp()).unwrap_or(0);
            let window =
                Window { start: unix(info.suggested_window.start), end: unix(info.suggested_window.end) };
            Ok(Some((window, delay.as_secs())))
        }
        Err(instant_acme::Error::Unsupported(_)) => Ok(None),
        Err(error) => Err(transport.explain(error.into())),
    }
}

/// Returns a failure if the work panics. The library reads what the server sends, and a panic in it must end this attempt
/// and not all later ones.
async fn without_panic<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // The work is not polled after a panic.
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))).unwrap_or_else(|_| {
            let why = "the gateway cannot handle an answer of the server; the error output has the place";
            Poll::Ready(Err(Failure::of("internal", why)))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_of_this_attempt() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let late = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let answer: Result<u8, Failure> = Ok("256".parse().expect("a number of the server"));
            answer
        };
        let failure = runtime.block_on(without_panic(late)).unwrap_err();
        assert_eq!(failure.kind, "internal");
        let works = runtime.block_on(without_panic(async { Ok(7) }));
        assert_eq!(works, Ok(7));
    }
}
