//! Portcullis is a reverse-proxy auth gateway. It authenticates each caller, checks what the caller may do, and
//! forwards the request with an identity that the upstream service can trust.
//!
//! Portcullis is a single binary. This library contains its code, so that benchmarks and fuzzers can use it too. The
//! following example compiles a policy and evaluates a request with the same code that serves requests:
//!
//! ```
//! use portcullis::config::load_text;
//! use portcullis::explain::Examiner;
//! use portcullis::keyring::MissingKey;
//! use portcullis::policy::{Question, compile};
//! use serde_json::json;
//!
//! let text = r#"
//!     [[issuer]]
//!     issuer = "https://id.example.com/"
//!     audience = ["orders"]
//!     algorithms = ["HS256"]
//!     secret = "0123456789abcdef0123456789abcdef"
//!
//!     [upstream.orders]
//!     servers = ["http://127.0.0.1:9001"]
//!
//!     [[route]]
//!     path = "/orders/{id}"
//!     upstream = "orders"
//!     roles = ["clerk"]
//! "#;
//! let file = load_text("gateway.toml", text.to_owned(), ".".into(), Vec::new()).expect("the file is well formed");
//! let compiled = compile(&file, MissingKey::Ephemeral).expect("the policy is sound");
//!
//! let examiner = Examiner::new(&compiled.policy);
//! let question = Question::parse("GET https://api.example.com/orders/7")?;
//! assert!(!examiner.verdict(&question).reaches(), "an anonymous caller is refused");
//!
//! let claims = json!({ "sub": "ada", "roles": ["clerk"] });
//! let question = question.claims(claims.as_object().cloned().unwrap_or_default());
//! assert!(examiner.verdict(&question).reaches(), "a clerk is not");
//! # Ok::<(), String>(())
//! ```
//!
//! # The main types
//!
//! - [`policy::Policy`] is a compiled `gateway.toml`: routes, rules, limits, trusted issuers, upstreams.
//! - [`route::Head`] is a request's head in canonical form. The gateway bases its decision on this form and forwards
//!   it.
//! - [`authenticate::Principal`] is the verified caller.
//! - [`authorize::Permit`] proves that the caller passed the route's rule. In shadow mode, it proves that the refusal
//!   was recorded. No request is forwarded without a permit.
//! - [`denial::Denial`] is the reason for a refusal. Each denial has one entry in a table, with its code, status and
//!   explanations.
//!
//! # The path of a request
//!
//! `pipeline/mod.rs` shows all stages of a request in one file. Each module imports only modules that are lower in the
//! order; `tests/structure.rs` lists the modules in order.
//!
//! 1. `accept` accepts connections: sockets, TLS, HTTP/1.1 and HTTP/2, deadlines. Each core has one thread. `peer`
//!    contains the facts and the state of a connection, and parses PROXY headers (`peer::proxy_header`) and
//!    `X-Forwarded-*` (`peer::forwarded`).
//! 2. `pipeline` runs the stages of a request. An `Exchange` contains the request's facts, a `Record` becomes its
//!    access line, and a `Rejection` becomes its refusal.
//! 3. [`route`] parses the head. `canonical_with` in [`route::path`] canonicalises the path; the route table finds the
//!    most specific route.
//!    `admit` in `pipeline/stages.rs` refuses a request whose host the connection may not serve (421).
//! 4. [`limit`] charges limits by address before any signature is checked, so forged tokens cannot cause unlimited
//!    verifications.
//! 5. [`decision`] runs two stages without I/O: [`authenticate`] verifies the token or finds it in the core's cache;
//!    [`authorize`] checks the route's rule. Roles, scopes and claims are checked in `authorize/rule.rs`.
//! 6. [`limit`] charges limits by caller.
//! 7. [`forward`] removes fields that must not reach the upstream (`forward/head/strip.rs`), adds the identity, chooses a
//!    server (`forward/upstream`), and sends the request over a connection of the core (`forward/connection`). [`http1`]
//!    reads the response and finds its end. Both bodies are streamed (`forward/body`), and the client's connection frames
//!    the response anew. `forward/tunnel` passes the bytes of WebSockets, and `forward/open_streams.rs` ends streams with
//!    their token.
//! 8. `respond` writes refusals: problem documents, pages, gRPC statuses.
//!
//! Requests to the gateway's own endpoints, such as the login, are handled by [`authority`] instead of step 7. Routes can
//! also answer with files (`forward/files.rs`) and redirects (`respond/redirect.rs`).
//!
//! # The path of a policy
//!
//! 1. [`cli`] runs the commands. `control` reloads the policy of a running gateway and serves the admin listener.
//! 2. [`review`] examines a whole policy: findings, the policy's tests, spellings of paths, and differences between two
//!    policies.
//! 3. [`explain`] evaluates a single hypothetical request.
//! 4. [`policy`] compiles a file and reports all its faults at once.
//! 5. [`config`] reads the file and records the position of each key.
//!
//! # Other modules
//!
//! - `worker` contains the resources of one core. No request waits for another core.
//! - [`authority`] is the local issuer, [`keyring`] contains its signing keys, which are in files or in the store, and
//!   [`store`] contains its accounts, sessions and revocations. [`api_key_file`] contains the API keys of programs.
//! - [`key_source`] fetches the keys of issuers, and [`introspection`] asks issuers about opaque tokens. [`outbound`] is
//!   the HTTP client for both, and for ACME servers and signals.
//! - [`websocket`] reads the handshakes and follows the frames of WebSockets, which [`forward`] passes on.
//! - [`shared`] keeps the connection to the Redis that several gateways share, and the state in it.
//!   [`limit`] leases tokens of limits that gateways share.
//! - [`acme`] orders the gateway's certificate from an ACME server and renews it.
//! - [`signals`] receives security events and logout tokens from other issuers. They revoke tokens of their issuer.
//! - [`decision_log`] keeps recent decisions. Another policy can be evaluated with the same requests. `metrics` counts
//!   events.
//! - `worker_settings` contains the settings that are fixed at start. `tls` contains the server's certificates, and
//!   verifies those of clients.
//! - [`denial`], [`diagnostic`], [`journal`], [`clock`], [`turns`], [`memory`], [`health`], `counter`, `timestamp`, `request_id`,
//!   `field_list`, `hex`, `pem` and `state_dir` are at the bottom of the order.
//!
//! # Terms
//!
//! A *route* matches requests. A *rule* is the list of a route's *checks*. A *limit* bounds a rate. An *issuer* signs
//! tokens, and a *principal* is the subject of a verified token. A *denial* is the reason for refusing a request. A
//! *diagnostic* is a fault of a policy. An *upstream* is a group of *servers*.
//!
//! `CONTRIBUTING.md` explains how to add a check, a stage, a denial or a key. `docs/design.md` gives the reasons for
//! the design.
#![forbid(unsafe_code)]

pub(crate) mod accept;
pub mod route;

pub mod authenticate;
pub mod authorize;
pub mod decision;
pub mod limit;

pub mod forward;
pub mod http1;
pub(crate) mod metrics;
pub(crate) mod pipeline;
pub mod respond;
pub mod websocket;

pub mod acme;
pub mod api_key_file;
pub mod authority;
pub mod cli;
pub mod config;
pub(crate) mod control;
pub mod decision_log;
pub mod explain;
pub mod introspection;
pub mod key_source;
pub mod keyring;
pub mod outbound;
pub mod policy;
pub mod review;
pub mod shared;
pub mod signals;
pub mod store;
pub mod tls;
pub(crate) mod worker;
pub(crate) mod worker_settings;

pub mod clock;
pub(crate) mod counter;
pub mod denial;
pub mod diagnostic;
pub(crate) mod field_list;
pub mod health;
pub(crate) mod hex;
pub mod journal;
pub mod memory;
pub mod peer;
pub(crate) mod pem;
pub(crate) mod request_id;
pub(crate) mod state_dir;
pub(crate) mod timestamp;
pub mod turns;
