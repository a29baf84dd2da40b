//! Authentication: every credential on every kind of route, and every bad token.

use crate::kit::forge::{self, Algorithm, SECRET};
use crate::kit::{Answer, Portcullis, Request, Upstream, token};
use crate::{ACCESSES, gateway, policy};
use serde_json::json;

/// Returns the challenge in a refusal (RFC 6750 section 3).
#[track_caller]
fn challenge(answer: &Answer) -> &str {
    answer.header("www-authenticate").expect("a refusal for want of credentials carries a challenge")
}

#[test]
fn each_kind_of_access_takes_each_kind_of_credential_as_the_table_says() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let good = format!("Bearer {}", token("ada"));
    let expired = format!("Bearer {}", token("ada").expired());
    let forged = format!("Bearer {}x", token("ada"));
    let credentials: [(&str, Vec<&str>); 12] = [
        ("none", vec![]),
        ("good", vec![&good]),
        ("expired", vec![&expired]),
        ("forged", vec![&forged]),
        ("no token behind Bearer", vec!["Bearer"]),
        ("an empty token", vec!["Bearer "]),
        ("an empty field", vec![""]),
        ("two tokens in one field", vec!["Bearer a b"]),
        ("another scheme", vec!["Basic YWRhOmFkYQ=="]),
        ("the same twice", vec![&good, &good]),
        ("a good and a bad one", vec![&good, &expired]),
        ("a good one and another scheme", vec![&good, "Basic YWRhOmFkYQ=="]),
    ];
    // Returns the expected code for a kind of access, or an empty string if the request passes.
    let expected = |access: &str, credential: &str| -> &str {
        match (access, credential) {
            ("public", _) | (_, "good") => "",
            ("optional", "none") => "",
            // A credential in an unknown format is refused, not treated as absent.
            ("optional", "an empty field" | "another scheme") => "malformed_token",
            ("guarded", "none" | "an empty field" | "another scheme") => "missing_token",
            (_, "expired") => "expired_token",
            (_, "the same twice" | "a good and a bad one" | "a good one and another scheme") => {
                "ambiguous_credentials"
            }
            (
                "guarded" | "optional",
                "forged" | "no token behind Bearer" | "an empty token" | "two tokens in one field",
            ) => "malformed_token",
            (access, credential) => panic!("the table does not say what {credential} is worth on {access}"),
        }
    };
    for access in ["guarded", "optional", "public"] {
        for (name, fields) in &credentials {
            let before = upstream.requests().len();
            let mut request = Request::get(&format!("/{access}"));
            for field in fields {
                request = request.header("Authorization", field);
            }
            let answer = request.to(gateway.http());
            let code = expected(access, name);
            assert_eq!(answer.code(), code, "{access}, {name}: {answer:#?}");
            let reached = upstream.requests().len() - before;
            assert_eq!(reached, usize::from(code.is_empty()), "{access}, {name}");
            if code.is_empty() {
                answer.is(200);
                let seen = upstream.last_request();
                let subject = if access != "public" && *name == "good" { Some("ada") } else { None };
                assert_eq!(seen.header("x-auth-subject"), subject, "{access}, {name}");
                assert_eq!(seen.header("authorization"), None, "the client's token is not passed on");
            }
        }
    }
}

