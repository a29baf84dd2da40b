//! Tests which changes of a policy change its digest.

use super::*;
use crate::config::load_text;
use std::path::PathBuf;

const POLICY: &str = r#"
[server]
https = "127.0.0.1:8443"

[[issuer]]
issuer     = "https://a.test/"
audience   = ["g"]
algorithms = ["ES256"]
jwks       = "a.jwks"

[[issuer]]
issuer     = "https://b.test/"
audience   = ["g"]
algorithms = ["HS256"]
secret     = "env:SECRET"

[upstream.app]
servers = ["http://127.0.0.1:9001"]

[[route]]
path     = "/"
upstream = "app"
roles    = ["clerk"]
"#;

/// A folder with the files that the policies here name.
fn folder(name: &str, jwks: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("portcullis-digest-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.jwks"), jwks).unwrap();
    std::fs::write(folder.join("other.jwks"), jwks).unwrap();
    folder
}

fn digest_in(folder: &Path, text: &str, variables: &[(&str, &str)]) -> PolicyDigest {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    PolicyDigest::of(&load_text("g.toml", text.to_owned(), folder.to_owned(), variables.collect()).unwrap())
}

#[test]
fn gateways_with_one_policy_agree_wherever_they_run() {
    let (here, there) = (folder("here", "keys"), folder("there", "keys"));
    let digest = digest_in(&here, POLICY, &[]);
    assert_eq!(digest.to_string().len(), 32);
    assert_eq!(digest, digest_in(&there, POLICY, &[]));
    for (what, same) in [
        ("its listeners", POLICY.replace("127.0.0.1:8443", "10.0.0.7:443")),
        ("its log", format!("{POLICY}[log]\nlevel = \"debug\"\n")),
        ("its folder", format!("[state]\ndir = \"/srv\"\n{POLICY}")),
        ("its certificate", format!("{POLICY}[tls]\ncertificate = \"c\"\nkey = \"k\"\n")),
        ("the place of a secret", POLICY.replace("env:SECRET", "file:secret")),
        ("the path of a key set", POLICY.replace("a.jwks", "other.jwks")),
        ("a version", format!("[policy]\nversion = \"7\"\n{POLICY}")),
        ("a test", format!("{POLICY}[[test]]\nname = \"n\"\nrequest = \"GET https://h/\"\n")),
        ("a default that is written out", POLICY.replace("path     =", "methods = []\npath =")),
        ("spaces and comments", POLICY.replace('=', " = # c\n\n").replace("# c\n\n", "")),
    ] {
        // `[tls]` itself has an effect, as an optional table.
        let expected = if what == "its certificate" {
            digest_in(&here, &format!("{POLICY}[tls]\n"), &[])
        } else {
            digest
        };
        assert_eq!(digest_in(&there, &same, &[]), expected, "{what}");
    }
    let by_variable = digest_in(&here, POLICY, &[("PORTCULLIS_SERVER__HTTPS", "127.0.0.1:1")]);
    assert_eq!(by_variable, digest);
}

#[test]
fn gateways_with_different_rules_or_keys_disagree() {
    let (here, other) = (folder("one", "keys"), folder("two", "other keys"));
    let mut seen = vec![digest_in(&here, POLICY, &[])];
    for (what, folder, text) in [
        ("a role", &here, POLICY.replace("clerk", "boss")),
        ("an upstream", &here, POLICY.replace("9001", "9002")),
        ("an empty upstream", &here, format!("{POLICY}[upstream.b]\n")),
        ("api keys", &here, format!("{POLICY}[api_keys]\n")),
        ("an open route", &here, POLICY.replace("roles ", "access = \"public\"\nnot_roles ")),
        ("the content of a key set", &other, POLICY.to_owned()),
        ("no secret", &here, POLICY.replace("secret     = \"env:SECRET\"", "")),
        ("a public key", &here, POLICY.replace("secret     = \"env:SECRET\"", "public_key = \"one\"")),
        ("another public key", &here, POLICY.replace("secret     = \"env:SECRET\"", "public_key = \"two\"")),
        ("a second route", &here, format!("{POLICY}[[route]]\npath = \"/b\"\nupstream = \"app\"\n")),
        ("checks", &here, format!("{POLICY}[upstream.app.health]\n")),
    ] {
        let digest = digest_in(folder, &text, &[]);
        assert!(!seen.contains(&digest), "{what}");
        seen.push(digest);
    }
    let by_variable = digest_in(&here, POLICY, &[("PORTCULLIS_ROUTE__0__ROLES", "[\"boss\"]")]);
    assert_eq!(by_variable, seen[1]);
}

#[test]
fn the_digest_reveals_no_secret() {
    let folder = folder("secret", "keys");
    let with = |secret: &str| digest_in(&folder, &POLICY.replace("env:SECRET", secret), &[]);
    assert_eq!(with("0123456789abcdef0123456789abcdef"), with("fedcba9876543210fedcba9876543210"));
}

#[test]
fn every_key_that_names_a_file_or_a_secret_is_decided() {
    let reference = include_str!("../../../docs/reference.md");
    let types = ["*path*", "*path or URL*", "*list of paths*", "*secret*", "*secret, or PEM text*"];
    // Paths of requests.
    let paths = ["route.strip_prefix", "route.add_prefix", "route.rewrite_to", "route.files"];
    for section in reference.split("\n### `").skip(1) {
        let (key, rest) = section.split_once('`').unwrap();
        let names_a_file = types.iter().any(|kind| rest.trim_start().starts_with(kind));
        let table = key.split('.').next().unwrap();
        let is_own = OWN_TABLES.contains(&table)
            || OWN
                .iter()
                .any(|own| key == *own || key.strip_prefix(own).is_some_and(|rest| rest.starts_with('.')));
        if names_a_file && !is_own && !paths.contains(&key) {
            let place = [&PRESENCE[..], &CONTENT].iter().filter(|list| list.contains(&key)).count();
            assert_eq!(place, 1, "{key} belongs in PRESENCE or CONTENT");
        }
    }
    for key in PRESENCE.iter().chain(&CONTENT).chain(&OWN) {
        let tables = ["tls.certificates", "tls.acme"];
        assert!(tables.contains(key) || reference.contains(&format!("\n### `{key}`\n")), "{key}");
    }
}
