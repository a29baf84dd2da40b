//! Helpers for accounts of the gateway under test, and for the requests of their owners.

use super::client::{Answer, Request};
use super::dir::Dir;
use super::portcullis::command_with;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The password of every account that this module creates.
pub const PASSWORD: &str = "correct horse battery staple";

/// A policy with only an authority.
pub const AUTHORITY: &str = "
[authority]
issuer   = \"https://localhost:8443\"
audience = [\"portcullis\"]
";

/// Creates an account with these roles.
#[track_caller]
pub fn add(dir: &Dir, name: &str, roles: &[&str]) {
    let mut arguments = vec!["user", "add", name, "--password-stdin"];
    for role in roles {
        arguments.extend(["--role", role]);
    }
    let added = command_with(dir, &arguments, &format!("{PASSWORD}\n"));
    assert_eq!(added.code, Some(0), "{added:?}");
}

/// An access token and a refresh token.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
}

impl Pair {
    /// Returns the tokens in a successful answer.
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        let body = answer.is(200).json();
        let text = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {body}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }

    /// Returns the claims of the access token, without verification.
    pub fn claims(&self) -> Value {
        claims(&self.access)
    }
}

/// Returns the claims of a token, without verification.
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

/// Returns a request that posts a JSON body.
pub fn posting(path: &str, body: &Value) -> Request {
    Request::post(path, body.to_string()).header("content-type", "application/json")
}

/// Tries to log in, and returns the answer.
pub fn try_login(address: SocketAddr, name: &str, password: &str) -> Answer {
    post(address, "/auth/login", &json!({ "username": name, "password": password }))
}

/// Logs in, and returns the tokens.
#[track_caller]
pub fn login(address: SocketAddr, name: &str) -> Pair {
    Pair::of(&try_login(address, name, PASSWORD))
}

/// Tries to refresh, and returns the answer.
pub fn try_refresh(address: SocketAddr, token: &str) -> Answer {
    post(address, "/auth/refresh", &json!({ "refresh_token": token }))
}

/// Refreshes, and returns the new tokens.
#[track_caller]
pub fn refresh(address: SocketAddr, token: &str) -> Pair {
    Pair::of(&try_refresh(address, token))
}
