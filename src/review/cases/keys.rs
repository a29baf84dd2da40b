//! Tests that a `[[test]]` can expect the effect of every key of `[[route]]`, `[upstream.NAME]` and `[cors.NAME]`, or that the
//! key is listed as omitted.

use super::TestFailure;
use crate::clock::Now;
use crate::explain::Examiner;
use crate::explain::table_keys::{BASE, OPEN, TABLES, documented, with};
use crate::keyring::MissingKey;
use std::collections::BTreeSet;

/// Keys of a route that a test cannot see.
const OMITTED: [(&str, &str); 5] = [
    ("compress_types", "a test has no answer, and so no type"),
    ("csrf_field", "a test has no body, and so no form; `explain` shows the key"),
    ("login", "the answer depends on the session of the browser; `explain` shows the key"),
    ("mode", "a test states what the policy means, in shadow mode too"),
    ("waive", "it accepts findings of `check`"),
];

/// Keys of an upstream that a test cannot see.
const OMITTED_OF_UPSTREAM: [(&str, &str); 27] = [
    ("builtin", "the name of the upstream says it"),
    ("protocol", SETTING),
    ("resolve", STATE),
    ("resolver", STATE),
    ("connect_timeout", SETTING),
    ("connections", STATE),
    ("weights", "no single request shows a share"),
    ("retry_percent", STATE),
    ("retry_floor", STATE),
    ("slow_start", STATE),
    ("panic_below", STATE),
    ("health.check", STATE),
    ("health.path", STATE),
    ("health.service", STATE),
    ("health.host", STATE),
    ("health.status", STATE),
    ("health.interval", STATE),
    ("health.timeout", STATE),
    ("health.unhealthy_after", STATE),
    ("health.healthy_after", STATE),
    ("ca", SETTING),
    ("tls.certificate", SETTING),
    ("tls.key", SETTING),
    ("tls.server_name", SETTING),
    ("tls.pinned_names", SETTING),
    ("tls.pinned_keys", SETTING),
    ("balance", "the first server is certain with `hash_by` only"),
];
const STATE: &str = "the effect depends on other requests or on the state of servers";
const SETTING: &str = "the effect is the same for all requests; `explain` and `config diff` show it";

/// Keys of CORS that a test cannot see.
const OMITTED_OF_CORS: [(&str, &str); 3] = [
    ("expose", "a browser decides field by field; `explain` shows them"),
    ("credentials", "the script decides whether to send any; `explain` shows the key"),
    ("max_age", "a test has no cache; `explain` shows the key"),
];

const GET: &str = r#"request = "GET https://h.test/a/7"
claims = { sub = "ada", roles = ["clerk"], scope = "s", tenant = "acme" }
headers = { X-Api-Version = "2", Accept-Encoding = "gzip", Origin = "https://app.example.com" }"#;
const POST: &str = "request = \"POST https://h.test/a/7\"\nclaims = { sub = \"ada\" }";
const ANONYMOUS: &str = "request = \"GET https://h.test/a/7\"";
const ELSEWHERE: &str = "request = \"GET https://h.test/a/7\"\nheaders = { X-Token = \"x\" }";
const OWN_LOGIN: &str = "request = \"GET https://h.test/a/7\"\nheaders = { Authorization = \"Basic YTpi\" }";
const HANDSHAKE: &str = r#"request = "GET https://h.test/a/7"
claims = { sub = "ada" }
headers = { Connection = "Upgrade", Upgrade = "websocket", Sec-WebSocket-Version = "13", Sec-WebSocket-Key = "dGhlIHNhbXBsZSBub25jZQ==" }"#;

