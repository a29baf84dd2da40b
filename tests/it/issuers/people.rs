//! Issuers that people log in to.

use super::*;

pub(super) fn people() -> Vec<Shape> {
    let other_audience = || (json!({ "aud": "another-service" }), "wrong_audience");
    let entra_keys = |issuer: &str| {
        let more = json!({ "alg": null, "use": "sig", "issuer": issuer, "x5t": "k1", "x5c": ["AAAA"] });
        rsa()[0].jwk("k1", more)
    };
    let v2 = "https://login.microsoftonline.com/{tenantid}/v2.0";
    let entra = |iss: &str, aud: &str| {
        with_times(json!({
            "iss": iss, "aud": aud, "sub": "pairwise", "oid": "0f4c", "tid": TENANT,
            "scp": "orders.read orders.write", "roles": ["clerk"], "ver": "2.0", "nbf": now(),
        }))
    };
    let id = "11111111-2222-3333-4444-555555555555";
    vec![
        Shape {
            heading: "Keycloak",
            signer: Signer::Rsa,
            // Keycloak publishes an encryption key in the same key set.
            keys: json!({ "keys": [
                rsa()[1].jwk("k2", json!({ "use": "enc", "alg": "RSA-OAEP", "x5c": ["AAAA"] })),
                rsa()[0].jwk("k1", json!({ "use": "sig", "x5c": ["AAAA"], "x5t": "x" })),
            ] }),
            header: header("JWT"),
            claims: with_times(json!({
                "iss": "https://id.example.com/realms/REALM", "aud": ["orders", "account"], "sub": "f:1:ada",
                "typ": "Bearer", "azp": "web", "sid": "1", "acr": "1", "scope": "profile email",
                "realm_access": { "roles": ["clerk", "offline_access"] },
                "resource_access": { "account": { "roles": ["manage-account"] } },
            })),
            caller: [
                "f:1:ada",
                "https://id.example.com/realms/REALM",
                "clerk,offline_access",
                "profile,email",
            ],
            neighbours: vec![
                (json!({ "aud": "account" }), "wrong_audience"),
                (json!({ "typ": "ID" }), "wrong_type"),
                (json!({ "typ": "Refresh" }), "wrong_type"),
                (json!({ "iss": "https://id.example.com/realms/other" }), "unknown_issuer"),
            ],
        },
        Shape {
            heading: "Auth0",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: header("at+jwt"),
            claims: with_times(json!({
                "iss": "https://TENANT.eu.auth0.com/", "sub": "auth0|123", "azp": "CLIENT", "scope": "openid read:orders",
                "aud": ["https://orders.example.com", "https://TENANT.eu.auth0.com/userinfo"],
                "permissions": ["read:orders"],
            })),
            caller: ["auth0|123", "https://TENANT.eu.auth0.com/", "read:orders", "openid,read:orders"],
            neighbours: vec![
                (json!({ "iss": "https://TENANT.eu.auth0.com" }), "unknown_issuer"),
                (json!({ "aud": "CLIENT" }), "wrong_audience"),
            ],
        },
        Shape {
            heading: "Entra ID",
            signer: Signer::Rsa,
            keys: json!({ "keys": [entra_keys(v2)] }),
            header: header("JWT"),
            claims: entra(&format!("https://login.microsoftonline.com/{TENANT}/v2.0"), id),
            caller: [
                "0f4c",
                "https://login.microsoftonline.com/aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb/v2.0",
                "clerk",
                "orders.read,orders.write",
            ],
            neighbours: vec![
                (json!({ "aud": "00000003-0000-0000-c000-000000000000" }), "wrong_audience"),
                (json!({ "oid": null }), "missing_claim"),
                (json!({ "iss": format!("https://sts.windows.net/{TENANT}/") }), "unknown_issuer"),
                (
                    json!({ "iss": format!("https://login.microsoftonline.com/{CONSUMERS}/v2.0") }),
                    "unknown_issuer",
                ),
            ],
        },
        Shape {
            heading: "Entra ID, tokens of version 1",
            signer: Signer::Rsa,
            keys: json!({ "keys": [entra_keys(v2)] }),
            header: header("JWT"),
            claims: entra(&format!("https://sts.windows.net/{TENANT}/"), &format!("api://{id}")),
            caller: [
                "0f4c",
                "https://sts.windows.net/aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb/",
                "clerk",
                "orders.read,orders.write",
            ],
            neighbours: vec![(json!({ "aud": id }), "wrong_audience")],
        },
        Shape {
            heading: "Entra ID, several tenants",
            signer: Signer::Rsa,
            keys: json!({ "keys": [
                entra_keys(v2),
                rsa()[1].jwk("k2", json!({
                    "alg": null, "issuer": format!("https://login.microsoftonline.com/{CONSUMERS}/v2.0"),
                })),
            ] }),
            header: header("JWT"),
            claims: entra(&format!("https://login.microsoftonline.com/{TENANT}/v2.0"), id),
            caller: [
                "0f4c",
                "https://login.microsoftonline.com/aaaaaaaa-1111-2222-3333-bbbbbbbbbbbb/v2.0",
                "clerk",
                "orders.read,orders.write",
            ],
            neighbours: vec![
                (
                    json!({
                        "iss": "https://login.microsoftonline.com/8a1c50f9-3f3f-4f7f-9f0e-6a1f3e2f7c11/v2.0",
                        "tid": "8a1c50f9-3f3f-4f7f-9f0e-6a1f3e2f7c11",
                    }),
                    "",
                ),
                (
                    json!({ "iss": format!("https://login.microsoftonline.com/{CONSUMERS}/v2.0"), "tid": CONSUMERS }),
                    "unknown_issuer",
                ),
                (json!({ "tid": CONSUMERS }), "unknown_issuer"),
                (json!({ "iss": "https://login.microsoftonline.com/{tenant}/v2.0" }), "unknown_issuer"),
                (json!({ "iss": "https://login.microsoftonline.com/common/v2.0" }), "unknown_issuer"),
                other_audience(),
            ],
        },
        Shape {
            heading: "Amazon Cognito",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: json!({ "kid": "k1" }),
            claims: with_times(json!({
                "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_POOL", "sub": "0f4c",
                "client_id": "CLIENT", "token_use": "access", "scope": "aws.cognito.signin.user.admin",
                "cognito:groups": ["clerk"], "username": "ada", "auth_time": now(),
            })),
            caller: [
                "0f4c",
                "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_POOL",
                "clerk",
                "aws.cognito.signin.user.admin",
            ],
            neighbours: vec![
                (json!({ "client_id": "ANOTHER" }), "wrong_audience"),
                // An ID token has `aud` instead.
                (json!({ "client_id": null, "aud": "CLIENT", "token_use": "id" }), "wrong_type"),
                (json!({ "client_id": null, "aud": "CLIENT" }), "missing_claim"),
                (json!({ "token_use": null }), "missing_claim"),
            ],
        },
        Shape {
            heading: "Google",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: header("JWT"),
            claims: with_times(json!({
                "iss": "https://accounts.google.com", "azp": "CLIENT.apps.googleusercontent.com", "sub": "1089",
                "aud": "CLIENT.apps.googleusercontent.com", "hd": "example.com", "email": "ada@example.com",
                "email_verified": true,
            })),
            caller: ["1089", "https://accounts.google.com", "", ""],
            neighbours: vec![
                (json!({ "hd": null }), "missing_claim"),
                (json!({ "hd": "example.com.evil.test" }), "missing_claim"),
                (json!({ "email_verified": "true" }), "missing_claim"),
                (json!({ "iss": "accounts.google.com" }), "unknown_issuer"),
                other_audience(),
            ],
        },
        Shape {
            heading: "Firebase",
            signer: Signer::Rsa,
            keys: json!({ "k0": rsa()[1].certificate, "k1": rsa()[0].certificate }),
            header: header("JWT"),
            claims: with_times(json!({
                "iss": "https://securetoken.google.com/PROJECT", "aud": "PROJECT", "sub": "uid", "user_id": "uid",
                "email_verified": true, "auth_time": now(), "firebase": { "sign_in_provider": "password" },
            })),
            caller: ["uid", "https://securetoken.google.com/PROJECT", "", ""],
            neighbours: vec![
                (json!({ "aud": "ANOTHER" }), "wrong_audience"),
                (json!({ "email_verified": null }), "missing_claim"),
                (json!({ "iss": "https://securetoken.google.com/ANOTHER" }), "unknown_issuer"),
            ],
        },
        Shape {
            heading: "Zitadel",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: header("JWT"),
            claims: with_times(json!({
                "iss": "https://INSTANCE.zitadel.cloud", "aud": ["CLIENT@shop", "PROJECT-ID"], "sub": "1665",
                "urn:zitadel:iam:org:project:roles": { "admin": { "1": "acme.test" }, "clerk": { "1": "acme.test" } },
            })),
            caller: ["1665", "https://INSTANCE.zitadel.cloud", "admin,clerk", ""],
            neighbours: vec![(json!({ "aud": ["CLIENT@shop"] }), "wrong_audience")],
        },
        Shape {
            heading: "Okta",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: json!({ "kid": "k1" }),
            claims: with_times(json!({
                "iss": "https://example.okta.com/oauth2/default", "aud": "api://default", "sub": "ada@example.com",
                "cid": "0oa", "uid": "00u", "scp": ["openid", "orders"], "ver": 1, "groups": ["Everyone", "clerk"],
            })),
            caller: [
                "ada@example.com",
                "https://example.okta.com/oauth2/default",
                "Everyone,clerk",
                "openid,orders",
            ],
            neighbours: vec![
                (json!({ "iss": "https://example.okta.com" }), "unknown_issuer"),
                other_audience(),
            ],
        },
    ]
}
