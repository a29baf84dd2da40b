//! Finds what a browser lets scripts of another origin do with a request and its answer (Fetch Standard, sections 4.8 and
//! 4.10).

use super::Examiner;
use crate::explain::explanation::{CrossOrigin, Verdict};
use crate::field_list::members;
use crate::pipeline::preflight::{self, share};
use crate::policy::{Handler, Question, Route};
use crate::respond::cors;
use crate::route::Head;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// The methods that a browser sends whatever a preflight allows.
const SAFELISTED: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

impl Examiner<'_> {
    /// Returns what scripts of the request's `Origin` may do. `None` if the request has no origin. `verdict` is that on the
    /// same question.
    pub fn cross_origin(&self, question: &Question, verdict: &Verdict) -> Option<CrossOrigin> {
        let head = self.policy.front.head(&question.parts).ok()?;
        self.scripts_of(&head, verdict.route, verdict.reaches())
    }

    /// Returns what scripts of the request's `Origin` may do, from the fields of the answer. `reaches` is false for a
    /// refusal.
    pub(super) fn scripts_of(
        &self,
        head: &Head<'_>,
        route: Option<usize>,
        reaches: bool,
    ) -> Option<CrossOrigin> {
        let policy = self.policy;
        let origin = cors::origin(head.headers)?;
        let route = route.map(|route| &policy.routes[route]);
        let answer = (*head.method == Method::OPTIONS).then(|| preflight::preflight(policy, head)).flatten();
        let (status, mut fields) = match (answer, route) {
            (Some((_, answer)), _) => (Some(answer.status()), answer.headers().clone()),
            (None, Some(route)) if reaches => (None, fields_of(route, head.method)),
            (None, _) => (None, HeaderMap::new()),
        };
        if policy.front.reads_origin {
            share(policy, route, false, !reaches, Some(origin), &mut fields);
        }
        let named = fields.get(ACCESS_CONTROL_ALLOW_ORIGIN);
        let is_of_upstream = || {
            let is_forwarded =
                |route: &Route| matches!(route.handler, Handler::Forward(_)) && route.cors.is_none();
            status.is_none() && reaches && route.is_some_and(is_forwarded)
        };
        let is_allowed = match named {
            None if is_of_upstream() => None,
            None => Some(false),
            Some(named) => {
                let is_named = named == "*" || named == origin;
                Some(is_named && status.is_none_or(|status| is_sent_after(head.headers, status, &fields)))
            }
        };
        let is_of_cors = |name: &str| name.starts_with("access-control-");
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let shown = fields.iter().filter(|(name, _)| is_of_cors(name.as_str()));
        Some(CrossOrigin {
            origin: text(origin),
            is_preflight: status.is_some(),
            is_allowed,
            fields: shown.map(|(name, value)| (name.to_string(), text(value))).collect(),
        })
    }
}

/// Returns the fields that the gateway itself adds to an answer of the route.
fn fields_of(route: &Route, method: &Method) -> HeaderMap {
    let mut fields = match &route.handler {
        Handler::Publish(resource) => resource.answer(method).headers().clone(),
        Handler::Forward(_)
        | Handler::Files(_)
        | Handler::Answer(_)
        | Handler::Redirect(_)
        | Handler::Receive(..) => HeaderMap::new(),
    };
    if let Some(changes) = route.answer_fields() {
        changes.apply(&mut fields);
    }
    fields
}

/// Returns whether a browser sends a request after this answer to its preflight, whose origin it has compared.
fn is_sent_after(asked: &HeaderMap, status: StatusCode, answer: &HeaderMap) -> bool {
    let is_header = |name: &[u8]| {
        members(answer, &ACCESS_CONTROL_ALLOW_HEADERS).any(|known| known.eq_ignore_ascii_case(name))
    };
    let is_method = asked.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| {
        SAFELISTED.iter().any(|known| known.as_str().as_bytes() == method.as_bytes())
            || members(answer, &ACCESS_CONTROL_ALLOW_METHODS).any(|known| known == method.as_bytes())
    });
    let is_private = asked.get("access-control-request-private-network").is_some_and(|asked| asked == "true");
    status.is_success()
        && is_method
        && members(asked, &ACCESS_CONTROL_REQUEST_HEADERS).filter(|name| !name.is_empty()).all(is_header)
        && (!is_private || answer.contains_key("access-control-allow-private-network"))
}
