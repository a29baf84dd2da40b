//! Finds an issuer's key set by its metadata: OpenID Connect Discovery 1.0 and RFC 8414.

use crate::outbound::{Url, quoted};
use serde_json::{Map, Value};

/// The tenant in the name of an issuer that has a name for each tenant.
const TENANT: &str = "{tenant}";
/// The same in the metadata of Entra ID that are those of no tenant.
const TENANT_OF_ENTRA: &str = "{tenantid}";
/// The name that represents every tenant in the URL of Entra ID's metadata.
const ALL_TENANTS: &str = "common";

/// Returns the URLs of an issuer's metadata, in the order in which they are tried: first the URL of OpenID Connect,
/// which most issuers serve, then the URL of RFC 8414 section 3. The two differ in the position of the issuer's path.
///
/// The metadata of an issuer with tenants are those that Entra ID has for all tenants.
///
/// # Errors
/// Returns an error if the issuer is not a URL, or has a query (RFC 8414 section 2).
pub fn metadata_urls(issuer: &str) -> Result<Vec<Url>, String> {
    let parsed = Url::parse(&issuer.replacen(TENANT, ALL_TENANTS, 1))?;
    if parsed.has_query() {
        return Err("has a query".to_owned());
    }
    let (origin, path) = (parsed.origin(), parsed.path().trim_end_matches('/'));
    [
        format!("{origin}{path}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ]
    .iter()
    .map(|url| Url::parse(url))
    .collect()
}

/// Returns the URL in a member of an issuer's metadata, such as `jwks_uri`.
///
/// # Errors
/// Returns an error unless the metadata name exactly this issuer (RFC 8414 section 3.3, OpenID Connect Discovery
/// section 4.3). Otherwise one issuer could publish keys for another issuer. The metadata of all tenants have a
/// placeholder in place of the tenant, as the issuer has in the policy.
pub fn endpoint_of(metadata: &[u8], issuer: &str, name: &str) -> Result<Url, String> {
    let metadata: Map<String, Value> = serde_json::from_slice(metadata)
        .map_err(|error| format!("the metadata are not a JSON object: {error}"))?;
    match metadata.get("issuer") {
        Some(Value::String(named)) if is_named(issuer, named) => {}
        Some(Value::String(named)) => {
            return Err(format!(
                "the metadata are of the issuer {}, not of {issuer:?}",
                quoted(named.as_bytes())
            ));
        }
        Some(_) | None => return Err("the metadata have no issuer".to_owned()),
    }
    match metadata.get(name) {
        Some(Value::String(text)) => {
            Url::parse(text).map_err(|why| format!("{name} {}: {why}", quoted(text.as_bytes())))
        }
        Some(_) | None => Err(format!("the metadata have no {name}")),
    }
}

/// Returns whether metadata of this name are those of an issuer.
fn is_named(issuer: &str, named: &str) -> bool {
    match issuer.split_once(TENANT) {
        None => named == issuer,
        Some((before, after)) => named
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|tenant| matches!(tenant, TENANT | TENANT_OF_ENTRA)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn both_forms_of_metadata_are_asked_for() {
        for (issuer, openid, oauth) in [
            (
                "https://id.example.com",
                "https://id.example.com/.well-known/openid-configuration",
                "https://id.example.com/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example.com/",
                "https://id.example.com/.well-known/openid-configuration",
                "https://id.example.com/.well-known/oauth-authorization-server",
            ),
            (
                "https://id.example.com:8443/realms/a",
                "https://id.example.com:8443/realms/a/.well-known/openid-configuration",
                "https://id.example.com:8443/.well-known/oauth-authorization-server/realms/a",
            ),
        ] {
            let urls: Vec<String> = metadata_urls(issuer).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(urls, [openid, oauth], "{issuer}");
        }
        let urls = metadata_urls("https://id.example.com/{tenant}/v2.0").unwrap();
        assert_eq!(
            urls[0].to_string(),
            "https://id.example.com/common/v2.0/.well-known/openid-configuration",
            "the metadata of all tenants"
        );
        for issuer in ["orders", "https://id.example.com/?a=b", "https://id.example.com/#a", "urn:example:id"]
        {
            assert!(metadata_urls(issuer).is_err(), "{issuer}");
        }
    }

    #[test]
    fn only_metadata_of_the_issuer_itself_name_its_keys() {
        const ISSUER: &str = "https://id.example.com";
        let read = |value: Value| endpoint_of(value.to_string().as_bytes(), ISSUER, "jwks_uri");
        let uri = "https://keys.example.com/jwks";
        assert_eq!(read(json!({ "issuer": ISSUER, "jwks_uri": uri })).unwrap().to_string(), uri);
        for wrong in [
            json!({ "issuer": "https://id.example.com/", "jwks_uri": uri }),
            json!({ "issuer": "https://ID.example.com", "jwks_uri": uri }),
            json!({ "issuer": [ISSUER], "jwks_uri": uri }),
            json!({ "jwks_uri": uri }),
            json!({ "issuer": ISSUER }),
            json!({ "issuer": ISSUER, "jwks_uri": "file:///etc/passwd" }),
            json!({ "issuer": ISSUER, "jwks_uri": [uri] }),
            json!([ISSUER, uri]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(endpoint_of(b"<html>", ISSUER, "jwks_uri").is_err());
    }

    #[test]
    fn only_metadata_of_all_tenants_name_the_keys_of_an_issuer_with_tenants() {
        const ISSUER: &str = "https://id.example.com/{tenant}/v2.0";
        for (named, is_accepted) in [
            ("https://id.example.com/{tenantid}/v2.0", true),
            (ISSUER, true),
            ("https://id.example.com/t1/v2.0", false),
            ("https://id.example.com/common/v2.0", false),
            ("https://id.example.com//v2.0", false),
            ("https://id.example.com/v2.0", false),
            ("https://id.example.com/{tenantid}/v2.0/", false),
            ("https://id.example.com/{tenantid}/{tenantid}/v2.0", false),
            ("https://evil.example.com/{tenantid}/v2.0", false),
        ] {
            let metadata = json!({ "issuer": named, "jwks_uri": "https://keys.example.com/" }).to_string();
            assert_eq!(endpoint_of(metadata.as_bytes(), ISSUER, "jwks_uri").is_ok(), is_accepted, "{named}");
        }
        // The placeholder of Entra ID stands for nothing in the name of an issuer without tenants.
        let metadata = json!({ "issuer": "https://a/{tenantid}", "jwks_uri": "https://a/keys" }).to_string();
        assert!(endpoint_of(metadata.as_bytes(), "https://a/t1", "jwks_uri").is_err());
    }

    proptest! {
        #[test]
        fn no_metadata_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), issuer in "\\PC{0,60}") {
            let _ = endpoint_of(&bytes, &issuer, "jwks_uri");
            let _ = metadata_urls(&issuer);
        }
    }
}
