use super::*;
use crate::keyring::MissingKey;
use crate::policy::Compiled;

const ROUTES: &str = r#"
[identity]
claims = { "X-Auth-Tenant" = "tenant" }
[[route]]
name = "orders"
path = "/orders/{id}"
upstream = "echo"
roles = ["clerk"]
strip_prefix = "/orders"
[[route]]
name = "watched"
path = "/watched"
upstream = "echo"
roles = ["clerk"]
mode = "shadow"
[[route]]
name = "open"
path = "/open"
upstream = "echo"
access = "public"
"#;

fn compiled(tests: &str) -> Result<Compiled, Vec<Diagnostic>> {
    let text = format!(
        "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
         secret = \"0123456789abcdef0123456789abcdef\"\n[upstream.echo]\nbuiltin = \"echo\"\n{ROUTES}{tests}"
    );
    let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new());
    crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral)
}

/// Runs a test of the policy with `SHAPED`.
#[track_caller]
fn shaped(request: &str, rest: &str, expect: &str) -> String {
    let test =
        format!("{SHAPED}[[test]]\nname = \"t\"\nrequest = \"{request}\"\n{rest}\nexpect = {{ {expect} }}\n");
    let compiled = compiled(&test).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let examiner = Examiner::new(&compiled.policy);
    let failure = TestFailure::of(&compiled.cases[0], &examiner, Now::read());
    failure.map(|failure| failure.to_string()).unwrap_or_default()
}

#[test]
fn the_handling_of_a_request_and_of_its_answer_can_be_expected() {
    let gzip = "headers = { Accept-Encoding = \"gzip\" }";
    let get = "GET https://h/shaped";
    for (request, rest, right, wrong, expected) in [
        (get, "", "mirror = \"test\"", "mirror = \"\"", "mirror: expected none, found \"test\""),
        (
            "POST https://h/shaped",
            "",
            "mirror = \"\"",
            "mirror = \"test\"",
            "mirror: expected \"test\", found none",
        ),
        (get, gzip, "compress = \"gzip\"", "compress = \"\"", "compress: expected none, found \"gzip\""),
        (get, "", "compress = \"\"", "compress = \"zstd\"", "compress: expected \"zstd\", found none"),
        (
            get,
            "headers = { Accept-Encoding = \"gzip\", Cookie = \"a=b\" }",
            "compress = \"\"",
            "compress = \"gzip\"",
            "compress: expected \"gzip\", found none",
        ),
        (get, "", "upstream_tls = true", "upstream_tls = false", "upstream_tls: expected false, found true"),
        (
            "GET https://h/open",
            "",
            "upstream_tls = false",
            "upstream_tls = true",
            "upstream_tls: expected true, found false",
        ),
        (
            get,
            "",
            "response_headers = { Cache-Control = \"private\" }",
            "response_headers = { Cache-Control = \"\" }",
            "response header cache-control: expected absent, found \"private\"",
        ),
        (
            get,
            "",
            "response_headers = { Server = \"\" }",
            "response_headers = { Server = \"x\" }",
            "response header server: expected \"x\", found absent",
        ),
        (
            get,
            "",
            "response_headers = { Vary = \"X-Tenant\" }",
            "response_headers = { Vary = \"\" }",
            "response header vary: expected absent, found \"<the upstream's>\" and \"X-Tenant\"",
        ),
        (
            get,
            "",
            "response_headers = { X-Frame-Options = \"SAMEORIGIN\" }",
            "response_headers = { X-Powered-By = \"\" }",
            "response header x-powered-by: expected absent, found \"<the upstream's>\"",
        ),
        (
            "GET https://h/old/a?q=1",
            "",
            "redirect = \"https://new.example.com/a?q=1\", status = 302",
            "redirect = \"https://new.example.com/b\"",
            "redirect: expected \"https://new.example.com/b\", found \"https://new.example.com/a?q=1\"",
        ),
        (
            "GET https://h/open",
            "",
            "allow = true",
            "redirect = \"/\"",
            "redirect: expected \"/\", found none",
        ),
        (
            "GET https://h/open",
            "",
            "maintenance = false",
            "maintenance = true",
            "maintenance: expected true, found false",
        ),
        (
            "GET https://h/live",
            CLERK,
            "allow = true, maintenance = true, streams = \"open\"",
            "streams = \"expiry\"",
            "streams: expected expiry, found open",
        ),
        (
            get,
            "",
            "client_certificate = \"none\"",
            "client_certificate = \"required\"",
            "client_certificate: expected required, found none",
        ),
    ] {
        assert_eq!(shaped(request, rest, right), "", "{request} {rest}");
        assert_eq!(shaped(request, rest, wrong), expected, "{request} {rest}");
    }
}

const SHAPED: &str = r#"
[upstream.test]
servers = ["http://127.0.0.1:9"]
[upstream.tls]
servers = ["https://10.0.0.1"]
[[route]]
name = "shaped"
path = "/shaped"
upstream = "tls"
mirror = "test"
mirror_percent = 10
access = "public"
compress = ["zstd", "gzip"]
set_response_headers = { "Cache-Control" = "private" }
add_response_headers = { "Vary" = "X-Tenant" }
remove_response_headers = ["Server"]
security_headers = "add"
[[route]]
name = "old"
path = "/old/{*rest}"
redirect = "https://new.example.com/{*rest}"
redirect_status = 302
access = "public"
[[route]]
name = "live"
path = "/live"
upstream = "echo"
streams = "open"
maintenance = "10m"
"#;

const CLERK: &str = "claims = { sub = \"u1\", roles = [\"clerk\"], tenant = \"acme\" }";

