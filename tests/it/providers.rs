//! Tokens of real providers with several algorithms: npm's oidc-provider, and a server made with Authlib. The gateway
//! finds their keys by discovery.

use crate::kit::lines::Lines;
use crate::kit::packages::installed;
use crate::kit::{Portcullis, Request, eventually};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const ROUTES: &str = r#"
[upstream.app]
builtin = "echo"

[[route]]
path     = "/read"
upstream = "app"
scopes   = ["read"]

[[route]]
path     = "/write"
upstream = "app"
scopes   = ["write"]
"#;

/// A provider that runs until it is dropped.
struct Provider {
    process: Child,
    address: SocketAddr,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Provider {
    /// Starts a provider, and waits until it prints its port.
    fn start(program: PathBuf, script: PathBuf) -> Self {
        let mut process = Command::new(program)
            .arg(script)
            .env("AUTHLIB_INSECURE_TRANSPORT", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let line = Lines::of(process.stdout.take().unwrap()).next_line();
        let port: u16 = line.parse().unwrap_or_else(|_| panic!("the provider printed {line:?}"));
        Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    fn json(&self, request: Request) -> Value {
        let answer = request.host(&self.address.to_string()).to(self.address);
        answer.is(200);
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Requests an access token with these form fields.
    fn token(&self, path: &str, fields: &str) -> String {
        let credential = STANDARD.encode("web:the-secret-of-a-test-client");
        let request = Request::post(path, format!("grant_type=client_credentials&{fields}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", &format!("Basic {credential}"));
        self.json(request)["access_token"].as_str().unwrap().to_owned()
    }

    /// Posts a form as the client.
    fn post(&self, path: &str, form: &str) {
        let credential = STANDARD.encode("web:the-secret-of-a-test-client");
        let request = Request::post(path, form)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", &format!("Basic {credential}"));
        request.host(&self.address.to_string()).to(self.address).is(200);
    }

    /// Starts a gateway that finds the provider's keys by discovery.
    fn gateway(&self, audience: &str, algorithms: &[&str], more: &str) -> Portcullis {
        let issuer = format!(
            "[[issuer]]\nissuer = {:?}\naudience = {audience:?}\nalgorithms = {algorithms:?}\ndiscovery = true\n\
             allow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\ntypes = \"at+jwt\"\n{more}",
            self.issuer()
        );
        Portcullis::with(&(issuer + ROUTES)).start()
    }
}

/// Checks a token with the scope `read`: one route accepts it, and the other route rejects it.
#[track_caller]
fn reads(gateway: &Portcullis, token: &str) {
    let answer = Request::get("/read").bearer(token).to(gateway.http());
    answer.is(200);
    let seen: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(seen["headers"]["x-auth-subject"], json!("web"));
    Request::get("/write").bearer(token).to(gateway.http()).is_refusal(403, "insufficient_scope");
}

#[test]
fn tokens_of_oidc_provider_are_accepted_by_every_algorithm_and_for_their_audience_alone() {
    let (_, folder) = installed("providers");
    let provider = Provider::start("node".into(), folder.join("provider.mjs"));
    let algorithms = ["RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"];
    let token = |resource: &str| {
        provider.token("/token", &format!("scope=read&resource=https%3A%2F%2Forders.test%2F{resource}"))
    };
    let gateway = provider.gateway("https://orders.test", &algorithms, "max_lifetime = \"5m\"\n");
    for algorithm in algorithms {
        reads(&gateway, &token(algorithm));
    }
    let ask = |gateway: &Portcullis, token: &str| Request::get("/read").bearer(token).to(gateway.http());
    ask(&gateway, &token("elsewhere")).is_refusal(401, "wrong_audience");
    // The gateway rejects the tokens if the policy does not list their algorithm.
    let few = provider.gateway("https://orders.test", &["ES256", "RS256"], "max_lifetime = \"4m\"\n");
    ask(&few, &token("PS256")).is_refusal(401, "unsupported_algorithm");
    ask(&few, &token("RS256")).is_refusal(401, "lifetime_too_long");
}

#[test]
fn tokens_of_authlib_are_accepted_as_the_recipe_says() {
    let (scripts, folder) = installed("providers");
    let provider = Provider::start(folder.join("venv/bin/python"), scripts.join("provider.py"));
    let gateway = provider.gateway("orders", &["RS256", "ES256"], "");
    for algorithm in ["RS256", "ES256"] {
        reads(&gateway, &provider.token(&format!("/token/{algorithm}"), "scope=read"));
    }
    let elsewhere = provider.token("/token/RS256", "scope=read+elsewhere");
    Request::get("/read").bearer(&elsewhere).to(gateway.http()).is_refusal(401, "wrong_audience");
    // Authlib's tokens of client credentials are valid for ten days.
    let strict = provider.gateway("orders", &["RS256"], "max_lifetime = \"24h\"\n");
    let long = provider.token("/token/RS256", "scope=read");
    Request::get("/read").bearer(&long).to(strict.http()).is_refusal(401, "lifetime_too_long");
}

/// Starts a gateway that asks the provider about opaque tokens.
fn asking(provider: &Provider, audience: &str, keys: &str, introspection: &str) -> Portcullis {
    let issuer = format!(
        "[[issuer]]\nissuer = {:?}\naudience = {audience:?}\nallow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\n\
         {keys}\n[issuer.introspection]\nmax_age = \"1s\"\n{introspection}",
        provider.issuer()
    );
    Portcullis::with(&(issuer + ROUTES)).start()
}

#[test]
fn opaque_tokens_of_oidc_provider_are_accepted_by_its_plain_and_by_its_signed_answers() {
    let (_, folder) = installed("providers");
    let provider = Provider::start("node".into(), folder.join("provider.mjs"));
    let opaque = || provider.token("/token", "scope=read&resource=https%3A%2F%2Forders.test%2Fopaque");
    // Its answers about tokens of client credentials have no `sub`.
    let keys = "discovery = true\nalgorithms = \"RS256\"\nsubject = \"client_id\"\n";
    let client = "client_id = \"gateway\"\nsecret = \"the-secret-of-the-gateway\"\n";
    for more in ["", "jwt = true\n", "auth = \"post\"\n"] {
        let gateway = asking(&provider, "https://orders.test", keys, &format!("{client}{more}"));
        let token = opaque();
        reads(&gateway, &token);
        let ask = |token: &str| Request::get("/read").bearer(token).to(gateway.http());
        ask("invented").is_refusal(401, "inactive_token");
        provider.post("/token/revocation", &format!("token={token}"));
        eventually("the revocation takes effect", || ask(&token).status == 401);
        ask(&token).is_refusal(401, "inactive_token");
    }
    let elsewhere = asking(&provider, "https://elsewhere.test", keys, client);
    Request::get("/read").bearer(opaque()).to(elsewhere.http()).is_refusal(401, "wrong_audience");
    // The provider refuses these credentials, so nothing is known about the token.
    let wrong = client.replace("the-secret-of-the-gateway", "another-secret-of-the-gateway");
    let wrong = asking(&provider, "https://orders.test", keys, &wrong);
    Request::get("/read").bearer(opaque()).to(wrong.http()).is_refusal(503, "check_unavailable");
}

#[test]
fn opaque_tokens_of_authlib_are_accepted_for_their_audience_alone() {
    let (scripts, folder) = installed("providers");
    let provider = Provider::start(folder.join("venv/bin/python"), scripts.join("provider.py"));
    let introspection = format!(
        "endpoint = \"{}/introspect\"\nclient_id = \"web\"\nsecret = \"the-secret-of-a-test-client\"\nprefixes = \"opq_\"\n",
        provider.issuer()
    );
    let gateway = asking(&provider, "orders", "", &introspection);
    reads(&gateway, &provider.token("/token/opaque", "scope=read"));
    let ask = |token: &str| Request::get("/read").bearer(token).to(gateway.http());
    ask(&provider.token("/token/opaque", "scope=read+elsewhere")).is_refusal(401, "wrong_audience");
    ask("opq_invented").is_refusal(401, "inactive_token");
    ask("invented").is_refusal(401, "malformed_token");
}
