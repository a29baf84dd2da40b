//! Portcullis, a reverse-proxy auth gateway: it checks who calls and what they may do, then forwards with identity that
//! a service can trust.
//!
//! # The life of a request
//!
//! The modules stand in the order in which a request meets them; [`pipeline`] is the story in one function.
//!
//! 1. [`accept`]: a core's own socket takes a connection; TLS, HTTP/1.1 or HTTP/2 make requests of its bytes, within the
//!    bounds and deadlines of `[server.bounds]`.
//! 2. [`route`]: the request is read once, into a [`route::Head`] that has one reading or is refused, and the table finds
//!    the most specific route.
//! 3. [`limit`], for what can be counted without knowing the caller: before a signature is checked, or forged tokens would
//!    buy verifications.
//! 4. [`decision`]: [`authenticate`] makes a [`authenticate::Principal`] of the token, from the core's cache if it was
//!    verified before; [`authorize`] asks the route's rule and issues a [`authorize::Permit`]. Pure code: no I/O, no wait.
//! 5. [`limit`] again, for what counts by caller.
//! 6. [`forward`]: takes the permit, strips what must not pass, says who calls, and sends the request to an upstream over
//!    one of the core's own connections; body and answer are streamed, the answer framed anew. The [`pipeline`] hands the requests to
//!    the local issuer instead, and the questions of other proxies.
//! 7. [`respond`]: refusals become problem documents; a record becomes one log line and a few counts.
//!
//! Only a `Permit` can be forwarded, and only `authorize` makes one. Everything else is plumbing around that.
//!
//! # Around it
//!
//! - [`config`] is what the operator wrote; [`policy`] compiles it into what the gateway obeys, all faults at once.
//! - [`explain`] decides about a request that nobody sent, by the code that serves.
//! - [`review`] judges a whole policy through it: findings, the policy's own tests, odd spellings, comparisons.
//! - [`worker`] is all that one core owns: nothing on the path of a request waits for another core.
//! - [`decision_log`] keeps the inputs of the last decisions, so that another policy can be asked about them.
//! - [`worker_settings`] and [`tls`] are what is fixed at start: bounds, deadlines, the certificate.
//! - [`authority`] is the local issuer, [`keyring`] its signing keys, [`store`] what it keeps; [`control`] what happens without a request; [`cli`] the commands.
//! - [`denial`], [`diagnostic`], [`journal`], [`clock`], [`counter`], [`timestamp`], [`peer`], [`request_id`], [`state_dir`] are leaves.
//!
//! # Words
//!
//! A *route* covers requests; a *rule* is what a route asks; a *check* is one question of a rule. A *limit* says how fast.
//! An *issuer* makes tokens, a *principal* is who a verified token speaks of. A *denial* refuses a request, a *diagnostic*
//! a policy. An *upstream* is a group of *servers*.
#![forbid(unsafe_code)]

pub(crate) mod accept;
pub mod route;

pub mod authenticate;
pub mod authorize;
pub mod decision;
pub mod limit;

pub mod forward;
pub mod metrics;
pub(crate) mod pipeline;
pub mod respond;

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
pub mod tls;
pub(crate) mod worker;
pub mod worker_settings;

pub mod clock;
pub mod counter;
pub mod denial;
pub mod diagnostic;
pub(crate) mod hex;
pub mod journal;
pub mod peer;
pub mod request_id;
pub mod state_dir;
pub mod timestamp;