/// A key, the route without it, the keys that replace the route or are added to it, the request, and the expectation that
/// only a policy with the key meets. `=` begins a whole route.
const OF_ROUTE: &[(&str, &str, &str, &str, &str)] = &[
    ("name", BASE, "name = \"orders\"", GET, "route = \"orders\""),
    ("host", BASE, "host = \"other.test\"", GET, "deny = \"no_route\""),
    ("path", BASE, "=path = \"/b\"\nupstream = \"app\"", GET, "deny = \"no_route\""),
    ("methods", BASE, "methods = [\"POST\"]", GET, "deny = \"method_not_allowed\""),
    ("headers", BASE, "headers = { X-Api-Version = \"3\" }", GET, "deny = \"no_route\""),
    ("upstream", BASE, "=path = \"/a/{id}\"\nupstream = \"other\"", GET, "upstream = \"other\""),
    ("files", BASE, "=path = \"/a/{id}\"\nfiles = \"docs\"", GET, "upstream = \"files\""),
    ("split.upstream", BASE, ALL, GET, "upstream = \"other\""),
    ("split.percent", BASE, ALL, GET, "upstream = \"other\""),
    (
        "split.headers",
        BASE,
        "split = [{ upstream = \"other\", headers = { X-Api-Version = \"2\" } }]",
        GET,
        "upstream = \"other\"",
    ),
    (
        "split.subjects",
        BASE,
        "split = [{ upstream = \"other\", subjects = [\"ada\"] }]",
        GET,
        "upstream = \"other\"",
    ),
    (
        "split.roles",
        BASE,
        "split = [{ upstream = \"other\", roles = [\"clerk\"] }]",
        GET,
        "upstream = \"other\"",
    ),
    ("split_by", SPLIT, "split_by = \"request\"", GET, "upstream = \"app\""),
    ("mirror", BASE, "mirror = \"other\"", GET, "mirror = \"other\""),
    ("mirror_percent", MIRROR, "mirror_percent = 0", GET, "mirror = \"\""),
    ("mirror_body", MIRROR, "mirror_body = \"64KiB\"", POST, "mirror = \"other\""),
    ("access", BASE, "access = \"optional\"", ANONYMOUS, "allow = true"),
    ("rule", BASE, "rule = \"staff\"", GET, "deny = \"insufficient_role\""),
    ("roles", BASE, "roles = [\"cook\"]", GET, "deny = \"insufficient_role\""),
    ("all_roles", BASE, "all_roles = [\"clerk\", \"cook\"]", GET, "deny = \"insufficient_role\""),
    ("not_roles", BASE, "not_roles = [\"clerk\"]", GET, "allow = false"),
    ("scopes", BASE, "scopes = [\"t\"]", GET, "deny = \"insufficient_scope\""),
    ("any_scopes", BASE, "any_scopes = [\"t\"]", GET, "deny = \"insufficient_scope\""),
    ("claims", BASE, "claims = { tenant = \"other\" }", GET, "deny = \"claim_mismatch\""),
    ("issuers", BASE, "issuers = [\"https://other.example.com\"]", GET, "deny = \"unknown_issuer\""),
    ("identity", BASE, "identity = [\"subject\"]", GET, "headers = { X-Auth-Tenant = \"\" }"),
    ("rate_limits", BASE, "rate_limits = \"slow\"", GET, "rate_limits = \"slow\""),
    ("cors", BASE, "cors = \"app\"", GET, "cors = true"),
    ("redirect", BASE, "=path = \"/a/{id}\"\nredirect = \"/b/{id}\"", GET, "redirect = \"/b/7\""),
    (
        "redirect_status",
        "path = \"/a/{id}\"\nredirect = \"/b/{id}\"",
        "redirect_status = 302",
        GET,
        "status = 302",
    ),
    ("maintenance", BASE, "maintenance = \"10m\"", GET, "maintenance = true"),
    (
        "strip_prefix",
        BASE,
        "strip_prefix = \"/a\"",
        GET,
        "path = \"/7\", headers = { X-Forwarded-Prefix = \"/a\" }",
    ),
    ("add_prefix", BASE, "add_prefix = \"/v2\"", GET, "path = \"/v2/a/7\""),
    ("rewrite_pattern", BASE, PATTERN, GET, "path = \"/b/7\""),
    ("rewrite_to", BASE, PATTERN, GET, "path = \"/b/7\""),
    ("rewrite_host", BASE, "rewrite_host = \"o.internal\"", GET, "headers = { Host = \"o.internal\" }"),
    (
        "set_request_headers",
        BASE,
        "set_request_headers = { X-Api-Version = \"3\" }",
        GET,
        "headers = { X-Api-Version = \"3\" }",
    ),
    (
        "add_request_headers",
        BASE,
        "add_request_headers = { X-Api-Version = \"3\" }",
        GET,
        "headers = { X-Api-Version = \"2, 3\" }",
    ),
    (
        "remove_request_headers",
        BASE,
        "remove_request_headers = [\"X-Api-Version\"]",
        GET,
        "headers = { X-Api-Version = \"\" }",
    ),
    ("request_trailers", BASE, "request_trailers = [\"X-Checksum\"]", GET, "trailers = \"X-Checksum\""),
    (
        "set_response_headers",
        BASE,
        "set_response_headers = { X-A = \"b\" }",
        GET,
        "response_headers = { X-A = \"b\" }",
    ),
    (
        "add_response_headers",
        BASE,
        "add_response_headers = { X-A = \"b\" }",
        GET,
        "response_headers = { X-A = \"b\" }",
    ),
    (
        "remove_response_headers",
        BASE,
        "remove_response_headers = [\"Server\"]",
        GET,
        "response_headers = { Server = \"\" }",
    ),
    ("compress", BASE, COMPRESS, GET, "compress = \"gzip\""),
    ("compress_with_credentials", BASE, COMPRESS, GET, "compress = \"gzip\""),
    (
        "security_headers",
        BASE,
        "security_headers = \"force\"",
        GET,
        "response_headers = { X-Content-Type-Options = \"nosniff\" }",
    ),
    (
        "pass_authorization",
        OPEN,
        "pass_authorization = true",
        OWN_LOGIN,
        "headers = { Authorization = \"Basic YTpi\" }",
    ),
    (
        "forward_token",
        BASE,
        "forward_token = true",
        GET,
        "headers = { Authorization = \"Bearer <the caller's token>\" }",
    ),
    ("timeout", BASE, "timeout = \"5s\"", GET, "timeout = \"5s\""),
    ("websocket", BASE, "websocket = true", HANDSHAKE, "silence = \"5m\""),
    ("streams", BASE, "streams = \"open\"", GET, "streams = \"open\""),
    ("silence", BASE, "silence = \"60m\"", GET, "silence = \"1h\""),
    ("fresh", BASE, "fresh = true", GET, "deny = \"fresh_token_required\""),
    ("require_bound", BASE, "require_bound = true", GET, "deny = \"unbound_token\""),
    ("sources", BASE, "sources = [{ header = \"X-Token\" }]", ELSEWHERE, "deny = \"malformed_token\""),
];
const ALL: &str = "split = [{ upstream = \"other\", percent = 100 }]";
const SPLIT: &str =
    "path = \"/a/{id}\"\nupstream = \"app\"\nsplit = [{ upstream = \"other\", percent = 100 }]";
