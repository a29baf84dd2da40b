use super::*;
use crate::authenticate::{Algorithm, IdentityHeaders, Issuer, KeySet, Principal, Trust, verify};
use crate::clock::Now;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

const SECRET: &[u8; 32] = b"k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc";
const NOW: u64 = 1_000_000;

fn path(text: &str) -> ClaimPath {
    ClaimPath::parse(text).unwrap()
}

fn issuer(name: &str, profile: Profile) -> Issuer {
    // The secret is added as a key of a set, because only a key of a set can state the issuer that it signs for.
    let jwk = json!({ "keys": [{ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) }] });
    Issuer {
        name: Arc::from(name),
        audience: Box::new(["orders".into()]),
        audience_of_clients: Box::new([]),
        algorithms: vec![Algorithm::HS256],
        keys: KeySet::from_jwks(jwk.to_string().as_bytes(), &[Algorithm::HS256]).unwrap().0,
        source: None,
        introspector: None,
        leeway: 0,
        local: false,
        roles: path("roles"),
        scopes: path("scope"),
        types: Box::new(["JWT".into()]),
        profile,
    }
}

fn claims(changes: Value) -> Value {
    let mut claims =
        json!({ "iss": "https://a", "aud": "orders", "sub": "ada", "iat": NOW, "exp": NOW + 60 });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// Returns the principal of the default token with these changes; `null` removes a claim.
fn outcome(issuers: &[Issuer], changes: Value) -> Result<Principal, Denial> {
    let trust = Trust::new(issuers.to_vec(), Vec::new(), IdentityHeaders::default());
    let key = EncodingKey::from_secret(SECRET);
    let token = jsonwebtoken::encode(&Header::default(), &claims(changes), &key).unwrap();
    verify(&token, &trust, Now::at(NOW)).map_err(|refused| refused.denial)
}

fn verdict(profile: &Profile, changes: Value) -> Result<(), Denial> {
    outcome(&[issuer("https://a", profile.clone())], changes).map(drop)
}

const CONFIGURED: Result<(), Denial> = Err(Denial::MissingClaim(RequiredClaim::Configured));

#[test]
fn the_usual_profile_needs_iss_aud_and_sub() {
    let usual = Profile::default();
    assert_eq!(verdict(&usual, json!({})), Ok(()));
    for (claim, denial) in
        [("iss", RequiredClaim::Issuer), ("aud", RequiredClaim::Audience), ("sub", RequiredClaim::Subject)]
    {
        assert_eq!(verdict(&usual, json!({ claim: null })), Err(Denial::MissingClaim(denial)), "{claim}");
    }
}

#[test]
fn the_subject_is_where_the_issuer_has_it() {
    let profile = Profile { subject: path("user.id"), ..Profile::default() };
    let subject = |changes: Value| {
        outcome(&[issuer("https://a", profile.clone())], changes).map(|principal| principal.subject)
    };
    let missing = |claim| Err(Denial::MissingClaim(claim));
    assert_eq!(subject(json!({ "user": { "id": "7" }, "sub": null })), Ok("7".into()));
    assert_eq!(subject(json!({ "user": { "id": 7 } })), Ok("7".into()));
    assert_eq!(subject(json!({})), missing(RequiredClaim::Subject), "sub does not stand in");
    assert_eq!(subject(json!({ "user": { "id": "" } })), missing(RequiredClaim::Subject));
    for bad in [json!(7.5), json!(true), json!(["7"]), json!({}), json!(null)] {
        assert_eq!(subject(json!({ "user": { "id": bad } })), missing(RequiredClaim::SubjectText), "{bad}");
    }
    assert_eq!(
        verdict(&Profile::default(), json!({ "sub": 7 })),
        Err(Denial::MissingClaim(RequiredClaim::SubjectText))
    );
}

#[test]
fn the_audience_is_where_the_issuer_has_it_and_aud_never_contradicts_it() {
    let profile = Profile { audience: path("client_id"), ..Profile::default() };
    assert_eq!(verdict(&profile, json!({ "aud": null, "client_id": "orders" })), Ok(()));
    assert_eq!(verdict(&profile, json!({ "client_id": "orders" })), Ok(()));
    assert_eq!(verdict(&profile, json!({ "aud": "x", "client_id": "orders" })), Err(Denial::WrongAudience));
    assert_eq!(verdict(&profile, json!({ "aud": null, "client_id": "x" })), Err(Denial::WrongAudience));
    assert_eq!(verdict(&profile, json!({})), Err(Denial::MissingClaim(RequiredClaim::Audience)));
    let lax = Profile { may_lack_audience: true, ..Profile::default() };
    assert_eq!(verdict(&lax, json!({ "aud": null })), Ok(()));
    assert_eq!(verdict(&lax, json!({ "aud": "x" })), Err(Denial::WrongAudience), "for another service");
    assert_eq!(verdict(&lax, json!({ "aud": [] })), Err(Denial::MissingClaim(RequiredClaim::Audience)));
}

#[test]
fn a_token_that_lives_too_long_is_refused_however_young_it_is() {
    let profile = Profile { max_lifetime: Some(60), ..Profile::default() };
    assert_eq!(verdict(&profile, json!({})), Ok(()));
    assert_eq!(verdict(&profile, json!({ "exp": NOW + 61 })), Err(Denial::LifetimeTooLong));
    assert_eq!(verdict(&profile, json!({ "iat": NOW - 1 })), Err(Denial::LifetimeTooLong));
    assert_eq!(verdict(&profile, json!({ "iat": null })), Err(Denial::MissingClaim(RequiredClaim::Issued)));
    assert_eq!(verdict(&Profile::default(), json!({ "iat": null })), Ok(()));
}

#[test]
fn the_claims_that_an_issuer_must_write_are_there_and_have_their_values() {
    let text = |text: &str| ClaimValue::Text(text.into());
    let profile = Profile {
        required: Box::new([path("sid")]),
        claims: Box::new([
            (path("token_use"), Box::new([text("access")])),
            (path("org.name"), Box::new([text("acme"), text("umbrella")])),
        ]),
        ..Profile::default()
    };
    let verdict = |changes: Value| {
        let mut all = json!({ "sid": "1", "token_use": "access", "org": { "name": "acme" } });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        verdict(&profile, all)
    };
    assert_eq!(verdict(json!({})), Ok(()));
    assert_eq!(verdict(json!({ "org": { "name": ["x", "umbrella"] } })), Ok(()));
    for bad in [
        json!({ "sid": null }),
        json!({ "token_use": null }),
        json!({ "token_use": "Access" }),
        json!({ "token_use": ["id"] }),
        json!({ "org": { "name": "acme2" } }),
        json!({ "org": "acme" }),
    ] {
        assert_eq!(verdict(bad.clone()), CONFIGURED, "{bad}");
    }
}

#[test]
fn an_issuer_with_tenants_signs_under_the_names_of_those_alone() {
    let names = ["https://a/t1/v2", "https://a/t2/v2"].map(Arc::from);
    let listed = Profile { tenants: Tenants::Listed(Box::new(names)), ..Profile::default() };
    let any = Profile { tenants: Tenants::Any("https://a/".into(), "/v2".into()), ..Profile::default() };
    let of = |profile: &Profile, iss: &str| {
        let issuers = [issuer("https://a/{tenant}/v2", profile.clone())];
        outcome(&issuers, json!({ "iss": iss })).map(|principal| principal.issuer.to_string())
    };
    for iss in ["https://a/t1/v2", "https://a/t2/v2"] {
        assert_eq!(of(&listed, iss), Ok(iss.to_owned()), "the token's own issuer is the principal's");
        assert_eq!(of(&any, iss), Ok(iss.to_owned()));
    }
    assert_eq!(of(&any, "https://a/t3/v2"), Ok("https://a/t3/v2".to_owned()));
    assert_eq!(of(&listed, "https://a/t3/v2"), Err(Denial::UnknownIssuer));
    for iss in [
        "https://a/{tenant}/v2",
        "https://a//v2",
        "https://a/v2",
        "https://a/t1/x/v2",
        "https://a/../v2",
        "https://a/t1/v2/",
        "https://a/t1",
        "https://b/t1/v2",
        "https://a/t1%2f/v2",
    ] {
        assert_eq!(of(&listed, iss), Err(Denial::UnknownIssuer), "{iss}");
        assert_eq!(of(&any, iss), Err(Denial::UnknownIssuer), "{iss}");
    }
    let tid = |tid: &str| {
        let issuers = [issuer("https://a/{tenant}/v2", any.clone())];
        outcome(&issuers, json!({ "iss": "https://a/t1/v2", "tid": tid })).map(drop)
    };
    assert_eq!(tid("t1"), Ok(()));
    assert_eq!(tid("t2"), Err(Denial::UnknownIssuer), "iss and tid name two tenants");
}

#[test]
fn a_key_of_one_tenant_signs_for_no_other() {
    // The `issuer` of most keys in Entra's `common` set is a template; the `issuer` of some keys names one tenant.
    let any = Tenants::Any("https://a/".into(), "/v2".into());
    for (of, iss, admitted) in [
        (None, "https://a/t1/v2", true),
        (Some("https://a/{tenantid}/v2"), "https://a/t1/v2", true),
        (Some("https://a/t1/v2"), "https://a/t1/v2", true),
        (Some("https://a/t2/v2"), "https://a/t1/v2", false),
        (Some("https://b/{tenantid}/v2"), "https://a/t1/v2", false),
    ] {
        assert_eq!(any.admits_key(of, iss), admitted, "{of:?}");
    }
    let jwk = json!({ "keys": [
        { "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "issuer": "https://a/t2/v2" },
    ] });
    let mut issuer = issuer("https://a/{tenant}/v2", Profile { tenants: any, ..Profile::default() });
    issuer.keys = KeySet::from_jwks(jwk.to_string().as_bytes(), &[Algorithm::HS256]).unwrap().0;
    let of = |iss: &str| outcome(std::slice::from_ref(&issuer), json!({ "iss": iss })).map(drop);
    assert_eq!(of("https://a/t2/v2"), Ok(()));
    assert_eq!(of("https://a/t1/v2"), Err(Denial::UnknownKey));
}

#[test]
fn a_token_without_iss_is_that_of_its_trust_domain() {
    let of = |domain: &str| Profile { trust_domain: Some(domain.into()), ..Profile::default() };
    let issuers = [issuer("spiffe://a.test", of("a.test")), issuer("spiffe://b.test", of("b.test"))];
    let issuer_of = |changes: Value| outcome(&issuers, changes).map(|principal| principal.issuer.to_string());
    let svid = |sub: &str| json!({ "iss": null, "sub": sub });
    assert_eq!(issuer_of(svid("spiffe://a.test/web")), Ok("spiffe://a.test".to_owned()));
    assert_eq!(issuer_of(svid("spiffe://b.test/web")), Ok("spiffe://b.test".to_owned()));
    for sub in [
        "spiffe://c.test/web",
        "spiffe://a.test",
        "spiffe://a.test/",
        "spiffe://a.test.evil/web",
        "spiffe://A.test/web",
        "a.test/web",
        "web",
    ] {
        assert_eq!(issuer_of(svid(sub)), Err(Denial::MissingClaim(RequiredClaim::Issuer)), "{sub}");
    }
    // Even in a token with `iss`, the `sub` must be in the issuer's own trust domain.
    let named = |sub: &str| json!({ "iss": "spiffe://a.test", "sub": sub });
    assert_eq!(issuer_of(named("spiffe://a.test/web")), Ok("spiffe://a.test".to_owned()));
    assert_eq!(issuer_of(named("spiffe://b.test/web")), Err(Denial::UnknownIssuer));
    assert_eq!(issuer_of(named("web")), Err(Denial::UnknownIssuer));
}

#[test]
fn a_token_without_iss_is_that_of_the_issuer_that_omits_it() {
    let lax = Profile { may_lack_issuer: true, ..Profile::default() };
    let issuers = [issuer("https://b", Profile::default()), issuer("https://a", lax)];
    let issuer_of = |changes: Value| outcome(&issuers, changes).map(|principal| principal.issuer.to_string());
    assert_eq!(issuer_of(json!({ "iss": null })), Ok("https://a".to_owned()));
    assert_eq!(issuer_of(json!({ "iss": "https://a" })), Ok("https://a".to_owned()));
    assert_eq!(issuer_of(json!({ "iss": "" })), Err(Denial::UnknownIssuer));
    assert_eq!(issuer_of(json!({ "iss": [] })), Err(Denial::MissingClaim(RequiredClaim::Issuer)));
}

#[test]
fn roles_may_be_the_names_of_an_object_and_each_has_a_grant() {
    let roles = |are_keys: bool, roles: Value| {
        let profile = Profile { roles_are_keys: are_keys, ..Profile::default() };
        let principal = outcome(&[issuer("https://a", profile)], json!({ "roles": roles })).unwrap();
        principal.roles.join(",")
    };
    let zitadel = json!({ "admin": { "1": "acme.test" }, "clerk": { "1": "acme.test" } });
    assert_eq!(roles(true, zitadel.clone()), "admin,clerk");
    assert_eq!(roles(false, zitadel), "");
    assert_eq!(roles(true, json!({ "a": {}, "b": false, "c": null, "d": "x", "e": true, "": true })), "e");
    assert_eq!(roles(true, json!(["a"])), "a");
}

proptest! {
    #[test]
    fn any_tenant_is_one_segment_of_the_name(iss in "(https://a/)?[a-z/.%-]{0,12}(/v2)?") {
        let any = Tenants::Any("https://a/".into(), "/v2".into());
        if any.name_in(&Arc::from("https://a/{tenant}/v2"), &iss).is_some() {
            let segments: Vec<&str> = iss.split('/').collect();
            prop_assert_eq!(segments.len(), 5, "{}", iss);
            prop_assert!(is_tenant(segments[3]) && segments[4] == "v2");
        }
    }

    #[test]
    fn no_subject_outside_the_trust_domain_is_in_it(sub in "(spiffe://)?[a.:/@-]{0,12}") {
        let profile = Profile { trust_domain: Some("a.a".into()), ..Profile::default() };
        let is_in = profile.is_domain_of(Some(&json!(sub)));
        prop_assert_eq!(is_in, sub.starts_with("spiffe://a.a/") && sub.len() > "spiffe://a.a/".len());
    }
}
