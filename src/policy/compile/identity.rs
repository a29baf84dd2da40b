//! Compiles `[identity]`: the identity that upstreams receive, and its proofs.

use super::Faults;
use super::claims::{Claims, claim_path};
use crate::authenticate::{Algorithm, ClaimId, IdentityHeaders, fold_eq};
use crate::authority::{IssuerSettings, sign};
use crate::config::file::File;
use crate::forward::proof::TYPE;
use crate::forward::{Assertor, Proofs};
use http::HeaderName;
use std::sync::Arc;

/// Compiles the identity headers and the identity proofs.
pub(super) fn compile(
    file: &File,
    claims: &mut Claims,
    settings: Option<&IssuerSettings>,
    faults: &mut Faults<'_>,
) -> (IdentityHeaders, Proofs) {
    let table = &file.identity;
    let mut seen: Vec<HeaderName> = Vec::new();
    let mut name = |key: &str, text: &str, faults: &mut Faults<'_>| {
        if text.is_empty() {
            return None;
        }
        let Ok(name) = text.parse::<HeaderName>() else {
            faults.fault(
                "bad_header",
                key,
                format!("\"{text}\" is not a header name"),
                "for example \"X-Auth-Subject\"",
            );
            return None;
        };
        if is_reserved(&name) {
            faults.fault(
                "bad_header",
                key,
                format!("\"{text}\" already has another meaning"),
                "use a dedicated name, such as \"X-Auth-Subject\"",
            );
            return None;
        }
        // A CGI-like upstream reads `X-User` and `X_User` as the same name (RFC 3875 section 4.1.18).
        if let Some(other) = seen.iter().find(|other| fold_eq(other.as_str(), name.as_str())) {
            let found = format!("\"{text}\": an upstream may read it as \"{other}\"");
            faults.fault("same_header", key, found, "use a different name");
            return None;
        }
        seen.push(name.clone());
        Some(name)
    };
    let subject = name("identity.subject", &table.subject, faults);
    let roles = name("identity.roles", &table.roles, faults);
    let scopes = name("identity.scopes", &table.scopes, faults);
    let issuer = name("identity.issuer", &table.issuer, faults);
    let mut of_claims = Vec::new();
    for (header, path) in &table.claims {
        let key = format!("identity.claims.{header}");
        if let (Some(name), Some(path)) = (name(&key, header, faults), claim_path(&key, path, faults)) {
            of_claims.push((name, claims.id(path)));
        }
    }
    let assertion = name("identity.assertion", &table.assertion, faults);
    let signature = name("identity.signature", &table.signature, faults);
    let proven_claims = of_claims.iter().map(|(_, id)| *id).collect::<Vec<_>>();
    let mut headers = IdentityHeaders::new(subject, roles, scopes, issuer, of_claims);
    for name in [&assertion, &signature].into_iter().flatten() {
        headers = headers.reserving(name);
    }
    let assertion =
        assertion.and_then(|header| assertor(header, file, &proven_claims, claims, settings, faults));
    if table.assertion_binds && table.assertion.is_empty() {
        faults.warn(
            "unused",
            "identity.assertion_binds",
            "true, but there is no assertion to bind",
            "set assertion = \"X-Auth-Assertion\", or remove this",
        );
    }
    if signature.is_some() && file.upstream.values().all(|upstream| upstream.identity_secret.is_none()) {
        faults.fault(
            "no_key",
            "identity.signature",
            "no upstream has a key for the signature",
            "set identity_secret = \"env:NAME\" in [upstream.NAME]",
        );
    }
    (headers, Proofs { assertion, signature })
}

/// Compiles the assertion. Reports a fault and returns `None` if the authority cannot sign it.
fn assertor(
    header: HeaderName,
    file: &File,
    proven_claims: &[ClaimId],
    claims: &Claims,
    settings: Option<&IssuerSettings>,
    faults: &mut Faults<'_>,
) -> Option<Assertor> {
    let key = "identity.assertion";
    let Some(settings) = settings else {
        faults.fault("no_key", key, "there is no [authority] to sign the assertion", "add [authority]");
        return None;
    };
    let keyring = settings.keyring.clone();
    if keyring.algorithm().has_secret() {
        faults.fault(
            "no_key",
            key,
            "HMAC signatures cannot be verified without the authority's own secret",
            "set [authority] algorithm = \"ES256\" or \"EdDSA\"",
        );
        return None;
    }
    if keyring.algorithm() == Algorithm::RS256 {
        faults.warn(
            "slow_signature",
            key,
            "each RS256 signature takes about a millisecond of CPU time",
            "set [authority] algorithm = \"ES256\" or \"EdDSA\"",
        );
    }
    Some(Assertor {
        header,
        issuer: settings.issuer.as_str().into(),
        claims: proven_claims.iter().map(|id| (claims.name(*id).into(), *id)).collect(),
        binds: file.identity.assertion_binds,
        sign: Arc::new(move |claims, now| sign(&keyring, TYPE, claims, now).ok()),
    })
}

/// Whether HTTP or the gateway uses this header. An identity in such a header would be overwritten or break the
/// message.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    const OTHERS: [&str; 15] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "expect",
        "authorization",
        "cookie",
        "forwarded",
        "traceparent",
        "x-auth-csrf",
    ];
    OTHERS.contains(&name) || name.starts_with("x-forwarded-") || name == "x-request-id"
}
