//! Tokens that are bound to a key of their sender (DPoP, RFC 9449).

use crate::gateway;
use crate::kit::client::Connection;
use crate::kit::lines::Lines;
use crate::kit::packages::installed;
use crate::kit::prover::{Prover, bound};
use crate::kit::{Answer, Request, Upstream, token};
use serde_json::json;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

const ROUTES: &str = "
[[route]]
path     = \"/any/{*rest}\"
upstream = \"app\"

[[route]]
path          = \"/bound\"
upstream      = \"app\"
require_bound = true

[rule.sender]
require_bound = true

[[route]]
path     = \"/by-rule\"
upstream = \"app\"
rule     = \"sender\"

[[route]]
path     = \"/optional\"
upstream = \"app\"
access   = \"optional\"

[[route]]
path     = \"/public\"
upstream = \"app\"
access   = \"public\"

[[route]]
path               = \"/own\"
upstream           = \"app\"
access             = \"public\"
pass_authorization = true
";

/// Returns a token that is bound to this client's key.
fn bound_token(prover: &Prover) -> String {
    token("ada").claim("cnf", prover.confirmation()).to_string()
}

fn challenges(answer: &Answer) -> Vec<&str> {
    crate::kit::values(&answer.headers, "www-authenticate")
}

#[test]
fn a_bound_token_is_accepted_with_a_proof_and_never_without() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let (prover, thief) = (Prover::new(), Prover::new());
    let (own, bearer) = (bound_token(&prover), token("ada").to_string());
    let proof = || prover.proof("GET", "/any/a").token(&own);
    let get = || Request::get("/any/a");
    for (name, request, code) in [
        ("a proof by its key", prover.get("/any/a", &own), ""),
        (
            "the scheme in another case",
            get().header("authorization", &format!("dpop {own}")).header("dpop", &proof().sign()),
            "",
        ),
        ("a bearer token", get().bearer(&bearer), ""),
        ("a bearer token beside a proof", get().bearer(&bearer).header("DPoP", &proof().sign()), ""),
        ("as a bearer token", get().bearer(&own), "bound_token"),
        ("as a bearer token with a proof", get().bearer(&own).header("DPoP", &proof().sign()), "bound_token"),
        ("without a proof", get().header("Authorization", &format!("DPoP {own}")), "invalid_dpop_proof"),
        ("an unbound token with the scheme", prover.get("/any/a", &bearer), "unbound_token"),
        ("a proof by another key", thief.get("/any/a", &own), "invalid_dpop_proof"),
        (
            "a proof for another token",
            bound(get(), &own, &proof().token(&bearer).sign()),
            "invalid_dpop_proof",
        ),
        (
            "a proof for no token",
            bound(get(), &own, &prover.proof("GET", "/any/a").sign()),
            "invalid_dpop_proof",
        ),
        (
            "a proof for another path",
            bound(get(), &own, &prover.proof("GET", "/any/b").token(&own).sign()),
            "invalid_dpop_proof",
        ),
        (
            "a proof for another method",
            bound(get(), &own, &prover.proof("POST", "/any/a").token(&own).sign()),
            "invalid_dpop_proof",
        ),
        (
            "a proof for another scheme",
            bound(get(), &own, &proof().claim("htu", "https://api.test/any/a").sign()),
            "invalid_dpop_proof",
        ),
        ("two proofs", prover.get("/any/a", &own).header("DPoP", &proof().sign()), "invalid_dpop_proof"),
        ("an old proof", bound(get(), &own, &proof().claim("iat", 1_500_000_000).sign()), "use_dpop_nonce"),
    ] {
        let before = upstream.requests().len();
        let answer = request.to(gateway.http());
        assert_eq!(answer.code(), code, "{name}: {answer:#?}");
        assert_eq!(upstream.requests().len() - before, usize::from(code.is_empty()), "{name}");
        if code.is_empty() {
            let seen = upstream.last_request();
            assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{name}");
            assert_eq!((seen.header("authorization"), seen.header("dpop")), (None, None), "{name}");
        }
    }
}

#[test]
fn a_proof_is_accepted_once_on_whatever_connection_and_core() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server]\nworkers = 4\n{ROUTES}"));
    let prover = Prover::new();
    let own = bound_token(&prover);
    let request = prover.get("/any/a", &own);
    let mut connection = Connection::open(gateway.http());
    request.over(&mut connection).is(200);
    request.over(&mut connection).is_refusal(401, "replayed_dpop_proof");
    // The kernel distributes connections over the cores.
    for _ in 0..16 {
        request.to(gateway.http()).is_refusal(401, "replayed_dpop_proof");
    }
    prover.get("/any/a", &own).to(gateway.http()).is(200);
    assert_eq!(gateway.metric("portcullis_dpop_proofs_total{outcome=\"replayed\"}"), Some(17));
    assert_eq!(gateway.metric("portcullis_dpop_proofs_total{outcome=\"accepted\"}"), Some(2));
    assert_eq!(gateway.metric("portcullis_dpop_remembered_proofs"), Some(2));
}