#[test]
fn each_bad_token_is_refused_with_its_own_code_on_guarded_and_optional_routes() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let mut wrong = Vec::new();
    for (name, token, code) in forge::every_bad_token() {
        for path in ["/guarded", "/optional"] {
            let answer = Request::get(path).bearer(&token).to(gateway.http());
            if (answer.status, &*answer.code()) != (401, code) {
                wrong.push(format!("{path}, {name}: {} {}, not {code}", answer.status, answer.code()));
            } else {
                let challenge = challenge(&answer);
                assert!(challenge.starts_with("Bearer "), "{name}: {challenge}");
                assert!(challenge.contains("error=\"invalid_token\""), "{name}: {challenge}");
                assert!(challenge.contains(code), "{name}: {challenge}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    upstream.saw_nothing();
}

#[test]
fn a_bad_token_is_refused_again_and_again_and_does_not_spoil_a_good_one() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let good = token("ada").sign();
    let (message, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", forge::base64url([7; 64]));
    for _ in 0..3 {
        Request::get("/guarded").bearer(&good).to(gateway.http()).is(200);
        Request::get("/guarded").bearer(&forged).to(gateway.http()).is_refusal(401, "bad_signature");
    }
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn without_a_token_the_challenge_names_no_error() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let answer = Request::get("/guarded").to(gateway.http());
    answer.is_refusal(401, "missing_token");
    assert!(challenge(&answer).starts_with("Bearer"));
    assert!(!challenge(&answer).contains("error="), "RFC 6750 section 3.1: {}", challenge(&answer));
    let answer = Request::get("/guarded").bearer("x").header("authorization", "Bearer y").to(gateway.http());
    answer.is_refusal(400, "ambiguous_credentials");
}

#[test]
fn the_scheme_is_read_without_case_and_with_one_space_only() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let token = token("ada").sign();
    for scheme in ["Bearer ", "bearer ", "BEARER "] {
        let value = format!("{scheme}{token}");
        Request::get("/guarded").header("Authorization", &value).to(gateway.http()).is(200);
    }
    let seen = upstream.requests().len();
    for value in [
        format!("Bearer\t{token}"),
        format!("Bearer  {token}"),
        format!("Bearer:{token}"),
        format!("Bearer {token},"),
        format!("Bearer \"{token}\""),
        format!("Bearer {token}, Bearer {token}"),
    ] {
        let answer = Request::get("/guarded").header("Authorization", &value).to(gateway.http());
        answer.is_refusal(401, "malformed_token");
    }
    for value in [format!("Token {token}"), format!("Bearer{token}"), token.clone()] {
        let answer = Request::get("/guarded").header("Authorization", &value).to(gateway.http());
        answer.is_refusal(401, "missing_token");
    }
    assert_eq!(upstream.requests().len(), seen);
}

#[test]
fn a_token_in_any_other_place_is_no_token() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let token = token("ada").sign();
    let target = format!("/guarded?access_token={token}");
    Request::get(&target).to(gateway.http()).is_refusal(401, "missing_token");
    let form = Request::post("/guarded", format!("access_token={token}"))
        .header("Content-Type", "application/x-www-form-urlencoded");
    form.to(gateway.http()).is_refusal(401, "missing_token");
    for name in ["X-Access-Token", "Proxy-Authorization", "X-Forwarded-Access-Token", "X-Authorization"] {
        let request = Request::get("/guarded").header(name, &format!("Bearer {token}"));
        request.to(gateway.http()).is_refusal(401, "missing_token");
    }
    upstream.saw_nothing();
}

#[test]
fn good_tokens_of_every_shape_are_accepted() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let now = forge::now();
    for (name, token) in [
        ("plain", token("ada")),
        ("one audience of several", token("ada").claim("aud", json!(["billing", "orders"]))),
        ("type JWT", token("ada").member("typ", json!("JWT"))),
        ("type in full", token("ada").member("typ", json!("application/at+jwt"))),
        ("no type, from a foreign issuer", token("ada").member("typ", json!(null))),
        ("expired within the leeway", token("ada").claim("exp", json!(now - 5))),
        ("issued within the leeway", token("ada").claim("iat", json!(now + 5))),
        ("times with fractions", token("ada").claim("exp", json!(now as f64 + 300.5))),
        ("foreign key in its header", token("ada").member("jku", json!("https://evil.test/jwks.json"))),
        ("claims that nobody asks for", token("ada").claim("extra", json!({"deep": [1, {"a": null}]}))),
    ] {
        let answer = Request::get("/guarded").bearer(token).to(gateway.http());
        assert_eq!(answer.status, 200, "{name}: {answer:#?}");
        assert_eq!(upstream.last_request().header("x-auth-subject"), Some("ada"), "{name}");
    }
}

#[test]
fn each_algorithm_is_accepted_from_an_issuer_that_lists_it_and_from_no_other() {
    let upstream = Upstream::start();
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256] {
        let key = match algorithm {
            Algorithm::Hs256 => "secret = \"file:secret.txt\"\nkid = \"hs256\"",
            Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => "jwks = \"jwks.json\"",
        };
        let gateway = Portcullis::with(&format!(
            "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"{}\"]\n{key}\n\
             [upstream.app]\nservers = [\"{upstream}\"]\n{ACCESSES}",
            algorithm.name(),
        ))
        .start();
        for other in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256] {
            let answer = Request::get("/guarded").bearer(token("ada").algorithm(other)).to(gateway.http());
            if other == algorithm {
                answer.is(200);
            } else {
                answer.is_refusal(401, "unsupported_algorithm");
            }
        }
    }
}

#[test]
fn a_single_public_key_will_do_and_is_no_secret() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"RS256\"]\n\
         public_key = \"file:id.pem\"\n[upstream.app]\nservers = [\"{upstream}\"]\n{ACCESSES}",
    ))
    .start();
    let without_kid = token("ada").algorithm(Algorithm::Rs256).member("kid", json!(null));
    Request::get("/guarded").bearer(without_kid).to(gateway.http()).is(200);
    for (name, token, _) in forge::every_bad_token() {
        let answer = Request::get("/guarded").bearer(&token).to(gateway.http());
        assert_eq!(answer.status, 401, "{name}: {answer:#?}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_key_is_bound_to_its_issuer_though_another_has_one_of_the_same_name() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&policy(
        &upstream,
        &format!(
            "[[issuer]]\nissuer = \"https://other.test/\"\naudience = [\"orders\"]\nalgorithms = [\"HS256\"]\n\
             secret = \"file:secret.txt\"\nkid = \"es256\"\n{ACCESSES}"
        ),
    ))
    .start();
    let theirs = token("ada").claim("iss", json!("https://other.test/"));
    let hs256 = theirs.clone().algorithm(Algorithm::Hs256).member("kid", json!("es256"));
    Request::get("/guarded").bearer(hs256).to(gateway.http()).is(200);
    // A key of one issuer must not verify a token of another issuer.
    Request::get("/guarded").bearer(theirs).to(gateway.http()).is_refusal(401, "unsupported_algorithm");
    let ours = token("ada").algorithm(Algorithm::Hs256).member("kid", json!("es256"));
    Request::get("/guarded").bearer(ours).to(gateway.http()).is_refusal(401, "unsupported_algorithm");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn the_issuer_says_which_types_of_token_it_makes() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\n\
         jwks = \"jwks.json\"\ntypes = [\"at+jwt\"]\n[upstream.app]\nservers = [\"{upstream}\"]\n{ACCESSES}",
    ))
    .start();
    Request::get("/guarded").bearer(token("ada")).to(gateway.http()).is(200);
    for token in [token("ada").member("typ", json!("JWT")), token("ada").member("typ", json!(null))] {
        Request::get("/guarded").bearer(token).to(gateway.http()).is_refusal(401, "wrong_type");
    }
}

