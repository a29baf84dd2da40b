//! The policy's own tests: `[[test]]`.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, write_policy};
use crate::kit::{Portcullis, Request, Upstream, eventually, token};
use crate::policy;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

const ROUTES: &str = r#"
[[route]]
name = "orders"
path = "/orders/{id}"
upstream = "app"
roles = ["clerk"]
strip_prefix = "/orders"

[[route]]
name = "open"
path = "/{*rest}"
upstream = "app"
access = "public"
waive = { open_by_default = "the rest is a page for everybody" }
"#;

const GOOD: &str = r#"
[[test]]
name = "a clerk reads an order"
request = "GET https://api.example.com/orders/7?x=1"
headers = { Authorization-Hint = "none", X-Auth-Roles = "admin" }
claims = { sub = "u1", roles = ["clerk"] }
expect = { allow = true, route = "orders", path = "/7?x=1", headers = { X-Auth-Subject = "u1", X-Auth-Roles = "clerk", Authorization = "" } }

[[test]]
name = "a guest does not"
request = "GET https://api.example.com/orders/7"
claims = { sub = "u1", roles = ["guest"] }
expect = { deny = "insufficient_role", status = 403, route = "orders" }

[[test]]
name = "whoever reads the rest"
request = "GET https://api.example.com/"
expect = { allow = true, route = "open" }

[[test]]
name = "nobody does"
request = "https://api.example.com/orders/7"
expect = { allow = false }

[[test]]
name = "a token that was good then"
request = "GET https://api.example.com/orders/7"
time = "2020-01-01T00:00:10Z"
claims = { sub = "u1", roles = ["clerk"], exp = 1577836820 }
expect = { allow = true }

[[test]]
name = "and is not any more"
request = "GET https://api.example.com/orders/7"
claims = { sub = "u1", roles = ["clerk"], exp = 1577836820 }
expect = { deny = "expired_token" }
"#;

fn written(tests: &str) -> Dir {
    let dir = Dir::new();
    write_policy(&dir, &policy(&Upstream::start(), &format!("{ROUTES}{tests}")));
    dir
}

fn case(expect: &str) -> String {
    format!(
        "[[test]]\nname = \"t\"\nrequest = \"GET https://h/orders/7\"\nclaims = {{ sub = \"u1\", roles = [\"clerk\"] }}\nexpect = {expect}\n"
    )
}

fn check(tests: &str, format: &str) -> Finished {
    command(&written(tests), &["check", "--format", format])
}

#[test]
fn tests_that_hold_are_counted() {
    let reported = check(GOOD, "text");
    assert_eq!(reported.code, Some(0), "{}", reported.text());
    assert!(reported.stdout.contains("6 tests: 6 passed"), "{}", reported.stdout);
}