#[test]
fn a_route_that_requires_a_bound_token_refuses_every_other() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let prover = Prover::new();
    for path in ["/bound", "/by-rule"] {
        prover.get(path, &bound_token(&prover)).to(gateway.http()).is(200);
        let answer = Request::get(path).bearer(token("ada")).to(gateway.http());
        answer.is_refusal(401, "unbound_token");
        assert!(challenges(&answer)[0].starts_with("DPoP "), "{answer:#?}");
    }
    let answer = Request::get("/bound").bearer(token("ada")).to(gateway.http());
    assert!(challenges(&answer)[0].starts_with("DPoP realm=\"portcullis\", algs=\"ES256 "), "{answer:#?}");
    assert!(challenges(&answer)[0].contains("error=\"invalid_token\""), "{answer:#?}");
    let answer = Request::get("/bound").to(gateway.http());
    answer.is_refusal(401, "missing_token");
    assert_eq!(challenges(&answer).len(), 1, "{answer:#?}");
    assert!(challenges(&answer)[0].starts_with("DPoP ") && !challenges(&answer)[0].contains("error"));
}

#[test]
fn the_metadata_of_a_resource_says_that_its_tokens_are_bound() {
    let upstream = Upstream::start();
    let resource = "[resource.r]\nidentifier = \"https://gateway.test/bound\"\n";
    let gateway = gateway(&upstream, &format!("{resource}{ROUTES}"));
    let answer = Request::get("/.well-known/oauth-protected-resource/bound").to(gateway.http());
    let document = answer.json();
    assert_eq!(document["dpop_bound_access_tokens_required"], true, "{document}");
    assert_eq!(document["dpop_signing_alg_values_supported"][0], "ES256", "{document}");
}

#[test]
fn challenges_offer_dpop_where_it_was_used_or_is_announced() {
    let upstream = Upstream::start();
    let prover = Prover::new();
    let expired = token("ada").claim("cnf", prover.confirmation()).expired().to_string();
    let quiet = gateway(&upstream, ROUTES);
    assert_eq!(challenges(&Request::get("/any/a").to(quiet.http())), ["Bearer realm=\"portcullis\""]);
    let answer = prover.get("/any/a", &expired).to(quiet.http());
    answer.is_refusal(401, "expired_token");
    assert!(challenges(&answer)[0].starts_with("DPoP ") && challenges(&answer)[0].contains("invalid_token"));
    let loud = gateway(&upstream, &format!("[dpop]\nannounce = true\n{ROUTES}"));
    let answer = Request::get("/any/a").to(loud.http());
    let offered = challenges(&answer);
    assert_eq!((offered.len(), offered[0]), (2, "Bearer realm=\"portcullis\""), "{offered:?}");
    assert!(offered[1].starts_with("DPoP realm=\"portcullis\", algs=\""), "{offered:?}");
}

#[test]
fn a_client_with_a_wrong_clock_gets_a_nonce_and_a_gateway_can_require_one() {
    let upstream = Upstream::start();
    let prover = Prover::new();
    let own = bound_token(&prover);
    for (settings, iat) in [("", 1_500_000_000), ("[dpop]\nnonce = \"required\"\n", crate::kit::forge::now())]
    {
        let gateway = gateway(&upstream, &format!("{settings}{ROUTES}"));
        let proof = || prover.proof("GET", "/any/a").token(&own).claim("iat", iat);
        let answer = bound(Request::get("/any/a"), &own, &proof().sign()).to(gateway.http());
        answer.is_refusal(401, "use_dpop_nonce");
        let offered = challenges(&answer);
        assert!(offered.len() == 1 && offered[0].contains("error=\"use_dpop_nonce\""), "{answer:#?}");
        let nonce = answer.header("dpop-nonce").expect("the refusal carries a nonce");
        let answer =
            bound(Request::get("/any/a"), &own, &proof().claim("nonce", nonce).sign()).to(gateway.http());
        answer.is(200);
        assert_eq!(answer.header("dpop-nonce").is_some(), !settings.is_empty(), "the next nonce");
    }
}

