//! Answers queries at the admin listener about the current policy: explanations of requests, and recent decisions.
//!
//! A token in a query is verified but not stored. `guard` restricts the senders.

use crate::authority::BodyKind;
use crate::clock::Now;
use crate::decision_log;
use crate::explain::explain;
use crate::policy::{Policy, Question};
use crate::worker::Shared;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Maximum size of a question, in bytes. A request whose head has the maximum size fits.
const QUESTION_MAX: usize = 64 * 1024;
/// Maximum time to receive a question.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const JSON: &str = "application/json";
/// The media type of decisions: one JSON object per line.
pub(super) const JSON_LINES: &str = "application/x-ndjson";

/// A rejected query: the status of the response, and a line with the reason.
pub(super) type QueryError = (StatusCode, String);

/// A question as JSON. The type does not implement `Debug`, because a question may contain a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainRequest {
    /// The method and URL, such as `GET https://api.example.com/orders/7`.
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    claims: Option<Map<String, Value>>,
    token: Option<String>,
    client: Option<IpAddr>,
    /// The time of the request, in seconds since 1970.
    time: Option<u64>,
}

impl ExplainRequest {
    fn question(self) -> Result<Question, String> {
        let mut question = Question::parse(&self.request)?;
        for (name, value) in &self.headers {
            question = question.header(name, value)?;
        }
        question = match (self.claims, self.token) {
            (Some(_), Some(_)) => return Err("give either claims or a token, not both".to_owned()),
            (Some(claims), None) => question.claims(claims),
            (None, Some(token)) => question.token(token),
            (None, None) => question,
        };
        if let Some(client) = self.client {
            question = question.client(client);
        }
        if let Some(time) = self.time {
            question = question.at(Now::at(time));
        }
        Ok(question)
    }
}

/// Parses the question in the body of `POST /explain`.
///
/// # Errors
/// Returns an error if the body is not JSON or not a valid question. The reason is sent only to the client.
pub(super) async fn question(headers: &HeaderMap, body: Incoming) -> Result<Question, QueryError> {
    // Only JSON is accepted, because a web page can send a form or plain text to another site without a CORS preflight.
    if BodyKind::of(headers) != Some(BodyKind::Json) {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the request must be application/json\n".to_owned(),
        ));
    }
    let body = read_body(body).await?;
    let bad = |why: String| (StatusCode::BAD_REQUEST, format!("{why}\n"));
    let request: ExplainRequest = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    request.question().map_err(bad)
}

/// Returns the explanation as JSON.
///
/// # Errors
/// Returns an error if the explanation cannot be serialized.
pub(super) fn explanation(policy: &Policy, question: &Question) -> Result<String, QueryError> {
    serde_json::to_string(&explain(policy, question))
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

/// Returns the recent decisions, one per line.
///
/// # Errors
/// Returns 404 if decisions are not kept.
pub(super) fn decisions(shared: &Shared) -> Result<Vec<u8>, QueryError> {
    if shared.recent.is_empty() || !shared.policy.load().front.keeps_decisions {
        return Err((StatusCode::NOT_FOUND, "no decisions are kept: [policy] decisions = 0\n".to_owned()));
    }
    Ok(decision_log::lines(&shared.recent))
}

async fn read_body(body: Incoming) -> Result<Bytes, QueryError> {
    let body = Limited::new(body, QUESTION_MAX).collect();
    match tokio::time::timeout(TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("more than {QUESTION_MAX} bytes\n")))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body ended early\n".to_owned())),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_request_from_one_caller() {
        let question = |json: &str| {
            let request = serde_json::from_str::<ExplainRequest>(json).map_err(|error| error.to_string());
            request.and_then(ExplainRequest::question)
        };
        let request = r#"{"request":"POST https://h/x","headers":{"Accept":"text/html"},"client":"203.0.113.7","time":7}"#;
        let asked = question(request).unwrap();
        assert_eq!(
            (asked.parts.method.as_str(), asked.parts.headers["accept"].as_bytes()),
            ("POST", &b"text/html"[..])
        );
        assert_eq!((asked.client, asked.now.unix), (IpAddr::from([203, 0, 113, 7]), 7));
        for wrong in [
            "{}",
            r#"{"request":"GET /x"}"#,
            r#"{"request":"GET https://h/","claims":{},"token":"t"}"#,
            r#"{"request":"GET https://h/","tokne":"t"}"#,
            r#"{"request":"GET https://h/","headers":{"a b":"c"}}"#,
        ] {
            assert!(question(wrong).is_err(), "{wrong}");
        }
    }
}
