//! Follows an order with given answers and without a network, for the fuzzer.

use super::transport::Transport;
use super::{Challenge, Challenges, Failure, Settings, order};
use crate::outbound::{Answer, Error, Networks, Url};
use bytes::Bytes;
use http::Request;
use instant_acme::{
    Account, BodyWrapper, BytesResponse, CertificateIdentifier, HttpClient, Identifier, NewAccount, NewOrder,
    RetryPolicy,
};
use rustls::RootCertStore;
use rustls::pki_types::Der;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Sends no request. Each request gets the next answer.
#[derive(Clone)]
struct Script {
    transport: Transport,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl HttpClient for Script {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let answer = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let answer = Url::parse(&request.uri().to_string()).map_err(Error::Protocol).and_then(|url| {
            let answer = answer.ok_or_else(|| Error::Protocol("no more answers".to_owned()))?;
            self.transport.admit(&url, answer)
        });
        Box::pin(async move { answer.map_err(|error| instant_acme::Error::Other(Box::new(error))) })
    }
}

/// Follows one order for `a.test` at the directory `https://ca.test/dir`. An order that is not ready within `patience` fails.
/// Returns the reasons of the failures, as operators see them.
#[doc(hidden)]
pub fn rehearse(answers: Vec<Answer>, patience: Duration) -> Vec<String> {
    let settings = Settings {
        domains: ["a.test".into()].into(),
        email: None,
        directory: Url::parse("https://ca.test/dir").expect("a URL"),
        roots: Arc::new(RootCertStore::empty()),
        authorities: [0; 32],
        networks: Networks::new([]),
        challenge: Challenge::Http01,
        agrees_to_terms: true,
        external_account: None,
        profile: None,
        state: PathBuf::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let (Ok(runtime), Ok(transport)) = (runtime, Transport::new(&settings)) else { return Vec::new() };
    let script = Script { transport, answers: Arc::new(Mutex::new(answers.into())) };
    let mut failures = Vec::new();
    runtime.block_on(async {
        let account = match begin(&settings, &script).await {
            Ok(account) => account,
            Err(failure) => return failures.push(failure),
        };
        failures.extend(follow(&settings, &account, patience).await.err());
        let id = CertificateIdentifier::new(Der::from_slice(b"authority"), Der::from_slice(b"serial"));
        failures.extend(account.renewal_info(&id).await.err().map(Failure::from));
    });
    failures.into_iter().map(|failure| script.transport.explain(failure).to_string()).collect()
}

async fn begin(settings: &Settings, script: &Script) -> Result<Account, Failure> {
    let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_http(Box::new(script.clone()));
    let (account, _credentials) = builder.create(&new, settings.directory.to_string(), None).await?;
    Ok(account)
}

async fn follow(settings: &Settings, account: &Account, patience: Duration) -> Result<(), Failure> {
    let policy = RetryPolicy::new().initial_delay(Duration::ZERO).timeout(patience);
    let domains: Vec<_> = settings.domains.iter().map(|domain| Identifier::Dns(domain.to_string())).collect();
    let mut order = account.new_order(&NewOrder::new(&domains)).await?;
    let answers = order::answers(settings, &mut order).await?;
    let published = Challenges::default().publish(settings.challenge, &answers);
    published.map_err(|why| Failure::of("challenge", why))?;
    order.poll_ready(&policy).await?;
    order.finalize_csr(b"request").await?;
    let chain = order.poll_certificate(&policy).await?;
    crate::tls::check_issued(&chain, &settings.domains).map_err(|why| Failure::of("certificate", why))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};

    fn answer(status: u16, wait: Option<u64>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("replay-nonce", "nonce"),
            ("location", "https://ca.test/thing"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.extend(wait.map(|wait| (http::header::RETRY_AFTER, wait.into())));
        let body = Bytes::copy_from_slice(body.as_bytes());
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body }
    }

    /// Returns the answers to an order, of which one is replaced.
    fn answers(replaced: Option<(usize, Answer)>) -> Vec<Answer> {
        let directory = r#"{"newNonce":"https://ca.test/n","newAccount":"https://ca.test/a",
            "newOrder":"https://ca.test/o","renewalInfo":"https://ca.test/r"}"#;
        let order = r#"{"status":"ready","identifiers":[{"type":"dns","value":"a.test"}],
            "authorizations":["https://ca.test/z"],"finalize":"https://ca.test/f"}"#;
        let issued = order.replace("\"ready\"", "\"valid\",\"certificate\":\"https://ca.test/c\"");
        let authorization = r#"{"status":"pending","identifier":{"type":"dns","value":"a.test"},"challenges":
            [{"type":"http-01","url":"https://ca.test/h","token":"t","status":"pending"}]}"#;
        let window = r#"{"suggestedWindow":{"start":"2027-01-01T00:00:00Z","end":"2027-01-02T00:00:00Z"}}"#;
        let mut answers = vec![
            answer(200, None, directory),
            answer(200, None, ""),
            answer(201, None, r#"{"status":"valid"}"#),
            answer(200, None, ""),
            answer(201, None, order),
            answer(200, None, authorization),
            answer(200, None, order),
            answer(200, None, &issued),
            answer(200, None, &issued),
            answer(200, None, "no certificate"),
            answer(200, Some(3600), window),
        ];
        if let Some((at, answer)) = replaced {
            answers[at] = answer;
        }
        answers
    }

    const TEN_YEARS: u64 = 315_360_000;

    /// Longer than any pause of a busy machine.
    fn rehearse(answers: Vec<Answer>) -> Vec<String> {
        super::rehearse(answers, Duration::from_secs(60))
    }

    #[test]
    fn an_order_is_followed_to_its_certificate_and_its_renewal() {
        assert_eq!(rehearse(answers(None)), ["certificate: the issued chain is empty"]);
        let token = answers(None)[5].body.to_vec();
        let token = String::from_utf8(token).unwrap().replace("\"t\"", "\"../t\"");
        let failures = rehearse(answers(Some((5, answer(200, None, &token)))));
        assert!(failures[0].starts_with("challenge: the server's token"), "{failures:?}");
        // Each answer of an order may demand a long wait.
        for at in 3..11 {
            let refusal =
                answer(403, Some(TEN_YEARS), r#"{"type":"urn:ietf:params:acme:error:unauthorized"}"#);
            assert!(!rehearse(answers(Some((at, refusal)))).is_empty(), "{at}");
            let mut waits = answers(None)[at].clone();
            waits.headers.insert("retry-after", TEN_YEARS.into());
            assert!(rehearse(answers(Some((at, waits)))).len() <= 2, "{at}");
        }
    }
}
