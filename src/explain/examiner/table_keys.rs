//! Tests that an explanation shows the effect of every key of `[[route]]`, `[upstream.NAME]` and `[cors.NAME]`, or that the
//! key is listed as omitted.

use super::super::explain;
use crate::keyring::MissingKey;
use crate::policy::{Compiled, Question};
use serde_json::json;
use std::collections::BTreeSet;

pub(crate) const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// Keys that do not affect the handling of a request.
pub(crate) const OMITTED: [(&str, &str); 1] = [("waive", "it accepts findings of `check`")];

/// Keys of an upstream that do not affect the handling of a single request.
const OMITTED_OF_UPSTREAM: [(&str, &str); 14] = [
    ("resolve", "names become addresses while the gateway runs"),
    ("resolver", "names become addresses while the gateway runs"),
    ("connections", "it bounds all requests together"),
    ("slow_start", "it depends on the state of a server"),
    ("panic_below", "it depends on the state of all servers"),
    ("health.check", HEALTH),
    ("health.path", HEALTH),
    ("health.service", HEALTH),
    ("health.host", HEALTH),
    ("health.status", HEALTH),
    ("health.interval", HEALTH),
    ("health.timeout", HEALTH),
    ("health.unhealthy_after", HEALTH),
    ("health.healthy_after", HEALTH),
];
const HEALTH: &str = "checks depend on no request; `/readyz?verbose` shows their results";

/// The key, the upstream without it, the keys that replace the upstream or are added to it, and the text that appears in
/// the explanation. A text after `!` disappears. `=` begins a whole upstream.
const OF_UPSTREAM: &[(&str, &str, &str, &str)] = &[
    ("servers", ONE, "=servers = [\"http://127.0.0.1:19\"]", "upstream app (http://127.0.0.1:19)"),
    ("builtin", ONE, "=builtin = \"echo\"", "(the built-in echo)"),
    ("protocol", ONE, "protocol = \"http2\"", "over HTTP/2"),
    ("connect_timeout", ONE, "connect_timeout = \"1s\"", "connection awaited for 1s"),
    ("timeout", ONE, "timeout = \"7s\"", "answer awaited for 7s"),
    ("balance", TWO, "balance = \"least_requests\"", "servers are chosen by the fewest requests"),
    (
        "hash_by",
        TWO,
        "balance = \"hash\"\nhash_by = [\"subject\", \"client_ip\"]",
        "servers are chosen by a hash of subject, client_ip",
    ),
    ("weights", TWO, "weights = [3, 1]", "with the weights 3, 1"),
    ("retry_percent", ONE, "retry_percent = 50", "50 % of the answered requests"),
    ("retry_floor", ONE, "retry_floor = \"1/h\"", "and 0 more of each core"),
    (
        "identity_secret",
        ONE,
        "identity_secret = \"0123456789abcdef0123456789abcdef\"",
        "x-auth-signature: <proof",
    ),
    ("ca", TLS, "ca = \"DIR/cert.pem\"", "verifies the authorities of DIR/cert.pem"),
    (
        "tls.certificate",
        TLS,
        "tls = { certificate = \"DIR/cert.pem\", key = \"DIR/key.pem\" }",
        "shows the certificate DIR/cert.pem",
    ),
    (
        "tls.key",
        TLS,
        "tls = { certificate = \"DIR/cert.pem\", key = \"DIR/key.pem\" }",
        "shows the certificate DIR/cert.pem",
    ),
    ("tls.server_name", TLS, "tls = { server_name = \"orders.test\" }", "the name orders.test"),
    ("tls.pinned_names", TLS, "tls = { pinned_names = [\"orders.test\"] }", "one of the names orders.test"),
    (
        "tls.pinned_keys",
        TLS,
        "tls = { pinned_keys = [\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"] }",
        "a pinned key",
    ),
];
const ONE: &str = "servers = [\"http://127.0.0.1:9\"]";
const TWO: &str = "servers = [\"http://127.0.0.1:9\", \"http://127.0.0.1:19\"]";
const TLS: &str = "servers = [\"https://127.0.0.1:9\"]";