/// Runs a test and returns the differences on one line. Empty if the test passes.
#[track_caller]
fn ended(request: &str, rest: &str, expect: &str) -> String {
    let test = format!("[[test]]\nname = \"t\"\nrequest = \"{request}\"\n{rest}\nexpect = {{ {expect} }}\n");
    let compiled = compiled(&test).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let examiner = Examiner::new(&compiled.policy);
    let failure = TestFailure::of(&compiled.cases[0], &examiner, Now::read());
    failure.map(|failure| failure.to_string()).unwrap_or_default()
}

#[test]
fn each_unmet_expectation_is_reported_and_no_met_one() {
    let orders = "GET https://h/orders/7?q=1";
    for (request, rest, right, wrong, expected) in [
        (orders, CLERK, "allow = true", "allow = false", "verdict: expected deny with any code, found allow"),
        (
            orders,
            "",
            "allow = false",
            "allow = true",
            "verdict: expected allow, found deny \"missing_token\"",
        ),
        (
            orders,
            "claims = { sub = \"u1\" }",
            "deny = \"insufficient_role\"",
            "deny = \"insufficient_scope\"",
            "verdict: expected deny \"insufficient_scope\", found deny \"insufficient_role\" (the route asks for any role \
             of clerk; the caller's roles: [] (the claim is missing))",
        ),
        (orders, "", "status = 401", "status = 403", "status: expected 403, found 401"),
        (orders, CLERK, "allow = true", "status = 403", "status: expected 403, found the upstream's"),
        (orders, "", "route = \"orders\"", "route = \"open\"", "route: expected \"open\", found \"orders\""),
        (
            "https://h/nowhere",
            "",
            "deny = \"no_route\"",
            "route = \"open\"",
            "route: expected \"open\", found none",
        ),
        (
            orders,
            CLERK,
            "path = \"/7?q=1\"",
            "path = \"/orders/7\"",
            "path: expected \"/orders/7\", found \"/7?q=1\"",
        ),
        (
            orders,
            CLERK,
            "headers = { \"X-Auth-Tenant\" = \"acme\" }",
            "headers = { \"X-Auth-Tenant\" = \"other\" }",
            "header x-auth-tenant: expected \"other\", found \"acme\"",
        ),
        (
            orders,
            CLERK,
            "headers = { Authorization = \"\" }",
            "headers = { \"X-Auth-Subject\" = \"\" }",
            "header x-auth-subject: expected absent, found \"u1\"",
        ),
        (
            "https://h/open",
            "headers = { \"X-Auth-Subject\" = \"root\" }",
            "headers = { \"x-auth-subject\" = \"\" }",
            "headers = { \"x-auth-subject\" = \"root\" }",
            "header x-auth-subject: expected \"root\", found absent",
        ),
    ] {
        assert_eq!(ended(request, rest, right), "", "{request} {rest}");
        assert_eq!(ended(request, rest, wrong), expected, "{request} {rest}");
    }
}

#[test]
fn expected_upstream_fields_need_an_allowed_request() {
    let expected =
        ended("https://h/orders/7", "", "path = \"/7\", headers = { \"X-Auth-Subject\" = \"u1\" }");
    assert_eq!(expected, "verdict: expected allow, found deny \"missing_token\"");
}

#[test]
fn a_refusal_in_the_shadow_is_a_refusal() {
    let watched = "https://h/watched";
    assert_eq!(ended(watched, "", "deny = \"missing_token\""), "");
    for expect in ["allow = true", "path = \"/watched\"", "headers = { Authorization = \"\" }"] {
        let expected = "verdict: expected allow, found deny \"missing_token\", allowed by shadow mode";
        assert_eq!(ended(watched, "", expect), expected);
    }
    assert_eq!(ended(watched, CLERK, "allow = true, path = \"/watched\""), "");
}

#[test]
fn a_test_is_made_at_its_own_time_or_else_now() {
    let at = |time: &str, claims: &str| {
        let rest = format!("claims = {{ sub = \"u1\", roles = [\"clerk\"], {claims} }}\n{time}");
        ended("https://h/orders/7", &rest, "deny = \"expired_token\"").is_empty()
    };
    let of_1970 = "time = \"1970-01-01T00:20:00Z\"";
    assert!(at("", "exp = 2000"), "now is later");
    assert!(!at(of_1970, "exp = 2000"));
    assert!(at(of_1970, "exp = 1000"));
}

#[test]
fn as_many_are_explained_as_were_asked_for_and_the_rest_is_counted() {
    let test = |n: usize| {
        format!(
            "[[test]]\nname = \"t{n}\"\nrequest = \"https://h/open\"\nexpect = {{ allow = {} }}\n",
            n.is_multiple_of(2)
        )
    };
    let compiled = compiled(&(0..44).map(test).collect::<String>()).unwrap();
    let tried = run(&compiled.policy, compiled.cases.clone(), Now::read(), 3);
    let failed: Vec<_> = tried.iter().filter_map(|tried| tried.failed.as_ref()).collect();
    let explained = failed.iter().filter(|failure| failure.explanation.is_some());
    assert_eq!((failed.len(), explained.count()), (22, 3));
    let findings = failures(&compiled.policy, &compiled.cases, Severity::Fault, Now::read());
    assert_eq!(findings.len(), REPORTED_MAX + 1);
    assert_eq!((&*findings[0].key, findings[0].place.order()), ("test[1]", compiled.cases[1].place.order()));
    assert_eq!(findings.last().unwrap().found, "2 more failed tests");
}
