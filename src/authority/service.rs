//! The endpoints for services: client credentials (RFC 6749 section 4.4), introspection (RFC 7662) and revocation (RFC
//! 7009). The module also serves the public key set and the metadata.
//!
//! Refusals have the form of RFC 6749 section 5.2, which client libraries parse. The log and the metrics show the
//! denial's code.

use super::counters::{RevocationCause, ServiceOutcome};
use super::endpoint::Endpoint;
use super::grant::{hash_of, record_size, token_type};
use super::request::EndpointRequest;
use super::response::{Refused, json_response};
use super::runtime::{Authority, millis};
use super::session::{end_known, revoke_token};
use super::settings::{Client, ClientSecret, IssuerSettings};
use super::token::{AccessClaims, confirmation, mint};
use crate::authenticate::credential::REFRESH_TOKEN_PREFIX;
use crate::authenticate::dpop::algorithms;
use crate::authenticate::{MARK_MARGIN, digest_of, numeric_date, service_of};
use crate::denial::Denial;
use crate::journal::Level;
use crate::keyring::JWKS_MAX_AGE;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

/// The claims of a token that introspection returns (RFC 7662 section 2.2).
const INTROSPECTED: [&str; 14] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "scope",
    "client_id",
    "roles",
    "sid",
    "auth_time",
    "fresh",
    "cnf",
];

/// Issues an access token to a service.
pub(super) async fn token(
    authority: &Authority,
    request: &EndpointRequest,
) -> Result<Response<Bytes>, Denial> {
    let given = issue(authority, request).await;
    authority.counters.services.add(if given.is_ok() { ServiceOutcome::Ok } else { ServiceOutcome::Refused });
    given
}

async fn issue(authority: &Authority, request: &EndpointRequest) -> Result<Response<Bytes>, Denial> {
    let (id, client) = authenticate_client(request)?;
    match request.fields.required("grant_type")? {
        "client_credentials" => {}
        _ => return Err(Denial::UnsupportedGrantType),
    }
    let settings = &request.settings;
    let scopes: Vec<String> = match request.fields.optional("scope")? {
        None => client.scopes.clone(),
        Some(asked) => asked.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
    };
    if scopes.iter().any(|scope| !client.scopes.contains(scope)) {
        return Err(Denial::InvalidScope);
    }
    let key = authority.proven_key(request).await?;
    let scope = scopes.join(" ");
    authority.record_life(settings).await?;
    let claims = AccessClaims {
        issuer: settings.issuer.clone(),
        audience: if client.audience.is_empty() {
            settings.audience.clone()
        } else {
            client.audience.clone()
        },
        subject: id.to_owned(),
        roles: client.roles.clone(),
        scopes,
        expires_in: settings.access_expires,
        client: Some(id.to_owned()),
        key,
        compat: settings.compat,
        ..AccessClaims::default()
    };
    let token = mint(&settings.keyring, claims, request.now).map_err(|why| {
        authority.journal.event(Level::Error, "cannot create an access token", &[("error", &why)]);
        Denial::StoreUnavailable
    })?;
    record_size(&token, id, &authority.counters, &authority.journal);
    let mut body = Map::new();
    body.insert("access_token".into(), token.into());
    body.insert("token_type".into(), token_type(key).into());
    body.insert("expires_in".into(), settings.access_expires.as_secs().into());
    if !scope.is_empty() {
        body.insert("scope".into(), scope.into());
    }
    let mut answer = json_response(StatusCode::OK, &Value::Object(body));
    // HTTP/1.0 caches do not know `Cache-Control`. RFC 6749 section 5.1 requires both headers.
    answer.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    Ok(answer)
}

/// Returns the state of a token. An inactive token yields only `"active": false` (RFC 7662 section 2.2).
pub(super) async fn introspect(
    authority: &Authority,
    request: &EndpointRequest,
) -> Result<Response<Bytes>, Denial> {
    let (_, client) = authenticate_client(request)?;
    if !client.introspect {
        return Err(Denial::UnauthorizedClient);
    }
    let token = request.fields.required("token")?;
    let body = if token.starts_with(REFRESH_TOKEN_PREFIX) {
        refresh_token(authority, request, token).await?
    } else {
        request.inspected.as_ref().map(access_token)
    };
    Ok(json_response(StatusCode::OK, &body.unwrap_or_else(|| json!({ "active": false }))))
}