/// The same for `[cors.NAME]`, in the explanations of a request and of its preflight.
const OF_CORS: &[(&str, &str, &str, &str)] = &[
    (
        "origins",
        ORIGIN,
        "=origins = [\"https://b.test\"]",
        "origin https://a.test: no script may read the answer",
    ),
    ("methods", ORIGIN, "methods = [\"PUT\"]", "!access-control-allow-methods: GET"),
    ("headers", ORIGIN, "headers = [\"x-trace\"]", "access-control-allow-headers: x-trace"),
    ("expose", ORIGIN, "expose = [\"etag\"]", ", etag"),
    ("credentials", ORIGIN, "credentials = true", "access-control-allow-credentials: true"),
    ("max_age", ORIGIN, "max_age = \"1h\"", "access-control-max-age: 3600"),
    ("private_network", ORIGIN, "private_network = true", "access-control-allow-private-network: true"),
];
const ORIGIN: &str = "origins = [\"https://a.test\"]";

/// The tables to which routes refer.
pub(crate) const TABLES: &str = r#"
[authority]
issuer = "https://id.example.com"
audience = ["orders"]
cookies = true
[identity]
claims = { "X-Auth-Tenant" = "tenant" }
signature = "X-Auth-Signature"
[upstream.app]
servers = ["http://127.0.0.1:9"]
[upstream.other]
servers = ["http://127.0.0.1:10"]
identity_secret = "fedcba9876543210fedcba9876543210"
[rate_limit.slow]
by = "client_ip"
rate = "1/s"
[rule.staff]
roles = ["staff"]
[cors.app]
origins = ["https://app.example.com"]
"#;

/// The keys of a route whose effect is shown by itself.
pub(crate) const BASE: &str = "path = \"/a/{id}\"\nupstream = \"app\"";
/// `BASE` for callers without a token.
pub(crate) const OPEN: &str = "path = \"/a/{id}\"\nupstream = \"app\"\naccess = \"public\"";

