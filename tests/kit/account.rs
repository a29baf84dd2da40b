//! Accounts of the gateway under test, and what their owners do.

use super::client::{Answer, Request};
use super::dir::Dir;
use super::portcullis::command_with;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The password of all accounts here.
pub const PASSWORD: &str = "correct horse battery staple";

/// A policy with an authority and nothing else.
pub const AUTHORITY: &str = "
[authority]
issuer   = \"https://localhost:8443\"
audience = [\"portcullis\"]
";

/// Makes an account with these roles.
#[track_caller]
pub fn add(dir: &Dir, name: &str, roles: &[&str]) {
    let mut arguments = vec!["user", "add", name, "--password-stdin"];
    for role in roles {
        arguments.extend(["--role", role]);
    }
    let added = command_with(dir, &arguments, &format!("{PASSWORD}\n"));
    assert_eq!(added.code, Some(0), "{added:?}");
}

/// A pair of tokens.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
}

impl Pair {
    /// What an answer gives.
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        let body = answer.is(200).json();
        let text = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {body}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }

    /// What the access token claims, unverified.
    pub fn claims(&self) -> Value {
        claims(&self.access)
    }
}

/// What a token claims, unverified.
pub fn claims(token: &str) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(1).expect("a token has three parts");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Posts a JSON body.
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    posting(path, body).to(address)
}

/// The request that posts a JSON body.
pub fn posting(path: &str, body: &Value) -> Request {
    Request::post(path, body.to_string()).header("content-type", "application/json")
}

/// What logging in answers.
pub fn try_login(address: SocketAddr, name: &str, password: &str) -> Answer {
    post(address, "/auth/login", &json!({ "username": name, "password": password }))
}

/// Logs in.
#[track_caller]
pub fn login(address: SocketAddr, name: &str) -> Pair {
    Pair::of(&try_login(address, name, PASSWORD))
}

/// What refreshing answers.
pub fn try_refresh(address: SocketAddr, token: &str) -> Answer {
    post(address, "/auth/refresh", &json!({ "refresh_token": token }))
}

/// Refreshes.
#[track_caller]
pub fn refresh(address: SocketAddr, token: &str) -> Pair {
    Pair::of(&try_refresh(address, token))
}