fn access_token(claims: &Map<String, Value>) -> Value {
    let mut body = Map::new();
    body.insert("active".into(), true.into());
    // The caller must not mistake a token that is bound to a key for a bearer token (RFC 9449 section 6.2). A token that is
    // bound to a certificate is a bearer token on the right connection (RFC 8705 section 3).
    let is_for_dpop = claims.get("cnf").is_some_and(|bound| bound.get("x5t#S256").is_none());
    body.insert("token_type".into(), if is_for_dpop { "DPoP" } else { "Bearer" }.into());
    for name in INTROSPECTED {
        if let Some(value) = claims.get(name) {
            body.insert(name.into(), value.clone());
        }
    }
    Value::Object(body)
}

async fn refresh_token(
    authority: &Authority,
    request: &EndpointRequest,
    token: &str,
) -> Result<Option<Value>, Denial> {
    let Ok(hash) = hash_of(token) else { return Ok(None) };
    let state = authority.store.token_state(&hash, millis(request.now)).await;
    let state = state.map_err(|error| authority.unavailable(&error))?;
    Ok(state.map(|(session, account, issued, expires)| {
        let mut body = json!({
            "active": true,
            "token_type": "refresh_token",
            "iss": request.settings.issuer,
            "sub": account.id,
            "username": account.name,
            "sid": session.id,
            "iat": issued / 1000,
            "exp": expires / 1000,
        });
        if let Some(key) = session.key {
            body["cnf"] = confirmation(key);
        }
        body
    }))
}

/// Revokes a token. Also returns a success for a token that the authority has not issued (RFC 7009 section 2.2).
pub(super) async fn revoke(
    authority: &Authority,
    request: &EndpointRequest,
) -> Result<Response<Bytes>, Denial> {
    let (id, _) = authenticate_client(request)?;
    let token = request.fields.required("token")?;
    if token.starts_with(REFRESH_TOKEN_PREFIX) {
        if let Ok(hash) = hash_of(token) {
            let session = authority.store.session_of_token(&hash).await;
            if let Some(session) = session.map_err(|error| authority.unavailable(&error))? {
                end_known(authority, request, None, &session.id, RevocationCause::Token).await?;
            }
        }
    } else if let Some(claims) = &request.inspected {
        // Only the service itself may revoke its token. Every service may revoke the token of an account.
        let owner = service_of(claims);
        if owner.is_some_and(|owner| owner != id) {
            return Err(Denial::UnauthorizedClient);
        }
        let expires = claims.get("exp").and_then(numeric_date).map_or(u64::MAX, |time| time.floor() as u64);
        // A gateway whose clock is behind accepts a token for longer than this one.
        let may_be_valid = request.now.unix < expires.saturating_add(MARK_MARGIN.as_secs());
        if let Some(token_id) = claims.get("jti").and_then(Value::as_str)
            && may_be_valid
            && !request.settings.revoked.has_token(token_id)
        {
            revoke_token(authority, request, token_id, expires, RevocationCause::Token).await?;
            authority.journal.event(Level::Info, "a token is revoked", &[("token", token_id), ("by", id)]);
        }
    }
    Ok(json_response(StatusCode::OK, &json!({})))
}

/// Returns a public document from memory: the key set or the metadata. A client with a current copy gets a 304 (RFC
/// 9110 section 13.1.2).
///
/// # Errors
/// [`Denial::NotFound`] if the endpoint has no document.
pub fn document(
    settings: &IssuerSettings,
    endpoint: Endpoint,
    headers: &HeaderMap,
) -> Result<Response<Bytes>, Denial> {
    let body = match endpoint {
        Endpoint::Jwks => Some(settings.keyring.jwks()),
        Endpoint::Metadata => settings.metadata.get_or_init(|| metadata(settings)).clone(),
        Endpoint::LoginPage
        | Endpoint::Login
        | Endpoint::Refresh
        | Endpoint::Logout
        | Endpoint::LogoutAll
        | Endpoint::Me
        | Endpoint::Sessions
        | Endpoint::EndSession
        | Endpoint::Token
        | Endpoint::Revoke
        | Endpoint::Introspect
        | Endpoint::Verify => None,
    };
    Ok(public(body.ok_or(Denial::NotFound)?, headers))
}