/// A key, the route without it, what replaces the route or is added to it, and the text that appears in the explanation.
/// A text after `!` disappears. `=` begins a whole route.
pub(crate) const SHOWN: &[(&str, &str, &str, &str)] = &[
    ("name", BASE, "name = \"orders\"", "route     orders: matches"),
    ("host", BASE, "host = \"h.test\"", "matches h.test/a/{id}"),
    ("path", BASE, "=path = \"/{*all}\"\nupstream = \"app\"", "matches /{*all}"),
    ("methods", BASE, "methods = [\"GET\"]", "matches GET,HEAD /a/{id}"),
    ("headers", BASE, "headers = { X-Api-Version = \"2\" }", "            x-api-version: 2"),
    ("upstream", BASE, "=path = \"/a/{id}\"\nupstream = \"other\"", "upstream other (http://127.0.0.1:10)"),
    ("files", BASE, "=path = \"/a/{id}\"\nfiles = \"docs\"", "the gateway answers with a file ("),
    (
        "split.upstream",
        BASE,
        "split = [{ upstream = \"other\", percent = 10 }]",
        "split among app (90 %), other",
    ),
    ("split.percent", BASE, "split = [{ upstream = \"other\", percent = 10 }]", "other (10 %)"),
    (
        "split.headers",
        BASE,
        "split = [{ upstream = \"other\", headers = { X-Api-Version = \"2\" } }]",
        "other (x-api-version: 2)",
    ),
    (
        "split.subjects",
        BASE,
        "split = [{ upstream = \"other\", subjects = [\"ada\"] }]",
        "other (subject ada)",
    ),
    ("split.roles", BASE, "split = [{ upstream = \"other\", roles = [\"clerk\"] }]", "other (role clerk)"),
    (
        "split_by",
        "path = \"/a/{id}\"\nupstream = \"app\"\nsplit = [{ upstream = \"other\", percent = 10 }]",
        "split_by = [\"header:X-Api-Version\", \"claim:tenant\"]",
        "by header:x-api-version, claim:tenant",
    ),
    ("mirror", BASE, "mirror = \"other\"", "copies 100 % of the safe requests without a body to other"),
    ("mirror_percent", BASE, "mirror = \"other\"\nmirror_percent = 10", "copies 10 % of the"),
    (
        "mirror_body",
        BASE,
        "mirror = \"other\"\nmirror_body = \"64KiB\"",
        "requests with at most 65536 bytes to other",
    ),
    ("access", BASE, "access = \"public\"", "nothing: anyone may call"),
    ("rule", BASE, "rule = \"staff\"", "any role of staff"),
    ("roles", BASE, "roles = [\"clerk\"]", "any role of clerk"),
    ("all_roles", BASE, "all_roles = [\"clerk\", \"cook\"]", "all roles of clerk, cook"),
    ("not_roles", BASE, "not_roles = [\"cook\"]", "none of the roles cook"),
    ("scopes", BASE, "scopes = [\"s\"]", "all scopes of s"),
    ("any_scopes", BASE, "any_scopes = [\"s\"]", "any scope of s"),
    ("claims", BASE, "claims = { tenant = \"acme\" }", "claim tenant = "),
    ("issuers", BASE, "issuers = [\"https://id.example.com\"]", "a token of https://id.example.com"),
    ("identity", BASE, "identity = [\"subject\"]", "!x-auth-tenant: acme"),
    ("rate_limits", BASE, "rate_limits = \"slow\"", "limit     slow: "),
    ("cors", BASE, "cors = \"app\"", "cors app: preflights"),
    ("redirect", BASE, "=path = \"/a/{id}\"\nredirect = \"/b/{id}\"", "redirected with 308 to /b/7"),
    (
        "redirect_status",
        "path = \"/a/{id}\"\nredirect = \"/b/{id}\"",
        "redirect_status = 302",
        "redirected with 302 to /b/7",
    ),
    ("maintenance", BASE, "maintenance = \"10m\"", "refused with 503 maintenance"),
    ("strip_prefix", BASE, "strip_prefix = \"/a\"", "  GET /7"),
    ("add_prefix", BASE, "add_prefix = \"/v2\"", "  GET /v2/a/7"),
    ("rewrite_pattern", BASE, "rewrite_pattern = \"/a/(.*)\"\nrewrite_to = \"/b/{1}\"", "  GET /b/7"),
    ("rewrite_to", BASE, "rewrite_pattern = \"/a/(.*)\"\nrewrite_to = \"/b/{1}\"", "  GET /b/7"),
    ("rewrite_host", BASE, "rewrite_host = \"orders.internal\"", "  host: orders.internal"),
    ("set_request_headers", BASE, "set_request_headers = { X-Env = \"prod\" }", "  x-env: prod"),
    ("add_request_headers", BASE, "add_request_headers = { X-Hop = \"edge\" }", "  x-hop: edge"),
    ("remove_request_headers", BASE, "remove_request_headers = [\"X-Api-Version\"]", "!  x-api-version: 2"),
    ("request_trailers", BASE, "request_trailers = [\"X-Checksum\"]", "with the trailers x-checksum"),
    ("set_response_headers", BASE, "set_response_headers = { X-A = \"b\" }", "answer: sets x-a: b"),
    ("add_response_headers", BASE, "add_response_headers = { X-A = \"b\" }", "answer: adds x-a: b"),
    ("remove_response_headers", BASE, "remove_response_headers = [\"Server\"]", "answer: removes server"),
    (
        "compress",
        BASE,
        "compress = \"gzip\"\ncompress_with_credentials = true",
        "compressed by gzip, if its type and",
    ),
    (
        "compress_types",
        BASE,
        "compress = \"gzip\"\ncompress_with_credentials = true\ncompress_types = [\"text/html\"]",
        "if its type (text/html) and",
    ),
    (
        "compress_with_credentials",
        BASE,
        "compress = \"gzip\"\ncompress_with_credentials = true",
        "compressed by gzip",
    ),
    ("security_headers", BASE, "security_headers = \"force\"", "answer: sets security headers"),
    ("pass_authorization", OPEN, "pass_authorization = true", "  authorization: "),
    ("forward_token", BASE, "forward_token = true", "  authorization: "),
    ("timeout", BASE, "timeout = \"5s\"", "answer awaited for 5s"),
    ("websocket", BASE, "websocket = true", "forwards WebSockets"),
    ("streams", BASE, "streams = \"open\"", "streams outlive the token"),
    ("silence", BASE, "silence = \"1h\"", "ends it after 1h"),
    ("fresh", BASE, "fresh = true", "a token from a login"),
    ("require_bound", BASE, "require_bound = true", "a token that is bound to a key"),
    ("sources", BASE, "sources = [\"header\"]", "looks for a credential in: header"),
    ("login", BASE, "login = \"page\"", "sent to the login page"),
    ("csrf_field", BASE, "csrf_field = \"token\"", "CSRF token in the field token"),
    ("mode", BASE, "mode = \"shadow\"\nroles = [\"cook\"]", "the route is in shadow mode"),
];