#[test]
fn the_target_is_the_one_that_the_client_of_a_trusted_proxy_used() {
    let upstream = Upstream::start();
    let prover = Prover::new();
    let own = bound_token(&prover);
    for (trusted, code) in [("127.0.0.1", ""), ("192.0.2.1", "invalid_dpop_proof")] {
        let gateway = gateway(&upstream, &format!("[server]\ntrusted_proxies = [\"{trusted}\"]\n{ROUTES}"));
        let proof = prover.proof("GET", "/any/a").token(&own).claim("htu", "https://Pub.example:443/any/%61");
        let answer = bound(Request::get("/any/a"), &own, &proof.sign())
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "pub.example")
            .to(gateway.http());
        assert_eq!(answer.code(), code, "{answer:#?}");
    }
}

/// Another service that got the proof of a client sends it to the gateway, through a proxy that passes on `Forwarded`.
#[test]
fn a_proof_for_another_service_is_not_accepted_because_of_a_forwarded_of_the_client() {
    let upstream = Upstream::start();
    let prover = Prover::new();
    let own = bound_token(&prover);
    let gateway = gateway(&upstream, &format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{ROUTES}"));
    let proof = prover.proof("GET", "/any/a").token(&own).claim("htu", "https://evil.example/any/a");
    bound(Request::get("/any/a"), &own, &proof.sign())
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=203.0.113.9;host=evil.example;proto=https")
        .to(gateway.http())
        .is_refusal(401, "invalid_dpop_proof");
}

#[test]
fn no_proof_reaches_an_upstream_unless_the_upstream_checks_tokens_itself() {
    let upstream = Upstream::start();
    let prover = Prover::new();
    let own = bound_token(&prover);
    let forwarding = gateway(&upstream, &format!("[identity]\nforward_token = true\n{ROUTES}"));
    let dpop = format!("DPoP {own}");
    for (path, authorization, has_proof) in
        [("/any/a", Some(&*dpop), false), ("/public", None, false), ("/own", Some(&*dpop), true)]
    {
        prover.get(path, &own).to(forwarding.http()).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("authorization"), authorization, "{path}");
        assert_eq!(seen.header("dpop").is_some(), has_proof, "{path}");
    }
    Request::get("/optional").header("DPoP", "x").to(forwarding.http()).is(200);
    assert_eq!(upstream.last_request().header("dpop"), None);
}

/// A client library in a process of its own, which holds a key and makes proofs.
struct Library {
    child: Child,
    asks: ChildStdin,
    says: Lines,
}

impl Library {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (asks, says) = (child.stdin.take().unwrap(), Lines::of(child.stdout.take().unwrap()));
        Self { child, asks, says }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.says.next_line()
    }

    fn proof(&mut self, method: &str, url: &str, token: &str, nonce: Option<&str>) -> String {
        let ask = json!({ "method": method, "url": url, "token": token, "nonce": nonce });
        writeln!(self.asks, "{ask}").unwrap();
        self.line()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_proofs_of_client_libraries_are_accepted() {
    let (scripts, folder) = installed("clients");
    let node = |algorithm: &str| {
        let mut command = Command::new("node");
        command.arg(folder.join("bound.mjs")).arg(algorithm);
        command
    };
    let mut python = Command::new(folder.join("venv/bin/python"));
    python.arg(scripts.join("bound.py"));
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[dpop]\nnonce = \"required\"\n{ROUTES}"));
    for mut command in [node("ES256"), node("Ed25519"), node("RS256"), node("PS256"), python] {
        let name = format!("{command:?}");
        let mut library = Library::start(&mut command);
        let own = token("ada").claim("cnf", json!({ "jkt": library.line() })).to_string();
        let path = "/any/a%20b/%C3%A9?q=1&r=%2F";
        let url = format!("http://{}{path}", crate::kit::client::HOST);
        let send = |proof: &str| bound(Request::new("PATCH", path), &own, proof).to(gateway.http());
        let refused = send(&library.proof("PATCH", &url, &own, None));
        assert_eq!(refused.code(), "use_dpop_nonce", "{name}: {refused:#?}");
        let nonce = refused.header("dpop-nonce").expect("a nonce");
        let proof = library.proof("PATCH", &url, &own, Some(nonce));
        let answer = send(&proof);
        assert_eq!(answer.status, 200, "{name}: {answer:#?}");
        assert_eq!(send(&proof).code(), "replayed_dpop_proof", "{name}");
        let next = answer.header("dpop-nonce").expect("the next nonce");
        let answer = send(&library.proof("PATCH", &url, &own, Some(next)));
        assert_eq!(answer.status, 200, "{name}: {answer:#?}");
        let other = library.proof("GET", &url, &own, Some(next));
        assert_eq!(send(&other).code(), "invalid_dpop_proof", "{name}");
    }
}