/// Builds the metadata document (RFC 8414 section 2). Returns `None` if the issuer is not a URL, because the endpoints'
/// URLs begin with the issuer's origin.
fn metadata(settings: &IssuerSettings) -> Option<Bytes> {
    let origin = origin_of(&settings.issuer)?;
    let at = |endpoint| format!("{origin}{}", settings.path(endpoint));
    let methods = ["client_secret_basic", "client_secret_post"];
    let body = json!({
        "issuer": settings.issuer,
        "jwks_uri": at(Endpoint::Jwks),
        "token_endpoint": at(Endpoint::Token),
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint": at(Endpoint::Introspect),
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": at(Endpoint::Revoke),
        "revocation_endpoint_auth_methods_supported": methods,
        "grant_types_supported": ["client_credentials"],
        "dpop_signing_alg_values_supported": algorithms().split(' ').collect::<Vec<_>>(),
        // The list is required and must not be empty (RFC 8414 sections 2 and 3.2). The authority has no authorization
        // endpoint. `none` is registered for a response without any token (OAuth 2.0 Multiple Response Type Encoding
        // Practices, section 4).
        "response_types_supported": ["none"],
    });
    Some(format!("{body}\n").into())
}

/// Returns the scheme and authority of an issuer that is a URL, or `None` for any other issuer.
pub(super) fn origin_of(issuer: &str) -> Option<&str> {
    let rest = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    (end > 0).then(|| &issuer[..issuer.len() - rest.len() + end])
}

