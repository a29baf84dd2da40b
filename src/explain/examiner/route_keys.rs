//! Tests that an explanation shows the effect of every key of `[[route]]`, or that the key is listed as omitted.

use super::super::explain;
use crate::keyring::MissingKey;
use crate::policy::Question;
use serde_json::json;
use std::collections::BTreeSet;

const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// Keys that do not affect the handling of a request.
const OMITTED: [(&str, &str); 1] = [("waive", "it accepts findings of `check`")];

const TABLES: &str = r#"
[authority]
issuer = "https://id.example.com"
audience = ["orders"]
cookies = true
[identity]
claims = { "X-Auth-Tenant" = "tenant" }
[upstream.app]
servers = ["http://127.0.0.1:9"]
[upstream.other]
servers = ["http://127.0.0.1:10"]
[rate_limit.slow]
by = "client_ip"
rate = "1/s"
[rule.staff]
roles = ["staff"]
[cors.app]
origins = ["https://app.example.com"]
"#;

/// The keys of a route whose effect is shown by itself.
const BASE: &str = "path = \"/a/{id}\"\nupstream = \"app\"";
/// `BASE` for callers without a token.
const OPEN: &str = "path = \"/a/{id}\"\nupstream = \"app\"\naccess = \"public\"";

/// A key, the route without it, what replaces the route or is added to it, and the text that appears in the explanation.
/// A text after `!` disappears. `=` begins a whole route.
const SHOWN: &[(&str, &str, &str, &str)] = &[
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

fn explained(route: &str) -> String {
    let text = format!("{TABLES}[[route]]\n{route}\n");
    let loaded =
        crate::config::load_text("gateway.toml", text, env!("CARGO_MANIFEST_DIR").into(), Vec::new());
    let compiled = crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral);
    let policy = compiled.unwrap_or_else(|faults| panic!("{route}: {faults:#?}")).policy;
    let mut question = Question::parse("GET https://h.test/a/7").unwrap();
    for (name, value) in [("X-Api-Version", "2"), ("Accept-Encoding", "gzip")] {
        question = question.header(name, value).unwrap();
    }
    let claims = json!({ "sub": "ada", "roles": ["clerk"], "scope": "s", "tenant": "acme" });
    explain(&policy, &question.claims(claims.as_object().cloned().unwrap())).to_string()
}

#[test]
fn an_explanation_shows_every_key_of_a_route() {
    let documented = REFERENCE.split("\n### `route.").skip(1).filter_map(|section| section.split('`').next());
    let documented: BTreeSet<&str> = documented.collect();
    assert!(documented.len() > 50, "{documented:?}");
    let tested = SHOWN.iter().map(|(key, ..)| *key).chain(OMITTED.map(|(key, _)| key));
    let tested: BTreeSet<&str> = tested.collect();
    assert_eq!(documented, tested, "a key is neither shown nor listed as omitted, or does not exist");

    for (key, without, added, text) in SHOWN {
        let with = match added.strip_prefix('=') {
            Some(whole) => whole.to_owned(),
            None => format!("{without}\n{added}"),
        };
        let last = key.rsplit('.').next().unwrap_or_default();
        assert!(with.contains(&format!("{last} = ")), "{key} is in its own row");
        let (before, after) = (explained(without), explained(&with));
        let (absent_in, present_in, text) = match text.strip_prefix('!') {
            Some(text) => (&after, &before, text),
            None => (&before, &after, *text),
        };
        assert!(present_in.contains(text), "{key}: {text}\n{present_in}");
        assert!(!absent_in.contains(text), "{key}: {text}\n{absent_in}");
    }
}
