//! Removes the trailers that must not reach the other side: those of a request, and those of its answer.

use crate::authenticate::{IdentityHeaders, Source, fold_eq};
use crate::field_list::members;
use crate::forward::Delivery;
use crate::forward::outgoing::{ForwardContext, TRACEPARENT, X_REQUEST_ID};
use crate::forward::reframe;
use crate::forward::strip::{self, Filter};
use http::{HeaderMap, HeaderName, header};

/// The names that the trailers of one request and of its answer must not have.
pub(super) struct TrailerNames {
    identity: IdentityHeaders,
    /// The fields in which the route looks for credentials, those that `Connection` names, and those that the policy
    /// replaces or removes.
    of_request: Vec<HeaderName>,
    /// The fields of answers that the policy replaces or removes.
    of_answer: Vec<HeaderName>,
}

impl TrailerNames {
    /// Copies the names, because a body may outlive the policy. `headers` are those of the request.
    pub(super) fn new(context: &ForwardContext<'_>, headers: &HeaderMap, delivery: &Delivery) -> Self {
        let of_sources = context.sources.others.iter().filter_map(|source| match source {
            Source::Header(named) => Some(&named.name),
            Source::ApiKey(name) => Some(name),
            Source::Cookie(_) | Source::WebSocket(_) | Source::Query(_) | Source::Certificate => None,
        });
        let csrf = context.cookies.map(|cookies| &cookies.csrf_header);
        let edited = context.edits.iter().flat_map(|edits| &edits.removed);
        let mut of_request: Vec<_> = of_sources.chain(csrf).chain(edited).cloned().collect();
        of_request.extend(members(headers, &header::CONNECTION).filter_map(|name| name.try_into().ok()));
        let of_answer = delivery.answer_fields.iter().flat_map(|fields| &fields.edits.removed);
        Self { identity: context.identity.clone(), of_request, of_answer: of_answer.cloned().collect() }
    }

    /// Removes the names that the head may not have either, and those whose meaning the upstream needs before the
    /// content (RFC 9110 section 6.5.1).
    pub(super) fn clean_request(&self, trailers: &mut HeaderMap) {
        let filter = Filter { identity: &self.identity, pass: &[], authorization: false, proof: false };
        strip::request(trailers, &filter);
        reframe::trailers(trailers);
        strip::remove_where(trailers, |name| {
            self.of_request.iter().any(|removed| fold_eq(removed.as_str(), name.as_str()))
        });
        for name in [X_REQUEST_ID, TRACEPARENT, HeaderName::from_static("tracestate"), header::COOKIE] {
            trailers.remove(name);
        }
        for name in [
            header::HOST,
            header::ORIGIN,
            header::EXPECT,
            header::MAX_FORWARDS,
            header::RANGE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
            header::IF_RANGE,
        ] {
            trailers.remove(name);
        }
    }

    /// Removes the names of identity fields, and those whose meaning the client needs before the content.
    pub(super) fn clean_answer(&self, trailers: &mut HeaderMap) {
        reframe::trailers(trailers);
        strip::remove_where(trailers, |name| self.identity.reserved(name) || self.of_answer.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn trailers_state_no_identity_and_no_credential() {
        let names = TrailerNames {
            identity: IdentityHeaders::default(),
            of_request: vec![HeaderName::from_static("x-token")],
            of_answer: vec![HeaderName::from_static("x-internal")],
        };
        let mut trailers = HeaderMap::new();
        for name in [
            "x-auth-subject",
            "x_auth.roles",
            "x-auth-anything",
            "authorization",
            "dpop",
            "cookie",
            "x-token",
            "x_token",
            "x-forwarded-for",
            "forwarded",
            "connection",
            "transfer-encoding",
            "content-length",
            "host",
            "traceparent",
            "x-request-id",
            "x-checksum",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let mut answered = trailers.clone();
        names.clean_request(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"]);
        answered.insert("x-internal", HeaderValue::from_static("1"));
        names.clean_answer(&mut answered);
        assert!(!answered.contains_key("x-internal"));
        assert!(!answered.contains_key("x-auth-subject") && !answered.contains_key("x_auth.roles"));
        assert!(answered.contains_key("x-checksum"));
    }
}