#[test]
fn each_difference_is_reported_with_the_expected_and_the_found_value() {
    for (expect, what, expected, found) in [
        (r#"{ allow = false }"#, "verdict", "deny with any code", "allow"),
        (r#"{ deny = "insufficient_role" }"#, "verdict", "deny \"insufficient_role\"", "allow"),
        (r#"{ status = 403 }"#, "status", "403", "the upstream's"),
        (r#"{ route = "open" }"#, "route", "\"open\"", "\"orders\""),
        (r#"{ path = "/8" }"#, "path", "\"/8\"", "\"/7\""),
        (r#"{ headers = { X-Auth-Subject = "u2" } }"#, "header x-auth-subject", "\"u2\"", "\"u1\""),
        (r#"{ headers = { X-Auth-Subject = "" } }"#, "x-auth-subject", "absent", "\"u1\""),
        (r#"{ headers = { X-Other = "1" } }"#, "x-other", "\"1\"", "absent"),
    ] {
        let reported = check(&case(expect), "text");
        assert_eq!(reported.code, Some(1), "{expect}: {}", reported.text());
        let diff = format!("{what}:\n    - {expected}\n    + {found}\n");
        for line in [&*diff, "  | verdict: passes"] {
            assert!(reported.stdout.contains(line), "{expect}: {line}\n{}", reported.stdout);
        }
        assert!(reported.stdout.contains("the test \"t\" fails"), "{}", reported.stdout);
        assert!(reported.stdout.contains("1 test: 0 passed, 1 failed"), "{}", reported.stdout);
    }
}

#[test]
fn a_token_in_a_test_is_verified() {
    let dir = written("");
    dir.write("token", token("u1").role("clerk").sign());
    dir.write("bad", token("u1").role("clerk").expired().sign());
    let test = |file: &str, expect: &str| {
        format!(
            "[[test]]\nname = \"{file}\"\nrequest = \"https://h/orders/7\"\ntoken = \"file:{file}\"\nexpect = {expect}\n"
        )
    };
    let tests = test("token", "{ allow = true }") + &test("bad", "{ deny = \"expired_token\" }");
    write_policy(&dir, &policy(&Upstream::start(), &format!("{ROUTES}{tests}")));
    let reported = command(&dir, &["check"]);
    assert_eq!(reported.code, Some(0), "{}", reported.text());
}

#[test]
fn a_token_is_not_shown_even_where_it_passes_on() {
    let dir = written("");
    let secret = token("u1").role("clerk").sign();
    dir.write("token", &secret);
    let test = "[identity]\nforward_token = true\n[[test]]\nname = \"t\"\nrequest = \"https://h/orders/7\"\n\
        token = \"file:token\"\nexpect = { headers = { Authorization = \"\" } }\n";
    write_policy(&dir, &policy(&Upstream::start(), &format!("{ROUTES}{test}")));
    for arguments in [&["check"][..], &["check", "--format", "json"], &["check", "--format", "tap"], &["run"]]
    {
        let reported = command(&dir, arguments);
        assert_eq!(reported.code, Some(1), "{}", reported.text());
        assert!(reported.text().contains("Bearer <the caller's token>"), "{}", reported.text());
        assert!(!reported.text().contains(&secret[..20]), "{}", reported.text());
    }
}

#[test]
fn many_failing_tests_are_all_listed_and_the_first_is_explained() {
    let tests: String =
        (0..25).map(|n| case("{ allow = false }").replace("\"t\"", &format!("\"t{n}\""))).collect();
    let dir = written(&tests);
    let reported = command(&dir, &["check"]);
    assert_eq!(reported.stdout.matches("fails:").count(), 25, "{}", reported.stdout);
    assert_eq!(reported.stdout.matches("  | verdict: passes").count(), 20, "{}", reported.stdout);
    let reported = command(&dir, &["run"]);
    assert_eq!(reported.stderr.matches("fails:").count(), 20, "{}", reported.stderr);
    assert!(reported.stderr.contains("5 more failed tests"), "{}", reported.stderr);
}

#[test]
fn a_policy_whose_tests_fail_is_not_served_unless_it_says_so() {
    let failing = case("{ allow = false }");
    let dir = written(&failing);
    let reported = command(&dir, &["run"]);
    assert_eq!(reported.code, Some(1), "{}", reported.text());
    assert!(reported.stderr.contains("the test \"t\" fails: verdict"), "{}", reported.stderr);

    let upstream = Upstream::start();
    let lenient = policy(&upstream, &format!("[policy]\ntests = \"warn\"\n{ROUTES}{failing}"));
    let gateway = Portcullis::with(&lenient).start();
    gateway.wait_log("the failing test", |line| {
        line["found"].as_str().is_some_and(|f| f.contains("the test \"t\" fails"))
    });
    Request::get("/x").to(gateway.http()).is(200);
    assert_eq!(command(gateway.dir(), &["check"]).code, Some(1), "check is for those who want to know");
}

#[test]
fn a_reload_whose_tests_fail_leaves_the_old_policy() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&policy(&upstream, ROUTES)).start();
    let open = ROUTES.replace("roles = [\"clerk\"]", "access = \"public\"");
    let guarded =
        case("{ allow = true }").replace("claims", "# claims").replace("allow = true", "allow = false");
    write_policy(gateway.dir(), &policy(&upstream, &format!("{open}{guarded}")));
    let answer = Request::new("POST", "/reload").host("localhost").to(gateway.admin());
    assert_eq!(answer.status, 422, "{answer:#?}");
    assert_eq!(answer.json()["diagnostics"][0]["id"], "failed_test");
    Request::get("/orders/7").to(gateway.http()).is_refusal(401, "missing_token");

    write_policy(gateway.dir(), &policy(&upstream, &open));
    Request::new("POST", "/reload").host("localhost").to(gateway.admin()).is(200);
    Request::get("/orders/7").to(gateway.http()).is(200);
    eventually("both are counted", || {
        let text = Request::get("/metrics").to(gateway.admin()).text();
        ["reloaded", "refused"].iter().all(|outcome| {
            text.contains(&format!("portcullis_policy_reloads_total{{outcome=\"{outcome}\"}} 1"))
        })
    });
}

/// Parses JUnit's XML. Returns the reported number of failures, the number of policy tests, and the number of failure
/// elements.
fn read_junit(xml: &str) -> (String, usize, usize) {
    let script = "import sys, xml.etree.ElementTree as E\nr = E.parse(sys.stdin).getroot()\n\
        print(r.get('failures'), len(r.findall('testsuite[@name=\"tests\"]/testcase')), len(r.findall('.//testcase/failure')))\n";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed for the tests");
    python.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let out = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
    let words: Vec<_> = out.split_whitespace().collect();
    let [said, cases, failures] = words[..] else { panic!("{out:?}\n{xml}") };
    (said.to_owned(), cases.parse().unwrap(), failures.parse().unwrap())
}

#[test]
fn results_are_written_as_junit_tap_and_json() {
    let hostile = case("{ allow = false }").replace("\"t\"", "\"a <b> & \\\"c\\\" \\u0001 # d\"");
    let tests = format!("{GOOD}{hostile}");
    let junit = check(&tests, "junit");
    assert_eq!(junit.code, Some(1));
    let (said, cases, failures) = read_junit(&junit.stdout);
    assert_eq!((said.as_str(), cases, failures), ("1", 7, 1), "{}", junit.stdout);

    // Findings precede the tests in the report. This test does not depend on their number.
    let tap = check(&tests, "tap").stdout;
    let plan =
        tap.strip_prefix("TAP version 14\n1..").and_then(|rest| rest.split('\n').next()).unwrap_or_default();
    let ended = |word: &str| tap.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((plan.parse(), ended("not ok ")), (Ok(ended("ok ") + ended("not ok ")), 1), "{tap}");
    assert!(tap.contains(&format!("\nnot ok {plan} - a <b> & \"c\"   \\# d\n  ---\n")), "{tap}");

    let json: Value = serde_json::from_str(&check(&tests, "json").stdout).unwrap();
    assert_eq!((&json["ok"], &json["tests"][6]["passed"]), (&false.into(), &false.into()));
    assert_eq!(json["tests"][6]["differences"][0]["expected"], "deny with any code");

    let faulty = check("[[test]]\nnam = 1\n", "junit");
    let (said, cases, failures) = read_junit(&faulty.stdout);
    assert!(said == failures.to_string() && cases == 0 && failures > 1, "{}", faulty.stdout);
    let faulty = check("[[test]]\nnam = 1\n", "tap").stdout;
    assert!(faulty.contains("\nnot ok 1 - the policy loads\n"), "{faulty}");
    // A report must contain a test, because an empty report may look like a lost one.
    let untested = check("", "junit").stdout;
    assert!(untested.contains("<testcase name=\"the policy loads\""), "{untested}");
    assert_eq!(read_junit(&untested).0, "0");
    assert_eq!(command(&Dir::new(), &["explain", "https://h/", "--format", "tap"]).code, Some(2));
}