fn public(body: Bytes, asked: &HeaderMap) -> Response<Bytes> {
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest_of(&body)[..16]));
    let is_known = is_known(asked, &tag);
    let mut response = Response::new(if is_known { Bytes::new() } else { body });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    if !is_known {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(header::ETAG, HeaderValue::try_from(tag).expect("base64url in quotes"));
    let age = HeaderValue::try_from(format!("public, max-age={JWKS_MAX_AGE}"));
    headers.insert(header::CACHE_CONTROL, age.expect("digits and letters"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether `If-None-Match` contains this tag, by weak comparison (RFC 9110 section 13.1.2).
fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let lists = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    let mut known = lists.flat_map(|list| list.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Whether a request has the credentials of a registered service.
pub fn is_client_known(request: &EndpointRequest) -> bool {
    authenticate_client(request).is_ok()
}

/// Authenticates the client by `Basic` or by fields of the body (RFC 6749 section 2.3.1). Rejects a request with both.
fn authenticate_client(request: &EndpointRequest) -> Result<(&str, &Client), Denial> {
    let mut fields = request.headers.get_all(header::AUTHORIZATION).iter();
    let basic = fields.next();
    if fields.next().is_some() {
        return Err(Denial::AmbiguousCredentials);
    }
    let (id, secret) = match (basic, request.fields.optional("client_secret")?) {
        (Some(_), Some(_)) => return Err(Denial::AmbiguousCredentials),
        (Some(basic), None) => basic_credential(basic.as_bytes()).ok_or(Denial::InvalidClient)?,
        (None, Some(secret)) => (request.fields.required("client_id")?.to_owned(), secret.to_owned()),
        (None, None) => return Err(Denial::InvalidClient),
    };
    if request.fields.optional("client_id")?.is_some_and(|named| named != id) {
        return Err(Denial::AmbiguousCredentials);
    }
    // Compare the secret even for an unknown client, so that the response takes the same time.
    let nobody = ClientSecret::of(b"");
    let known = request.settings.clients.get_key_value(&id);
    let right = known.map_or(&nobody, |(_, client)| &client.secret).is(secret.as_bytes());
    match known {
        Some((id, client)) if right => Ok((id, client)),
        Some(_) | None => Err(Denial::InvalidClient),
    }
}

/// Parses the id and the secret of a `Basic` credential. Both are form-encoded (RFC 6749 section 2.3.1).
fn basic_credential(field: &[u8]) -> Option<(String, String)> {
    let (scheme, rest) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |text: &str| super::fields::decoded(text.as_bytes()).map(|text| text.to_string());
    Some((plain(id)?, plain(secret)?))
}

/// Renders a refusal in the form of RFC 6749 section 5.2.
pub(super) fn refusal(denial: Denial) -> Response<Bytes> {
    let error = match &denial {
        Denial::InvalidClient => "invalid_client",
        Denial::InvalidScope => "invalid_scope",
        Denial::UnsupportedGrantType => "unsupported_grant_type",
        Denial::UnauthorizedClient => "unauthorized_client",
        // RFC 9449 sections 5 and 8.
        Denial::InvalidProof(_) | Denial::ReplayedProof => "invalid_dpop_proof",
        Denial::UseDpopNonce => "use_dpop_nonce",
        denial if matches!(denial, Denial::RateLimited { .. }) || denial.status().is_server_error() => {
            "temporarily_unavailable"
        }
        // The body is unreadable, or the request has credentials in two places.
        _ => "invalid_request",
    };
    let status = match &denial {
        // OAuth requires the form media type, and a 400 for any other type.
        Denial::UnsupportedMediaType => StatusCode::BAD_REQUEST,
        Denial::InvalidProof(_) | Denial::ReplayedProof | Denial::UseDpopNonce => StatusCode::BAD_REQUEST,
        denial => denial.status(),
    };
    let mut response =
        json_response(status, &json!({ "error": error, "error_description": denial.detail() }));
    if denial == Denial::InvalidClient {
        let challenge = HeaderValue::from_static("Basic realm=\"portcullis\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response.extensions_mut().insert(Refused(denial));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_credential_is_decoded_as_a_form_is() {
        let read = |text: &str| basic_credential(format!("Basic {}", STANDARD.encode(text)).as_bytes());
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(read("billing:s3cret"), pair("billing", "s3cret"));
        assert_eq!(read("a%3Ab:c+d%25"), pair("a:b", "c d%"));
        assert_eq!(read("billing:a:b"), pair("billing", "a:b"));
        for bad in ["billing", "a:%zz", "a:%ff"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for field in
            ["Basic", "Basic ", "Basic !!!", "Bearer YTpi", "Basic\tYTpi", "Basic  YTpi", "Basic YTpi "]
        {
            assert_eq!(basic_credential(field.as_bytes()), None, "{field:?}");
        }
    }

    #[test]
    fn an_issuers_origin_is_what_stands_before_its_path() {
        assert_eq!(origin_of("https://id.example.com"), Some("https://id.example.com"));
        assert_eq!(origin_of("https://id.example.com:8443/a/b"), Some("https://id.example.com:8443"));
        for other in ["portcullis", "https://", "ftp://x", "https:///x"] {
            assert_eq!(origin_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_document_is_known_by_its_own_tag_alone() {
        let known = |lists: &[&'static str]| {
            let mut asked = HeaderMap::new();
            for list in lists {
                asked.append(header::IF_NONE_MATCH, HeaderValue::from_static(list));
            }
            is_known(&asked, "\"abc\"")
        };
        for lists in [&["\"abc\""][..], &["W/\"abc\""], &["\"x\" , \"abc\""], &["\"x\"", "\"abc\""], &["*"]] {
            assert!(known(lists), "{lists:?}");
        }
        for lists in [&[][..], &[""], &["abc"], &["\"ab\""], &["\"abcd\""], &["w/\"abc\""], &["\"*\""]] {
            assert!(!known(lists), "{lists:?}");
        }
    }

    #[test]
    fn a_refusal_has_one_of_the_words_that_client_libraries_know() {
        for denial in Denial::every() {
            let response = refusal(denial.clone());
            let body: Value = serde_json::from_slice(response.body()).unwrap();
            let known = [
                "invalid_request",
                "invalid_client",
                "invalid_scope",
                "unauthorized_client",
                "invalid_dpop_proof",
                "use_dpop_nonce",
                "unsupported_grant_type",
                "temporarily_unavailable",
            ];
            assert!(known.contains(&body["error"].as_str().unwrap()), "{body}");
            assert_eq!(response.extensions().get::<Refused>().unwrap().0, denial);
        }
    }
}
