//! Findings of `check` for valid policies: `--strict` rejects them, and the policy can waive them.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, write_policy};
use crate::kit::{Portcullis, Upstream};
use crate::policy;
use serde_json::Value;

/// A policy with one weakness (`long_leeway`) and one piece of advice (`no_test`).
const WEAK: &str = r#"
[[issuer]]
issuer = "https://other.example.com/"
audience = ["app"]
algorithms = ["HS256"]
secret = "file:other.txt"
leeway = "5m"

[[route]]
name = "orders"
path = "/orders/{id}"
upstream = "app"
"#;

const SECRET: &str = "q7Vd0mY2cXk9Ru4LzTf1HsWb8JnPe5Ga";

const TEST: &str = r#"
[[test]]
name = "nobody reads an order"
request = "GET https://api.example.com/orders/7"
expect = { deny = "missing_token" }
"#;

fn written(tables: &str, secret: &str) -> Dir {
    let dir = Dir::new();
    dir.write("other.txt", secret);
    write_policy(&dir, &policy(&Upstream::start(), tables));
    dir
}

fn check(tables: &str, options: &[&str]) -> Finished {
    command(&written(tables, SECRET), &[&["check"], options].concat())
}

fn json(run: &Finished) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Returns the ids in a list of findings, sorted.
fn ids(list: &Value) -> Vec<&str> {
    let mut ids: Vec<_> =
        list.as_array().unwrap().iter().map(|found| found["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn of<'l>(list: &'l Value, id: &str) -> &'l Value {
    list.as_array().unwrap().iter().find(|found| found["id"] == id).unwrap_or_else(|| panic!("{id}: {list}"))
}

/// Returns a `[policy]` table with these waivers.
fn waiving(waivers: &str) -> String {
    format!("[policy]\nwaive = {{ {waivers} }}\n")
}

#[test]
fn findings_fail_a_strict_check_and_no_other() {
    let lax = check(WEAK, &[]);
    assert_eq!(lax.code, Some(0), "{lax:?}");
    let strict = check(WEAK, &["--strict"]);
    assert_eq!(strict.code, Some(1), "{strict:?}");
    let mended = format!("{}{TEST}", WEAK.replace("5m", "30s"));
    let mended = check(&mended, &["--strict"]);
    assert_eq!(mended.code, Some(0), "{mended:?}");
}

#[test]
fn each_finding_is_one_line_that_ends_with_where_it_is_explained() {
    let check = check(WEAK, &[]);
    for id in ["long_leeway", "no_test"] {
        let anchor = format!("[portcullis help {id}]");
        let lines: Vec<_> = check.stdout.lines().filter(|line| line.contains(&anchor)).collect();
        assert_eq!(lines.len(), 1, "{check:?}");
        assert!(lines[0].starts_with("gateway.toml:") && lines[0].ends_with(&anchor), "{}", lines[0]);
    }
    let report = json(&self::check(WEAK, &["--format", "json"]));
    assert_eq!(ids(&report["diagnostics"]), ["long_leeway", "no_test"]);
    assert_eq!(of(&report["diagnostics"], "long_leeway")["docs"], "docs/findings.md#long_leeway");
    assert_eq!(report["waived"], Value::Array(Vec::new()));
}

#[test]
fn a_finding_waived_with_a_reason_is_listed_and_fails_nothing() {
    let waivers = "long_leeway = \"their clock is off until May\", no_test = \"tested elsewhere\"";
    let tables = format!("{}{WEAK}", waiving(waivers));
    let strict = check(&tables, &["--strict"]);
    assert_eq!(strict.code, Some(0), "{strict:?}");
    assert!(strict.stdout.contains("2 waived"), "{strict:?}");
    assert!(!strict.stdout.contains("long_leeway"), "{strict:?}");
    let report = json(&check(&tables, &["--strict", "--format", "json"]));
    assert_eq!(ids(&report["waived"]), ["long_leeway", "no_test"]);
    assert_eq!(of(&report["waived"], "long_leeway")["reason"], "their clock is off until May");
    assert_eq!(report["diagnostics"], Value::Array(Vec::new()));
}

#[test]
fn a_route_waives_for_itself_and_not_for_its_neighbour() {
    let two = format!(
        "{WEAK}waive = {{ no_test = \"not yet\" }}\n[[route]]\nname = \"x\"\npath = \"/x\"\nupstream = \"app\"\n{TEST}"
    )
    .replace("5m", "30s");
    // The test covers the first route, so its waiver is unused. The second route has no waiver.
    let report = json(&check(&two, &["--format", "json"]));
    assert_eq!(ids(&report["diagnostics"]), ["no_test", "unused_waiver"], "{report}");
    let (own, _) = two.split_once("[[test]]").unwrap();
    let report = json(&check(
        &own.replace("\"x\"\n", "\"x\"\nwaive = { no_test = \"nor this\" }\n"),
        &["--format", "json"],
    ));
    // Without any test, there is one finding for the whole policy. A route cannot waive it.
    assert!(ids(&report["diagnostics"]).contains(&"no_test"), "{report}");
}

#[test]
fn a_waiver_without_reason_or_of_no_finding_or_of_a_fault_is_a_fault() {
    for (waiver, id, reported) in [
        ("no_test = \"\"", "bad_value", "no reason"),
        ("no_tset = \"x\"", "unknown_name", "\"no_test\""),
        ("no_audience = \"x\"", "unknown_name", "cannot be waived"),
    ] {
        let run = check(&format!("{}{WEAK}", waiving(waiver)), &[]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.text().contains(reported) && run.text().contains(&format!("help {id}]")), "{run:?}");
    }
}

#[test]
fn a_fault_stays_one_whatever_is_waived() {
    let waivers = "long_leeway = \"x\", no_test = \"x\"";
    let tables = format!("{}{}", waiving(waivers), WEAK.replace("\"app\"]", "\"app\"]\ntypo = 1"));
    let run = check(&tables, &["--format", "json"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(ids(&json(&run)["diagnostics"]), ["unknown_key"], "{run:?}");
}

#[test]
fn a_start_logs_weaknesses_but_neither_advice_nor_accepted_findings() {
    let upstream = Upstream::start();
    let start = |tables: &str| {
        let gateway = Portcullis::with(&policy(&upstream, tables)).file("other.txt", SECRET).start();
        gateway.stop()
    };
    let log = start(WEAK);
    let reported: Vec<_> = log.lines().filter(|line| line.contains("policy warning")).collect();
    assert_eq!(reported.len(), 1, "{log}");
    assert!(reported[0].contains("portcullis help long_leeway"), "{log}");
    let log = start(&format!("{}{WEAK}", waiving("long_leeway = \"their clock\"")));
    assert!(!log.contains("policy warning"), "{log}");
}

#[test]
fn a_secret_of_examples_is_refused_and_never_shown() {
    let dir = written(WEAK, "changeme-changeme-changeme-changeme");
    let run = command(&dir, &["check"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.text().contains("help weak_secret]") && !run.text().contains("changeme"), "{run:?}");
    let run = command(&written(WEAK, "0123456789abcdef0123456789abcdef"), &["check"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.text().contains("help guessable_secret]") && !run.text().contains("0123456789"), "{run:?}");
}
