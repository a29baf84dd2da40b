//! Portcullis is a reverse-proxy auth gateway: it checks who calls and what the caller may do, then forwards the
//! request with an identity that the service behind it can trust.
//!
//! The program is one binary; this library holds its code, for its benchmarks and fuzzers too. The smallest use
//! compiles a policy and asks it about a request, by the code that serves requests:
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
//! - [`policy::Policy`] is a compiled `gateway.toml`: routes, rules, limits, trust in issuers, upstreams.
//! - [`route::Head`] is a request's head in canonical form. The gateway decides about this form and forwards it.
//! - [`authenticate::Principal`] is the verified caller.
//! - [`authorize::Permit`] proves that the caller met the route's rule. In shadow mode it proves that the refusal was
//!   recorded. Nothing is forwarded without a permit.
//! - [`denial::Denial`] is the reason of a refusal: one entry for each, with its code, status and explanations.
//!
//! # A request goes down
//!
//! `pipeline/mod.rs` shows the life of a request in one file. Each module imports only modules below it;
//! `tests/structure.rs` lists them in order.
//!
//! 1. `accept` takes connections: sockets, TLS, HTTP/1.1 and HTTP/2, deadlines; one thread for each core. `peer` holds
//!    the facts and the state of a connection, and reads `X-Forwarded-*` (`peer::forwarded`).
//! 2. `pipeline` takes a request through the stages. An `Exchange` carries its facts, a `Record` becomes its access
//!    line, a `Rejection` its refusal.
//! 3. [`route`] reads the head. `canonical_with` in [`route::path`] canonicalises the path; the table finds the most
//!    specific route.
//! 4. [`limit`] charges limits by address before any signature is checked, so that forged tokens cannot buy
//!    verifications.
//! 5. [`decision`] runs two stages without I/O: [`authenticate`] verifies the token, or finds it in the core's cache;
//!    [`authorize`] checks the route's rule. Roles, scopes and claims are checked in `authorize/rule.rs`.
//! 6. [`limit`] charges limits by caller.
//! 7. [`forward`] removes fields that must not pass (`forward/strip.rs`), adds the identity, and sends the request over
//!    a connection of the core's own pool. Both bodies are streamed, and the answer is framed anew
//!    (`forward/reframe.rs`).
//! 8. `respond` writes refusals: problem documents, pages, gRPC statuses.
//!
//! Requests to the gateway's own endpoints, such as the login, go to [`authority`] instead of step 7.
//!
//! # A policy goes down
//!
//! 1. [`cli`] runs the commands. `control` reloads the policy of a running gateway and serves the admin listener.
//! 2. [`review`] judges a whole policy: findings, the policy's own tests, spellings of paths, comparisons of two
//!    policies.
//! 3. [`explain`] decides about one request that nobody sent.
//! 4. [`policy`] compiles a file, and reports all faults at once.
//! 5. [`config`] reads the file, with the place of each key.
//!
//! # Below and beside
//!
//! - `worker` holds the resources of one core. No request waits for another core.
//! - [`authority`] is the local issuer, [`keyring`] its signing keys, [`store`] its accounts, sessions and revocations.
//! - [`decision_log`] keeps the last decisions, so that another policy can be asked about them. `metrics` counts.
//! - `worker_settings` and `tls` are fixed at start.
//! - [`denial`], [`diagnostic`], [`journal`], [`clock`], `counter`, `timestamp`, `request_id` and `state_dir`
//!   are leaves.
//!
//! # Words
//!
//! A *route* covers requests. A *rule* is the set of *checks* that a route makes. A *limit* bounds a rate. An *issuer*
//! signs tokens, and a *principal* is the subject of a verified token. A *denial* is the reason for refusing a request,
//! a *diagnostic* is a fault of a policy. An *upstream* is a group of *servers*.
//!
//! `CONTRIBUTING.md` says how to add a check, a stage, a denial or a key. `docs/design.md` says why things are as they
//! are.
#![forbid(unsafe_code)]

pub(crate) mod accept;
pub mod route;

pub mod authenticate;
pub mod authorize;
pub mod decision;
pub mod limit;

pub mod forward;
pub(crate) mod metrics;
pub(crate) mod pipeline;
pub(crate) mod respond;

pub mod authority;
pub mod cli;
pub mod config;
pub(crate) mod control;
pub mod decision_log;
pub mod explain;
pub mod keyring;
pub mod policy;
pub mod review;
pub mod store;
pub(crate) mod tls;
pub(crate) mod worker;
pub(crate) mod worker_settings;

pub mod clock;
pub(crate) mod counter;
pub mod denial;
pub mod diagnostic;
pub(crate) mod hex;
pub mod journal;
pub mod peer;
pub(crate) mod request_id;
pub(crate) mod state_dir;
pub(crate) mod timestamp;
