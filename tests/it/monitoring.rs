//! The documented alert rules and dashboard use only existing metrics. Every alert has a test and an explanation. Every
//! metric is documented.

use crate::admin::metrics;
use crate::kit::account::AUTHORITY;
use crate::kit::pki::Authority;
use crate::kit::{Portcullis, Request, Upstream};
use crate::{PUBLIC, policy};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

const ALERTS: &str = include_str!("../../docs/monitoring/alerts.yml");
const ALERT_TESTS: &str = include_str!("../../docs/monitoring/alerts.test.yml");
const DASHBOARD: &str = include_str!("../../docs/monitoring/dashboard.json");
const PAGE: &str = include_str!("../../docs/monitoring.md");

fn promtool(arguments: &[&str]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring");
    let output = Command::new("promtool").args(arguments).current_dir(folder).output();
    let output = output.expect("promtool is there: Debian's package prometheus");
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
}

/// Returns the metric families of a gateway that has every feature: TLS, client certificates, an ACME
/// server, an authority, an upstream, a limit, signals, a shared state.
fn families() -> BTreeSet<String> {
    let upstream = Upstream::start();
    let limit = "[rate_limit.one]\nby = \"route\"\nrate = \"1000/s\"\n";
    let signals = "[signals.idp]\nissuer = \"https://id.test/\"\naudience = \"g\"\npoll = \"https://127.0.0.1:1/\"\n\
         [shared]\nurl = \"unix:/nowhere.sock\"\n";
    let edge = "[[tls.certificates]]\ncertificate = \"edge.pem\"\nkey = \"edge-key.pem\"\nocsp = \"edge.ocsp\"\n\
                [tls.acme]\ndomains = [\"a.test\"]\ndirectory = \"https://127.0.0.1:1/\"\n\
                [client_certificates.edge]\nhosts = \"edge.test\"\nca = \"ca.pem\"\ncrl = \"ca.crl\"\n";
    let authority = Authority::new("edge");
    let identity = authority.issue(&["edge.test"]);
    let policy = format!(
        "[server]\nhttps = \"127.0.0.1:0\"\n[api_keys]\n{AUTHORITY}cookies = true\n{}",
        policy(&upstream, &format!("{limit}{signals}{edge}{PUBLIC}"))
    );
    let gateway = Portcullis::with(&policy)
        .file("edge.pem", &identity.pem)
        .file("edge-key.pem", &identity.key)
        .file("edge.ocsp", authority.vouch(&identity))
        .file("ca.pem", &authority.pem)
        .file("ca.crl", authority.revoke(&[], 2046))
        .start();
    Request::get("/").to(gateway.http()).is(200);
    let text = metrics(&gateway).text();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Returns the metrics in an expression, without the suffixes of histograms.
fn named(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("portcullis_") || word.starts_with("process_"));
    let bare = |word: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        histogram.unwrap_or(word).to_owned()
    };
    ours.map(bare).collect()
}

fn alerts() -> Vec<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn prometheus_takes_the_rules_and_each_fires_when_it_should() {
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);
    assert!(alerts().len() >= 20);
    for alert in alerts() {
        let cases = |kind: &str| ALERT_TESTS.matches(&format!("- name: \"{alert} {kind}\"")).count();
        assert_eq!((cases("fires"), cases("is silent")), (1, 1), "{alert} is tested both ways");
        assert_eq!(ALERT_TESTS.matches(&format!("alertname=\"{alert}\"")).count(), 2, "{alert}");
    }
}

#[test]
fn each_alert_says_its_cause_and_what_to_do() {
    let count = |key: &str| ALERTS.lines().filter(|line| line.trim_start().starts_with(key)).count();
    let all = alerts().len();
    for key in ["summary: ", "cause: ", "action: ", "severity: ", "expr: "] {
        assert_eq!(count(key), all, "{key}");
    }
    for alert in alerts() {
        assert!(PAGE.contains(&format!("| `{alert}` |")), "docs/monitoring.md explains {alert}");
    }
    for line in PAGE.lines().filter_map(|line| line.strip_prefix("| `Portcullis")) {
        let name = format!("Portcullis{}", line.split('`').next().unwrap());
        assert!(alerts().contains(&&*name), "{name} is an alert");
    }
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist_and_each_metric_is_documented() {
    let families = families();
    for (place, text) in [("alerts.yml", ALERTS), ("alerts.test.yml", ALERT_TESTS)] {
        let unknown: Vec<_> = named(text).difference(&families).cloned().collect();
        assert!(unknown.is_empty(), "{place}: {unknown:?}");
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push((panel["title"].as_str().unwrap(), target["expr"].as_str().unwrap()));
        }
    }
    assert!(expressions.len() > 30, "{}", expressions.len());
    for (title, expression) in expressions {
        let used = named(expression);
        assert!(!used.is_empty(), "{title} shows a metric: {expression}");
        assert!(used.is_subset(&families), "{title}: {expression}");
        // Replaces Grafana's variables for durations and label values.
        let plain =
            expression.replace("$__rate_interval", "5m").replace("$job", ".+").replace("$instance", ".+");
        promtool_parses(&plain);
    }
    let documented = named(&PAGE.lines().filter(|line| line.starts_with("| `")).collect::<String>());
    let missing: Vec<_> = families.iter().filter(|family| !documented.contains(*family)).collect();
    assert!(missing.is_empty(), "docs/monitoring.md has a row for each metric, and none for {missing:?}");
}

/// Parses PromQL by writing it as a rule, because promtool cannot parse an expression alone without a server.
fn promtool_parses(expression: &str) {
    let path = std::env::temp_dir().join(format!("portcullis-rule-{}.yml", std::process::id()));
    let expression = serde_json::to_string(expression).unwrap();
    let rule =
        format!("groups: [{{name: one, rules: [{{record: \"one:expression\", expr: {expression}}}]}}]\n");
    std::fs::write(&path, rule).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
}
