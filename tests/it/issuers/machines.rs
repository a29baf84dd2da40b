//! Issuers for workloads, and libraries that applications issue tokens with.

use super::*;

pub(super) fn machines() -> Vec<Shape> {
    let other_audience = || (json!({ "aud": "another-service" }), "wrong_audience");
    vec![
        Shape {
            heading: "GitLab",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: header("JWT"),
            claims: with_times(json!({
                "iss": "https://gitlab.com", "aud": "https://orders.example.com",
                "sub": "project_path:GROUP/shop:ref_type:branch:ref:main", "namespace_path": "GROUP",
                "project_path": "GROUP/shop", "ref": "main", "ref_protected": "true", "jti": "1",
            })),
            caller: ["project_path:GROUP/shop:ref_type:branch:ref:main", "https://gitlab.com", "", ""],
            neighbours: vec![
                (json!({ "namespace_path": "GROUP/fork" }), "missing_claim"),
                (json!({ "ref_protected": "false" }), "missing_claim"),
                (json!({ "exp": now() + 100_000 }), "lifetime_too_long"),
                (json!({ "iat": null }), "missing_claim"),
                other_audience(),
            ],
        },
        Shape {
            heading: "GitHub Actions",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: json!({ "typ": "JWT", "kid": "k1", "x5t": "k1" }),
            claims: with_times(json!({
                "iss": "https://token.actions.githubusercontent.com", "aud": "https://orders.example.com",
                "sub": "repo:octo/shop:ref:refs/heads/main", "repository_owner": "octo",
                "repository_owner_id": "123456", "ref": "refs/heads/main", "nbf": now(),
            })),
            caller: [
                "repo:octo/shop:ref:refs/heads/main",
                "https://token.actions.githubusercontent.com",
                "",
                "",
            ],
            neighbours: vec![
                (json!({ "repository_owner_id": "1234567" }), "missing_claim"),
                (json!({ "repository_owner_id": 123_456 }), "missing_claim"),
                (json!({ "ref": "refs/pull/1/merge" }), "missing_claim"),
                (json!({ "exp": now() + 7200 }), "lifetime_too_long"),
                other_audience(),
            ],
        },
        Shape {
            heading: "Kubernetes",
            signer: Signer::Rsa,
            keys: json!({ "keys": [rsa()[0].jwk("k1", json!({ "use": "sig" }))] }),
            header: json!({ "kid": "k1" }),
            claims: with_times(json!({
                "iss": "https://kubernetes.default.svc.cluster.local", "aud": ["orders"], "nbf": now(),
                "sub": "system:serviceaccount:shop:web",
                "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "web", "uid": "1" } },
            })),
            caller: [
                "system:serviceaccount:shop:web",
                "https://kubernetes.default.svc.cluster.local",
                "",
                "",
            ],
            neighbours: vec![
                (json!({ "kubernetes.io": { "namespace": "billing" } }), ""),
                (json!({ "kubernetes.io": { "namespace": "default" } }), "missing_claim"),
                (json!({ "aud": ["https://kubernetes.default.svc.cluster.local"] }), "wrong_audience"),
            ],
        },
        Shape {
            heading: "Supabase",
            signer: Signer::Secret,
            keys: json!({}),
            header: json!({ "typ": "JWT", "kid": "k1" }),
            claims: with_times(json!({
                "iss": "https://PROJECT.supabase.co/auth/v1", "aud": "authenticated", "sub": "0f4c",
                "role": "authenticated", "app_metadata": { "roles": ["clerk"] }, "is_anonymous": false,
                "user_metadata": { "roles": ["admin"] }, "session_id": "1",
            })),
            caller: ["0f4c", "https://PROJECT.supabase.co/auth/v1", "clerk", ""],
            neighbours: vec![
                (json!({ "is_anonymous": true }), "missing_claim"),
                // The project's public `anon` key.
                (
                    json!({ "iss": "supabase", "ref": "PROJECT", "role": "anon", "aud": null, "sub": null }),
                    "unknown_issuer",
                ),
                other_audience(),
            ],
        },
        Shape {
            heading: "Flask-JWT-Extended",
            signer: Signer::Secret,
            keys: json!({}),
            header: json!({ "typ": "JWT" }),
            claims: with_times(json!({
                "sub": "7", "fresh": false, "jti": "1", "type": "access", "csrf": "1", "nbf": now(),
            })),
            caller: ["7", "flask", "", ""],
            neighbours: vec![
                (json!({ "type": "refresh" }), "wrong_type"),
                (json!({ "type": null }), "missing_claim"),
                (json!({ "iss": "another" }), "unknown_issuer"),
                other_audience(),
            ],
        },
        Shape {
            heading: "Simple JWT (Django)",
            signer: Signer::Secret,
            keys: json!({}),
            header: json!({ "typ": "JWT" }),
            claims: with_times(json!({ "token_type": "access", "jti": "1", "user_id": 7 })),
            caller: ["7", "django", "", ""],
            neighbours: vec![
                (json!({ "user_id": "7" }), ""),
                (json!({ "token_type": "refresh" }), "wrong_type"),
                // A sliding token can refresh itself.
                (json!({ "token_type": "sliding" }), "missing_claim"),
                (json!({ "user_id": null }), "missing_claim"),
            ],
        },
        Shape {
            heading: "Authlib",
            signer: Signer::Rsa,
            keys: usual_keys(),
            header: header("at+jwt"),
            claims: with_times(json!({
                "iss": "https://id.example.com", "aud": "orders", "sub": "7", "client_id": "web", "jti": "1",
                "scope": "orders", "roles": ["clerk"],
            })),
            caller: ["7", "https://id.example.com", "clerk", "orders"],
            neighbours: vec![other_audience()],
        },
        Shape {
            heading: "SPIFFE",
            signer: Signer::Ec,
            keys: json!({
                "spiffe_sequence": 7, "spiffe_refresh_hint": 300,
                "keys": [
                    ec().jwk("x", json!({ "use": "x509-svid", "kid": null, "alg": null, "x5c": ["AAAA"] })),
                    ec().jwk("k1", json!({ "use": "jwt-svid", "alg": null })),
                ],
            }),
            header: header("JWT"),
            claims: with_times(json!({ "aud": ["orders"], "sub": "spiffe://example.org/ns/shop/sa/web" })),
            caller: ["spiffe://example.org/ns/shop/sa/web", "spiffe://example.org", "", ""],
            neighbours: vec![
                (json!({ "iss": "spiffe://example.org" }), ""),
                (json!({ "sub": "spiffe://other.org/ns/shop/sa/web" }), "missing_claim"),
                (json!({ "iss": "spiffe://example.org", "sub": "spiffe://other.org/web" }), "unknown_issuer"),
                (json!({ "iss": "https://oidc.example.org" }), "unknown_issuer"),
                other_audience(),
            ],
        },
    ]
}