const MIRROR: &str = "path = \"/a/{id}\"\nupstream = \"app\"\nmirror = \"other\"";
const PATTERN: &str = "rewrite_pattern = \"/a/(.*)\"\nrewrite_to = \"/b/{1}\"";
const COMPRESS: &str = "compress = \"gzip\"\ncompress_with_credentials = true";

const OF_UPSTREAM: &[(&str, &str, &str, &str, &str)] = &[
    ("servers", ONE, "=servers = [\"http://127.0.0.1:19\"]", GET, "server = \"http://127.0.0.1:19\""),
    ("timeout", ONE, "timeout = \"7s\"", GET, "timeout = \"7s\", silence = \"7s\""),
    (
        "hash_by",
        "servers = [\"http://127.0.0.1:9\", \"http://127.0.0.1:19\"]",
        "balance = \"hash\"\nhash_by = [\"subject\"]",
        GET,
        "server = \"http://127.0.0.1:19\"",
    ),
    (
        "identity_secret",
        ONE,
        "identity_secret = \"0123456789abcdef0123456789abcdef\"",
        GET,
        "headers = { X-Auth-Signature = \"<proof of the identity, made for each request>\" }",
    ),
];
const ONE: &str = "servers = [\"http://127.0.0.1:9\"]";

const PREFLIGHT: &str = r#"request = "OPTIONS https://h.test/a/7"
headers = { Origin = "https://app.example.com", Access-Control-Request-Method = "PUT", Access-Control-Request-Headers = "authorization" }"#;
const OTHER_FIELD: &str = r#"request = "OPTIONS https://h.test/a/7"
headers = { Origin = "https://app.example.com", Access-Control-Request-Method = "PUT", Access-Control-Request-Headers = "x-trace" }"#;
const PRIVATE: &str = r#"request = "OPTIONS https://h.test/a/7"
headers = { Origin = "https://app.example.com", Access-Control-Request-Method = "PUT", Access-Control-Request-Private-Network = "true" }"#;

const OF_CORS: &[(&str, &str, &str, &str, &str)] = &[
    ("origins", ORIGIN, "=origins = [\"https://b.test\"]", GET, "cors = false"),
    ("methods", ORIGIN, "methods = [\"GET\"]", PREFLIGHT, "cors = false"),
    ("headers", ORIGIN, "headers = [\"x-trace\"]", OTHER_FIELD, "cors = true, allow = true"),
    ("private_network", ORIGIN, "private_network = true", PRIVATE, "cors = true"),
];
const ORIGIN: &str = "origins = [\"https://app.example.com\"]";

/// Runs a test under a policy. `None` if it passes; otherwise the differences or the faults.
fn failure(tables: &str, request: &str, expect: &str) -> Option<String> {
    let text = format!("{tables}\n[[test]]\nname = \"t\"\n{request}\nexpect = {{ {expect} }}\n");
    let folder = env!("CARGO_MANIFEST_DIR").into();
    let loaded = crate::config::load_text("gateway.toml", text.clone(), folder, Vec::new());
    match crate::policy::compile(
        &loaded.unwrap_or_else(|fault| panic!("{text}: {fault:#?}")),
        MissingKey::Ephemeral,
    ) {
        Ok(compiled) => {
            let examiner = Examiner::new(&compiled.policy);
            TestFailure::of(&compiled.cases[0], &examiner, Now::read()).map(|failure| failure.to_string())
        }
        Err(faults) => Some(format!("{faults:#?}")),
    }
}

