//! Black-box tests of the gateway: the real binary, real sockets, and the requests that reach the upstream.
//!
//! All modules share one test binary, so that it is linked only once. The tests observe only what operators, clients
//! and services observe.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test binary exports nothing, serves nobody, and its helpers may fail a test like the test itself"
)]

#[path = "../kit/mod.rs"]
mod kit;

mod acme;
mod acme_faults;
mod admin;
mod admin_guard;
mod answers;
mod api_keys;
mod assertion;
mod authentication;
mod authorization;
mod balancing;
mod blind;
mod bodies;
mod browser;
mod browser_dpop;
mod cases;
mod certificates;
mod cleartext;
mod cli;
mod client;
mod client_certificates;
mod compat;
mod compression;
mod config;
mod cookies;
mod cors;
mod deploy;
mod diff;
mod differential;
mod dpop;
mod dpop_authority;
mod drain;
mod endings;
mod explain;
mod failover;
mod files;
mod finality;
mod forward_auth;
mod forwarding;
mod grpc;
mod grpc_tonic;
mod handover;
mod handshakes;
mod headers;
mod hostile;
mod http2;
mod http2_frames;
mod http2_uploads;
mod http2_upstreams;
mod identity_choice;
mod introspection;
mod issuer_keys;
mod issuers;
mod itself;
mod key_rotation;
mod key_urls;
mod keys;
mod limits;
mod lint;
mod logs;
mod mirror;
mod mistakes;
mod monitoring;
mod names;
mod overload;
mod pages;
mod parked;
mod providers;
mod proxy_protocol;
mod reasons;
mod regression;
mod reload;
mod reload_load;
mod request_trailers;
mod resources;
mod responses;
mod rolling;
mod routes;
mod routing;
mod rules;
mod server_names;
mod services;
mod sessions;
mod shadow;
mod shaping;
mod shared;
mod shared_attacks;
mod shared_key_sets;
mod shared_keys;
mod shared_limits;
mod shared_logins;
mod shared_refusals;
mod shared_replay;
mod shared_servers;
mod signal_keys;
mod signals;
mod slow_readers;
mod sources;
mod splits;
mod stopping;
mod store_trouble;
mod stores;
mod tls;
mod tls_profile;
mod under_fire;
mod unix_sockets;
mod unread;
mod upload_end;
mod upstream_checks;
mod upstream_faults;
mod upstream_tls;
mod upstream_wire;
mod upstreams;
mod upstreams_busy;
mod users;
mod verify;
mod waits;
mod websocket;
mod websocket_clients;
mod websocket_end;
mod websocket_forward;
mod websocket_http2;
mod websocket_upstream_http2;
mod wire;

use kit::{ISSUER, Portcullis, Upstream};

/// Returns a policy with the forge's issuer, this upstream under the name `app`, and these tables.
fn policy(upstream: &Upstream, tables: &str) -> String {
    format!("{ISSUER}\n[upstream.app]\nservers = [\"{upstream}\"]\n\n{tables}")
}

/// Starts a gateway with this upstream.
#[track_caller]
fn gateway(upstream: &Upstream, tables: &str) -> Portcullis {
    Portcullis::with(&policy(upstream, tables)).start()
}

/// Starts a gateway with this upstream and a TLS listener.
#[track_caller]
fn encrypted(upstream: &Upstream, tables: &str) -> Portcullis {
    gateway(upstream, &format!("[server]\nhttps = \"127.0.0.1:0\"\n{tables}"))
}

/// A public route for every path.
const PUBLIC: &str = "
[[route]]
name     = \"public\"
path     = \"/{*rest}\"
upstream = \"app\"
access   = \"public\"
";

/// One route for each value of `access`: `/guarded`, `/optional` and `/public`.
const ACCESSES: &str = r#"
[[route]]
path     = "/guarded"
upstream = "app"

[[route]]
path     = "/optional"
upstream = "app"
access   = "optional"

[[route]]
path     = "/public"
upstream = "app"
access   = "public"
"#;

/// The gateway's built-in echo service, for policies whose tests need no upstream.
const ECHO: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/any\"
upstream = \"echo\"
";

/// The gateway's built-in echo service at `/`.
const ECHO_ROOT: &str = r#"
[upstream.app]
builtin = "echo"

[[route]]
path     = "/"
upstream = "app"
"#;

/// The routes of the forward-auth tests. One route has a rate limit.
const ASKED_ROUTES: &str = r#"
[rate_limit.few]
by    = "client_ip"
rate  = "1/h"
burst = 2

[[route]]
name     = "open"
path     = "/open/{*rest}"
upstream = "app"
access   = "public"

[[route]]
name     = "maybe"
path     = "/maybe"
upstream = "app"
access   = "optional"

[[route]]
name     = "orders"
path     = "/orders/{id}"
methods  = ["GET", "HEAD", "POST"]
upstream = "app"
roles    = ["clerk"]

[[route]]
name     = "page"
path     = "/page"
upstream = "app"
login    = "page"

[[route]]
name        = "limited"
path        = "/limited"
upstream    = "app"
access      = "public"
rate_limits = ["few"]

[[route]]
name     = "internal"
host     = "internal.test"
path     = "/{*rest}"
upstream = "app"
roles    = ["admin"]
"#;