/// Returns the keys of a table in the reference.
pub(crate) fn documented(table: &str) -> BTreeSet<&'static str> {
    let heading = format!("\n### `{table}.");
    let keys = REFERENCE.split(&*heading).skip(1).filter_map(|section| section.split('`').next());
    keys.collect()
}

/// Compiles a policy with these tables.
#[track_caller]
pub(crate) fn compiled(text: String) -> Compiled {
    let folder = env!("CARGO_MANIFEST_DIR").into();
    let loaded = crate::config::load_text("gateway.toml", text.clone(), folder, Vec::new());
    let compiled = crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral);
    compiled.unwrap_or_else(|faults| panic!("{text}: {faults:#?}"))
}

/// Returns the table that a row describes.
pub(crate) fn with((key, without, added, _): &(&str, &str, &str, &str)) -> String {
    let with = match added.strip_prefix('=') {
        Some(whole) => whole.to_owned(),
        None => format!("{without}\n{added}"),
    };
    let last = key.rsplit('.').next().unwrap_or_default();
    assert!(with.contains(&format!("{last} = ")), "{key} is in its own row");
    with
}

/// Returns the explanation of a request under a policy with these tables, and that of the preflight for its script.
fn explained(tables: String) -> String {
    let policy = compiled(tables).policy;
    let request = |method: &str, fields: &[(&str, &str)]| {
        let mut question = Question::parse(&format!("{method} https://h.test/a/7")).unwrap();
        for (name, value) in [&[("X-Api-Version", "2"), ("Accept-Encoding", "gzip")], fields].concat() {
            question = question.header(name, value).unwrap();
        }
        question
    };
    let claims = json!({ "sub": "ada", "roles": ["clerk"], "scope": "s", "tenant": "acme" });
    let asked = request("GET", &[("Origin", "https://a.test")]).claims(claims.as_object().cloned().unwrap());
    let preflight = request(
        "OPTIONS",
        &[
            ("Origin", "https://a.test"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "x-trace"),
            ("Access-Control-Request-Private-Network", "true"),
        ],
    );
    format!("{}{}", explain(&policy, &asked), explain(&policy, &preflight))
}

/// Compares the explanations of each row, without its key and with it.
fn compare(
    table: &str,
    shown: &[(&str, &str, &str, &str)],
    omitted: &[(&str, &str)],
    tables: impl Fn(&str) -> String,
) {
    let tested = shown.iter().map(|(key, ..)| *key).chain(omitted.iter().map(|(key, _)| *key));
    let tested: BTreeSet<&str> = tested.collect();
    assert_eq!(documented(table), tested, "a key is neither shown nor listed as omitted, or does not exist");
    for row in shown {
        let (key, without, _, text) = row;
        let (before, after) = (explained(tables(without)), explained(tables(&with(row))));
        let (absent_in, present_in, text) = match text.strip_prefix('!') {
            Some(text) => (&after, &before, text),
            None => (&before, &after, *text),
        };
        assert!(present_in.contains(text), "{key}: {text}\n{present_in}");
        assert!(!absent_in.contains(text), "{key}: {text}\n{absent_in}");
    }
}

#[test]
fn an_explanation_shows_every_key_of_a_route() {
    compare("route", SHOWN, &OMITTED, |route| format!("{TABLES}[[route]]\n{route}\n"));
}

#[test]
fn an_explanation_shows_every_key_of_an_upstream() {
    let folder = std::env::temp_dir().join(format!("portcullis-explain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = ("cert.pem", "key.pem");
    let made = rcgen::generate_simple_self_signed(vec!["orders.test".to_owned()]).unwrap();
    std::fs::write(folder.join(certificate), made.cert.pem()).unwrap();
    std::fs::write(folder.join(key), made.signing_key.serialize_pem()).unwrap();
    let shown = OF_UPSTREAM.iter().map(|(key, without, added, text)| {
        let here = |text: &str| &*text.replace("DIR", &folder.display().to_string()).leak();
        (*key, *without, here(added), here(text))
    });
    let shown: Vec<(&str, &str, &str, &str)> = shown.collect();
    compare("upstream.NAME", &shown, &OMITTED_OF_UPSTREAM, |upstream| {
        TABLES.replace(ONE, upstream) + &format!("[[route]]\n{BASE}\n")
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_explanation_shows_every_key_of_cors() {
    compare("cors.NAME", OF_CORS, &[], |cors| {
        TABLES.replace("origins = [\"https://app.example.com\"]", cors)
            + &format!("[[route]]\n{BASE}\ncors = \"app\"\n")
    });
}
