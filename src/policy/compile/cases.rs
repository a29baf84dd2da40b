//! Compiles `[[test]]`: a request and its expected outcome.

use super::Faults;
use super::shaping::answer_name;
use crate::authenticate::IdentityHeaders;
use crate::clock::Now;
use crate::config::file::{CertificateDemand, ExpectSection, File, Streams, TestSection};
use crate::config::place::nearest;
use crate::denial::Denial;
use crate::policy::{Case, Expectation, ExpectedVerdict, Question, Route};
use crate::respond::coding::Coding;
use crate::timestamp::parse_rfc3339;
use http::HeaderName;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Compiles the tests of the file.
pub(super) fn compile(
    file: &File,
    routes: &[Route],
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Vec<Case> {
    // Includes routes with faults. Otherwise, such a route would also be reported as missing.
    let of_file =
        file.route.iter().map(|route| if route.name.is_empty() { &*route.path } else { &*route.name });
    let routes: BTreeSet<&str> = of_file.chain(routes.iter().map(|route| &*route.name)).collect();
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut cases = Vec::new();
    for (index, table) in file.test.iter().enumerate() {
        let key = format!("test[{index}]");
        let name_key = format!("{key}.name");
        if table.name.is_empty() {
            faults.fault("missing_key", &name_key, "nothing", "name = \"a clerk reads an order\"");
        } else if let Some(first) = names.insert(&table.name, index) {
            let there = faults.place_of(&format!("test[{first}]"));
            let found = format!("\"{}\" is also the name of the test at {there}", table.name);
            faults.fault("same_name", &name_key, found, "a unique name: it identifies a failed test");
        }
        let before = faults.found.len();
        let question = question(&key, table, faults);
        let expected = expected(&key, table, file, &routes, identity, faults);
        if faults.found.len() == before
            && let Some(question) = question
        {
            let place = faults.loaded.places.of(&key);
            cases.push(Case {
                name: table.name.clone(),
                key,
                place,
                question,
                now: table.time.is_none(),
                expected,
            });
        }
    }
    cases
}

fn question(key: &str, table: &TestSection, faults: &mut Faults<'_>) -> Option<Question> {
    let at = |name: &str| format!("{key}.{name}");
    let mut question = match Question::parse(&table.request) {
        Ok(question) => question,
        Err(why) => {
            faults.fault("bad_value", &at("request"), why, "\"GET https://api.example.com/orders/7\"");
            return None;
        }
    };
    for (name, value) in &table.headers {
        match question.clone().header(name, value) {
            Ok(more) => question = more,
            Err(why) => {
                faults.fault("bad_header", &at("headers"), why, "for example { Accept = \"text/html\" }")
            }
        }
    }
    match (&table.claims, &table.token) {
        (Some(_), Some(_)) => {
            let hint = "keep one of the two: claims stand for a verified token";
            faults.fault("bad_value", &at("token"), "both token and claims are set", hint);
        }
        (Some(claims), None) => question = question.claims(claims.clone()),
        (None, Some(token)) => match faults.secret(token).map(String::from_utf8) {
            Ok(Ok(token)) => question = question.token(token.trim().to_owned()),
            Ok(Err(_)) => faults.fault("no_secret", &at("token"), "not text", "a JWT"),
            Err(why) => {
                let hint = "\"env:NAME\" for a variable that is set, or \"file:PATH\" for a readable file";
                faults.fault("no_secret", &at("token"), why, hint);
            }
        },
        (None, None) => {}
    }
    if let Some(time) = &table.time {
        match parse_rfc3339(time) {
            Some(unix) => question = question.at(Now::at(unix)),
            None => {
                let hint = "a date and time such as \"2026-11-23T12:00:00Z\" (RFC 3339)";
                faults.fault("bad_value", &at("time"), format!("\"{time}\""), hint);
            }
        }
    }
    if let Some(client) = &table.client {
        match client.parse() {
            Ok(client) => question = question.client(client),
            Err(_) => {
                let hint = "an IP address such as \"203.0.113.7\" or \"2001:db8::7\"";
                faults.fault("bad_value", &at("client"), format!("\"{client}\""), hint);
            }
        }
    }
    Some(question)
}

fn expected(
    key: &str,
    table: &TestSection,
    file: &File,
    routes: &BTreeSet<&str>,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Expectation {
    let at = |name: &str| format!("{key}.expect.{name}");
    let expect = &table.expect;
    let refusal = expect.deny.as_deref().and_then(|code| refusal(&at("deny"), code, faults));
    let verdict = match (expect.allow, &expect.deny) {
        (Some(true), Some(_)) => {
            faults.fault(
                "bad_value",
                &at("deny"),
                "both deny and allow = true are set",
                "keep one of the two",
            );
            None
        }
        (Some(true), None) => Some(ExpectedVerdict::Allow),
        (Some(false), None) => Some(ExpectedVerdict::Deny),
        (Some(false) | None, Some(_)) => {
            refusal.as_ref().map(|refusal| ExpectedVerdict::DenyWith(refusal.code()))
        }
        (None, None) => None,
    };
    let expected = Expectation {
        verdict,
        status: expect.status,
        route: expect.route.clone(),
        upstream: expect.upstream.clone(),
        path: expect.path.clone(),
        headers: headers(&at("headers"), &expect.headers, faults),
        response_headers: response_headers(
            &at("response_headers"),
            &expect.response_headers,
            identity,
            faults,
        ),
        redirect: expect.redirect.clone(),
        mirror: expect.mirror.clone(),
        compress: expect.compress.clone(),
        streams: expect.streams.map(|streams| match streams {
            Streams::Expiry => "expiry",
            Streams::Open => "open",
        }),
        server: expect.server.clone(),
        timeout: expect.timeout.map(|timeout| timeout.to_string()),
        silence: expect.silence.map(|silence| silence.to_string()),
        retry: expect.retry,
        trailers: trailers(&at("trailers"), expect.trailers.as_deref(), faults),
        upstream_tls: expect.upstream_tls,
        client_certificate: expect.client_certificate.map(|demand| match demand {
            CertificateDemand::Required => "required",
            CertificateDemand::Optional => "optional",
            CertificateDemand::None => "none",
        }),
        cors: expect.cors,
        rate_limits: expect.rate_limits.clone(),
        maintenance: expect.maintenance,
    };
    if expected.cors.is_some() && !table.headers.keys().any(|name| name.eq_ignore_ascii_case("origin")) {
        let hint = "headers = { Origin = \"https://app.example.com\" }";
        faults.fault("impossible_test", &at("cors"), "a request without an origin", hint);
    }
    let limits = || file.rate_limit.keys().map(String::as_str);
    for limit in expected.rate_limits.iter().flatten() {
        if !limits().any(|known| known == limit) {
            faults.undefined(&at("rate_limits"), "rate_limit", limit, limits());
        }
    }
    // Invalid expectations have their own faults.
    if !expected.is_any() && *expect == ExpectSection::default() {
        let hint = "expect = { allow = true } or { deny = \"insufficient_role\" }";
        faults.fault("missing_key", &format!("{key}.expect"), "no expectation", hint);
    }
    if expected.is_of_allowed() && !matches!(verdict, None | Some(ExpectedVerdict::Allow)) {
        let hint = "expect either a refusal, or what happens to an allowed request: a refused request is not forwarded";
        faults.fault(
            "impossible_test",
            &format!("{key}.expect"),
            "both a refusal and the handling of an allowed request are expected",
            hint,
        );
    }
    if let (Some(status), Some(refusal)) = (expect.status, &refusal)
        && refusal.status().as_u16() != status
    {
        let hint = format!("{}, the status of {}", refusal.status().as_u16(), refusal.code());
        faults.fault("impossible_test", &at("status"), status.to_string(), hint);
    }
    let is_redirect = |status| {
        file.route
            .iter()
            .any(|route| route.redirect.is_some() && route.redirect_status.unwrap_or(308) == status)
    };
    if let Some(status) = expect.status
        && (verdict == Some(ExpectedVerdict::Allow) || expected.is_of_allowed())
        && !is_redirect(status)
    {
        let hint = "remove status: the upstream chooses the status of an allowed request";
        let found =
            format!("{status}, although the request is expected to pass and no route redirects with it");
        faults.fault("impossible_test", &at("status"), found, hint);
    }
    if let Some(route) = &expect.route
        && !routes.contains(route.as_str())
    {
        faults.undefined(&at("route"), "route", route, routes.iter().copied());
    }
    // These routes have no upstream, and an explanation gives them these names.
    let without = [
        ("files", file.route.iter().any(|route| !route.files.is_empty())),
        ("redirect", file.route.iter().any(|route| route.redirect.is_some())),
    ];
    let without = || without.into_iter().filter(|(_, is_used)| *is_used).map(|(name, _)| name);
    if let Some(upstream) = &expect.upstream
        && !file.upstream.contains_key(upstream)
        && !without().any(|name| name == upstream)
    {
        let defined = file.upstream.keys().map(String::as_str).chain(without());
        faults.undefined(&at("upstream"), "upstream", upstream, defined);
    }
    if let Some(mirror) = expect.mirror.as_ref().filter(|mirror| !mirror.is_empty())
        && !file.upstream.contains_key(mirror)
    {
        faults.undefined(&at("mirror"), "upstream", mirror, file.upstream.keys().map(String::as_str));
    }
    if let Some(coding) = expect.compress.as_ref().filter(|coding| !coding.is_empty())
        && !Coding::ALL.iter().any(|known| known.as_str() == coding)
    {
        let hint = "\"zstd\", \"br\" or \"gzip\"; \"\" for an answer that is not compressed";
        faults.fault("bad_value", &at("compress"), format!("\"{coding}\""), hint);
    }
    expected
}

fn headers(at: &str, table: &BTreeMap<String, String>, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in table {
        match name.parse::<HeaderName>() {
            Ok(name) => headers.push((name.as_str().to_owned(), value.clone())),
            Err(_) => {
                let hint = "for example \"X-Auth-Subject\"";
                faults.fault("bad_header", at, format!("\"{name}\" is not a header name"), hint);
            }
        }
    }
    headers
}

/// Compiles the names of the expected trailers.
fn trailers(at: &str, names: Option<&[String]>, faults: &mut Faults<'_>) -> Option<Vec<String>> {
    let name = |name: &String| match name.parse::<HeaderName>() {
        Ok(name) => Some(name.as_str().to_owned()),
        Err(_) => {
            faults.fault(
                "bad_header",
                at,
                format!("\"{name}\" is not a field name"),
                "for example \"X-Checksum\"",
            );
            None
        }
    };
    Some(names?.iter().filter_map(name).collect())
}

/// Compiles the expected fields of answers. A field that no route can change is a fault, since the test would say
/// nothing about what the client receives.
fn response_headers(
    at: &str,
    table: &BTreeMap<String, String>,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Vec<(HeaderName, String)> {
    let name =
        |text: &str, faults: &mut Faults<'_>| answer_name(&format!("{at}.{text}"), text, identity, faults);
    table.iter().filter_map(|(text, value)| Some((name(text, faults)?, value.clone()))).collect()
}

/// Returns the denial with this code. Reports a fault if the code is unknown or cannot occur in a test.
fn refusal(key: &str, code: &str, faults: &mut Faults<'_>) -> Option<Denial> {
    let all = Denial::every();
    let Some(denial) = all.iter().find(|denial| denial.code() == code) else {
        let codes: Vec<&str> = all.iter().map(Denial::code).collect();
        let near =
            nearest(code, &codes).map(|near| format!("the nearest is \"{near}\"; ")).unwrap_or_default();
        let hint = format!("{near}`portcullis help refusals` lists the codes");
        faults.fault("unknown_name", key, format!("unknown refusal code \"{code}\""), hint);
        return None;
    };
    if !denial.spec().from_policy {
        let hint = "a code of the route, the token or the rule: tests charge no limits and forward nothing";
        faults.fault("impossible_test", key, format!("\"{code}\", which cannot occur in a test"), hint);
        return None;
    }
    Some(denial.clone())
}

#[cfg(test)]
mod tests {
    use crate::diagnostic::Severity;
    use crate::keyring::MissingKey;

    /// Returns the faults of a policy with this test, on one line.
    fn fault(test: &str) -> String {
        let text = format!(
            "[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\nname = \"open\"\npath = \"/open\"\nupstream = \"echo\"\n\
             access = \"public\"\n[[test]]\nname = \"t\"\n{test}\n"
        );
        let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new());
        let found = crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral).err().unwrap_or_default();
        let faults = found.iter().filter(|found| found.severity == Severity::Fault);
        faults.map(|fault| format!("{}: {} ({})", fault.key, fault.found, fault.hint)).collect()
    }

    #[test]
    fn an_invalid_test_is_a_fault_with_a_correction() {
        let of = |expect: &str| fault(&format!("request = \"https://h/open\"\nexpect = {{ {expect} }}"));
        let with =
            |rest: &str| fault(&format!("request = \"https://h/open\"\nexpect = {{ allow = true }}\n{rest}"));
        for (fault, key, says) in [
            (fault("request = \"/open\"\nexpect = { allow = true }"), "test[0].request", "not a URL"),
            (of(""), "test[0].expect", "no expectation"),
            (of("allow = true, deny = \"no_route\""), "test[0].expect.deny", "both deny"),
            (
                of("deny = \"insufficent_role\""),
                "test[0].expect.deny",
                "the nearest is \"insufficient_role\"",
            ),
            (of("deny = \"rate_limited\""), "test[0].expect.deny", "cannot occur"),
            (of("route = \"opn\""), "test[0].expect.route", "the nearest is \"open\""),
            (of("deny = \"no_route\", status = 403"), "test[0].expect.status", "404, the status of no_route"),
            (of("allow = true, status = 200"), "test[0].expect.status", "remove status"),
            (of("deny = \"no_route\", path = \"/\""), "test[0].expect", "not forwarded"),
            (of("headers = { \"a b\" = \"\" }"), "test[0].expect.headers", "not a header name"),
            (of("mirror = \"eco\""), "test[0].expect.mirror", "the nearest is \"echo\""),
            (of("compress = \"deflate\""), "test[0].expect.compress", "\"br\" or \"gzip\""),
            (of("deny = \"no_route\", mirror = \"\""), "test[0].expect", "both a refusal"),
            (of("deny = \"no_route\", timeout = \"1s\""), "test[0].expect", "both a refusal"),
            (of("deny = \"no_route\", retry = true"), "test[0].expect", "both a refusal"),
            (of("deny = \"no_route\", trailers = []"), "test[0].expect", "both a refusal"),
            (of("trailers = \"a b\""), "test[0].expect.trailers", "not a field name"),
            (of("cors = true"), "test[0].expect.cors", "Origin = "),
            (of("rate_limits = \"per-user\""), "test[0].expect.rate_limits", "per-user"),
            (of("redirect = \"/\", status = 308"), "test[0].expect.status", "no route redirects"),
            (
                of("response_headers = { \"Strict-Transport-Security\" = \"\" }"),
                "test[0].expect.response_headers.Strict-Transport-Security",
                "[tls] hsts",
            ),
            (
                with("claims = { sub = \"u\" }\ntoken = \"t\""),
                "test[0].token",
                "both token and claims are set",
            ),
            (with("token = \"env:PORTCULLIS_NO_SUCH\""), "test[0].token", "PORTCULLIS_NO_SUCH"),
            (with("time = \"noon\""), "test[0].time", "RFC 3339"),
            (with("client = \"nobody\""), "test[0].client", "203.0.113.7"),
            (with("headers = { \"a b\" = \"\" }"), "test[0].headers", "a b"),
            (
                with("[[test]]\nname = \"t\"\nrequest = \"https://h/open\"\nexpect = { allow = true }"),
                "test[1].name",
                "also the name of the test at gateway.toml:8:1",
            ),
            (
                with("[[test]]\nrequest = \"https://h/open\"\nexpect = { allow = true }"),
                "test[1].name",
                "name = ",
            ),
        ] {
            assert!(fault.starts_with(&format!("{key}: ")) && fault.contains(says), "{key}, {says}: {fault}");
        }
        assert_eq!(of("allow = false, deny = \"no_route\", status = 404"), "");
    }
}
