//! Removes the trailers of an answer that must not reach the client.

use crate::authenticate::IdentityHeaders;
use crate::forward::delivery::Delivery;
use crate::forward::head::outgoing::ForwardContext;
use crate::forward::head::{reframe, strip};
use http::{HeaderMap, HeaderName};

/// The names that the trailers of an answer must not have.
pub(super) struct AnswerTrailers {
    identity: IdentityHeaders,
    /// The fields that the policy replaces or removes.
    edited: Vec<HeaderName>,
}

impl AnswerTrailers {
    /// Copies the names, because a body may outlive the policy.
    pub(super) fn new(context: &ForwardContext<'_>, delivery: &Delivery) -> Self {
        let edited = delivery.answer_fields.iter().flat_map(|fields| &fields.edits.removed);
        Self { identity: context.identity.clone(), edited: edited.cloned().collect() }
    }

    /// Removes the names of identity fields, and those whose meaning the client needs before the content.
    pub(super) fn clean(&self, trailers: &mut HeaderMap) {
        reframe::trailers(trailers);
        strip::remove_where(trailers, |name| self.identity.reserved(name) || self.edited.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn trailers_of_an_answer_state_no_identity() {
        let names = AnswerTrailers {
            identity: IdentityHeaders::default(),
            edited: vec![HeaderName::from_static("x-internal")],
        };
        let mut trailers = HeaderMap::new();
        for name in
            ["x-auth-subject", "x_auth.roles", "content-length", "set-cookie", "x-internal", "x-checksum"]
        {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        names.clean(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"]);
    }
}