fn compare(
    table: &str,
    rows: &[(&str, &str, &str, &str, &str)],
    omitted: &[(&str, &str)],
    tables: impl Fn(&str) -> String,
) {
    let tested = rows.iter().map(|(key, ..)| *key).chain(omitted.iter().map(|(key, _)| *key));
    let tested: BTreeSet<&str> = tested.collect();
    assert_eq!(documented(table), tested, "a key is neither tested nor listed as omitted, or does not exist");
    for (key, without, added, request, expect) in rows {
        let whole = with(&(key, without, added, ""));
        assert_eq!(failure(&tables(&whole), request, expect), None, "{key}: {expect}");
        assert!(
            failure(&tables(without), request, expect).is_some(),
            "{key}: {expect} holds without the key"
        );
    }
}

#[test]
fn a_test_can_expect_the_effect_of_every_key_of_a_route() {
    let other = "[[issuer]]\nissuer = \"https://other.example.com\"\naudience = [\"x\"]\nalgorithms = [\"HS256\"]\n\
                 secret = \"0123456789abcdef0123456789abcdef\"\n";
    compare("route", OF_ROUTE, &OMITTED, |route| format!("{TABLES}{other}[[route]]\n{route}\n"));
}

#[test]
fn a_test_can_expect_the_effect_of_every_key_of_an_upstream() {
    compare("upstream.NAME", OF_UPSTREAM, &OMITTED_OF_UPSTREAM, |upstream| {
        TABLES.replace(ONE, upstream) + &format!("[[route]]\n{BASE}\n")
    });
}

#[test]
fn a_test_can_expect_the_effect_of_every_key_of_cors() {
    compare("cors.NAME", OF_CORS, &OMITTED_OF_CORS, |cors| {
        TABLES.replace(ORIGIN, cors) + &format!("[[route]]\n{BASE}\ncors = \"app\"\n")
    });
}

#[test]
fn a_request_that_changes_something_is_not_sent_again() {
    let tables = format!("{TABLES}[[route]]\n{BASE}\n");
    assert_eq!(failure(&tables, GET, "retry = true"), None);
    assert_eq!(failure(&tables, POST, "retry = false"), None);
    assert_eq!(failure(&tables, POST, "retry = true").as_deref(), Some("retry: expected true, found false"));
    let redirect = format!("{TABLES}[[route]]\npath = \"/a/{{id}}\"\nredirect = \"/b\"\n");
    let found = "none: no upstream gets the request";
    let wanted = format!("retry: expected false, found {found}");
    assert_eq!(failure(&redirect, GET, "retry = false"), Some(wanted));
    let wanted = format!("timeout: expected 5s, found {found}");
    assert_eq!(failure(&redirect, GET, "timeout = \"5s\""), Some(wanted));
}

#[test]
fn a_preflight_is_charged_to_no_limit_and_reaches_no_upstream() {
    let tables = format!("{TABLES}[[route]]\n{BASE}\ncors = \"app\"\nrate_limits = \"slow\"\n");
    assert_eq!(failure(&tables, GET, "rate_limits = \"slow\""), None);
    assert_eq!(failure(&tables, PREFLIGHT, "rate_limits = [], cors = true, allow = true"), None);
    let wanted = "upstream: expected \"app\", found \"preflight\"";
    assert_eq!(failure(&tables, PREFLIGHT, "upstream = \"app\"").as_deref(), Some(wanted));
    let wanted = "cors: expected false, found none: the upstream decides";
    let without = format!("{TABLES}[[route]]\n{BASE}\n");
    assert_eq!(failure(&without, GET, "cors = false").as_deref(), Some(wanted));
}

#[test]
fn a_refused_request_is_charged_to_no_limit_of_its_caller() {
    let each = "[rate_limit.each]\nby = \"subject\"\nrate = \"1/s\"\n";
    let tables = format!("{TABLES}{each}[[route]]\n{BASE}\nrate_limits = [\"slow\", \"each\"]\n");
    assert_eq!(failure(&tables, GET, "rate_limits = [\"each\", \"slow\"]"), None);
    assert_eq!(failure(&tables, ANONYMOUS, "deny = \"missing_token\", rate_limits = \"slow\""), None);
}

#[test]
fn a_server_that_the_request_does_not_decide_cannot_be_expected() {
    let two = TABLES.replace(ONE, "servers = [\"http://127.0.0.1:9\", \"http://127.0.0.1:19\"]");
    let tables = format!("{two}[[route]]\n{BASE}\n");
    let wanted =
        "server: expected \"http://127.0.0.1:9\", found any of http://127.0.0.1:9, http://127.0.0.1:19";
    assert_eq!(failure(&tables, GET, "server = \"http://127.0.0.1:9\"").as_deref(), Some(wanted));
}