#[test]
fn the_token_is_passed_on_only_when_the_policy_says_so() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[identity]\nforward_token = true\n{ACCESSES}"));
    let token = token("ada").sign();
    Request::get("/guarded").bearer(&token).to(gateway.http()).is(200);
    assert_eq!(upstream.only_request().header("authorization"), Some(&*format!("Bearer {token}")));
}

#[test]
fn a_route_decides_for_itself_whether_its_upstream_gets_the_token() {
    let routes = |of_all: bool| {
        let route = |path: &str, more: &str| {
            format!("[[route]]\npath = \"/{path}\"\nupstream = \"app\"\nidentity = [\"subject\"]\n{more}\n")
        };
        let usual = if of_all { "" } else { "identity = [\"subject\"]\n" };
        format!(
            "[identity]\nforward_token = {of_all}\n[[route]]\npath = \"/usual\"\nupstream = \"app\"\n{usual}\
             [[route]]\npath = \"/with\"\nupstream = \"app\"\nforward_token = true\n\
             [[route]]\npath = \"/open\"\nupstream = \"app\"\naccess = \"optional\"\nforward_token = true\n{}",
            route("without", "forward_token = false")
        )
    };
    let token = token("ada").sign();
    for of_all in [false, true] {
        let upstream = Upstream::start();
        let gateway = gateway(&upstream, &routes(of_all));
        for (path, passes) in [("/usual", of_all), ("/with", true), ("/without", false), ("/open", true)] {
            Request::get(path).bearer(&token).to(gateway.http()).is(200);
            let seen = upstream.last_request();
            let expected = passes.then(|| format!("Bearer {token}"));
            assert_eq!(seen.header("authorization"), expected.as_deref(), "{path} of_all={of_all}");
            assert_eq!(seen.header("x-auth-subject"), Some("ada"));
        }
        Request::get("/open").to(gateway.http()).is(200);
        assert_eq!(upstream.last_request().header("authorization"), None);
    }
}

#[test]
fn a_route_that_verifies_no_token_cannot_pass_one_on() {
    let dir = crate::kit::dir::Dir::new();
    for (more, words) in [
        ("access = \"public\"\n", "the gateway verifies no token"),
        ("identity = [\"subject\"]\n", "forward_token sends the whole token"),
    ] {
        let route = format!("[[route]]\npath = \"/x\"\nupstream = \"echo\"\nforward_token = true\n{more}");
        let text = format!("[upstream.echo]\nbuiltin = \"echo\"\n{}{route}", crate::kit::ISSUER);
        crate::kit::portcullis::write_policy(&dir, &text);
        let check = crate::kit::portcullis::command(&dir, &["check"]);
        assert_eq!(check.code, Some(1), "{check:?}");
        assert!(check.text().contains(words), "{more}: {}", check.text());
    }
}

#[test]
fn a_token_stops_working_when_it_expires_though_it_worked_before() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\n\
         jwks = \"jwks.json\"\nleeway = \"0s\"\n[upstream.app]\nservers = [\"{upstream}\"]\n{ACCESSES}",
    ))
    .start();
    let expiry = forge::now() + 3;
    let token = token("ada").claim("exp", json!(expiry)).sign();
    Request::get("/guarded").bearer(&token).to(gateway.http()).is(200);
    crate::kit::eventually("the token has expired", || {
        Request::get("/guarded").bearer(&token).to(gateway.http()).code() == "expired_token"
    });
    assert!(forge::now() >= expiry, "not before its time");
}

#[test]
fn a_weak_secret_does_not_load() {
    let dir = crate::kit::dir::Dir::new();
    let weak = &SECRET[..31];
    crate::kit::portcullis::write_policy(
        &dir,
        &format!(
            "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"HS256\"]\n\
             secret = \"{weak}\"\n[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/x\"\nupstream = \"echo\"\n"
        ),
    );
    let check = crate::kit::portcullis::command(&dir, &["check"]);
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.text().contains("256"), "the bound is named: {}", check.text());
    assert!(!check.text().contains(weak), "the secret is not");
}
