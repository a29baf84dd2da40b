//! `config show`, the schema of a policy, and `init`.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, command_in, write_policy};
use crate::kit::{ISSUER, Portcullis, Request};
use serde_json::Value;
use std::collections::BTreeMap;

/// A policy with a value of each kind.
const POLICY: &str = "
[server]
trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::7\"]

[authority]
issuer    = \"https://localhost:8443\"
audience  = \"portcullis\"
role_limit = \"all\"
claims    = { tenant = \"company\" }

[upstream.echo]
builtin = \"echo\"

[rate_limit.slow]
rate = \"6/m\"

[[route]]
path     = \"/\"
upstream = \"echo\"
access   = \"public\"

[[route]]
path     = \"/x\"
upstream = \"echo\"
claims   = { tenant = \"{*}\", level = 3 }
sources  = [\"cookie\", { header = \"X-Api-Token\" }]
fresh    = \"10m\"
rate_limits = \"slow\"
";

fn in_dir(policy: &str) -> Dir {
    let dir = Dir::new();
    write_policy(&dir, policy);
    dir
}

fn policy_of(dir: &Dir) -> String {
    std::fs::read_to_string(dir.path().join("gateway.toml")).unwrap()
}

/// Returns the number of the policy's line that begins with this text.
#[track_caller]
fn line(dir: &Dir, begins: &str) -> usize {
    policy_of(dir).lines().position(|line| line.starts_with(begins)).expect("the policy has this line") + 1
}

/// Checks that a line of the output shows a value, followed by its origin.
#[track_caller]
fn says(shown: &Finished, value: &str, origin: &str) {
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let line = shown.stdout.lines().find(|line| line.starts_with(&format!("{value} ")));
    let line = line.unwrap_or_else(|| panic!("{value}: {}", shown.stdout));
    assert!(line.ends_with(&format!("# {origin}")), "{value} # {origin}: {line}");
}

/// Returns every key of `config show --format json`, with its value and its origins.
#[track_caller]
fn keys(shown: &Finished) -> BTreeMap<String, (Value, Value)> {
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let report: Value =
        serde_json::from_str(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"));
    let keys = report["keys"].as_array().unwrap().iter();
    keys.map(|key| (key["key"].as_str().unwrap().to_owned(), (key["value"].clone(), key["origins"].clone())))
        .collect()
}

#[test]
fn every_value_is_shown_with_where_it_comes_from() {
    let dir = in_dir(POLICY);
    let environment = [
        ("PORTCULLIS_SERVER__DRAIN", "7s"),
        ("PORTCULLIS_ROUTE__1__ROLES", "[\"clerk\"]"),
        ("PORTCULLIS_LOG__LEVEL", "warn"),
    ];
    let shown = command_in(&dir, &["config", "show"], &environment);
    let at = |begins: &str| format!("gateway.toml:{}", line(&dir, begins));
    says(&shown, "trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::7/128\"]", &at("trusted_proxies"));
    says(&shown, "rate = \"6/m\"", &at("rate = "));
    says(&shown, "role_limit = \"all\"", &at("role_limit"));
    says(&shown, "fresh = \"10m\"", &at("fresh"));
    says(&shown, "level = 3", &at("claims   = { tenant = \"{*}\""));
    says(&shown, "drain = \"7s\"", "environment variable PORTCULLIS_SERVER__DRAIN");
    says(&shown, "roles = [\"clerk\"]", "environment variable PORTCULLIS_ROUTE__1__ROLES");
    says(&shown, "paths = \"strict\"", "default");
    says(&shown, "refresh_grace = \"10s\"", "default");
    // The JSON output has the same values and origins.
    let keys = keys(&command_in(&dir, &["config", "show", "--format", "json"], &environment));
    let origin = |key: &str| keys[key].1[0].clone();
    assert_eq!(keys["server.drain"].0, "7s");
    assert_eq!(origin("server.drain"), serde_json::json!({ "environment": "PORTCULLIS_SERVER__DRAIN" }));
    assert_eq!(
        origin("rate_limit.slow.rate"),
        serde_json::json!({ "file": "gateway.toml", "line": line(&dir, "rate = ") })
    );
    assert_eq!(
        origin("route[1].claims.level"),
        serde_json::json!({ "file": "gateway.toml", "line": line(&dir, "claims   =") })
    );
    assert_eq!(origin("server.paths"), serde_json::json!({ "default": true }));
    assert_eq!(keys["route[1].sources"].0, serde_json::json!(["cookie", { "header": "X-Api-Token" }]));
}

#[test]
fn the_printed_policy_is_equivalent() {
    let dir = in_dir(POLICY);
    let values = |dir: &Dir| {
        let keys = keys(&command(dir, &["config", "show", "--format", "json"]));
        keys.into_iter().map(|(key, (value, _))| (key, value)).collect::<BTreeMap<_, _>>()
    };
    for arguments in [&["config", "show"][..], &["config", "show", "--changed"]] {
        let other = Dir::new();
        other.write("gateway.toml", command(&dir, arguments).stdout);
        assert_eq!(values(&other), values(&dir), "{arguments:?}: {}", policy_of(&other));
    }
}

#[test]
fn only_what_differs_from_the_defaults_is_shown_on_request() {
    let dir = in_dir(&POLICY.replace("[authority]", "[authority]\nsame_site = \"strict\"\nsessions = 7"));
    let shown = command(&dir, &["config", "show", "--changed"]);
    says(&shown, "sessions = 7", &format!("gateway.toml:{}", line(&dir, "sessions")));
    says(&shown, "access = \"public\"", &format!("gateway.toml:{}", line(&dir, "access")));
    for default in ["same_site", "paths", "refresh_grace", "# default", "[identity]", "[policy]"] {
        assert!(!shown.stdout.contains(default), "{default}: {}", shown.stdout);
    }
    assert_eq!(shown.stdout.matches("[[route]]").count(), 2);
}

#[test]
fn a_secret_is_never_shown_and_its_place_is() {
    let secret = "correct-horse-battery-staple-0123456789";
    let issuer = |secret: &str| {
        format!(
            "[[issuer]]\nissuer = \"https://a/\"\naudience = \"o\"\nalgorithms = \"HS256\"\nsecret = \"{secret}\"\n"
        )
    };
    let tables = "
[authority]
issuer   = \"https://localhost:8443\"
audience = \"portcullis\"
store    = \"postgres://portcullis:@@db.example/portcullis\"
[authority.client.billing]
secret = \"@\"
[upstream.app]
servers         = \"http://root:@@127.0.0.1:1\"
identity_secret = \"@\"
[shared]
url               = \"redis://root:@@127.0.0.1:2\"
sentinels         = \"redis://root:@@127.0.0.1:3\"
cluster           = \"redis://root:@@127.0.0.1:4\"
password          = \"@\"
sentinel_password = \"@\"
[[test]]
request = \"GET https://localhost/?access_token=@\"
token   = \"@\"
[[test]]
request = \"GET https://localhost/\"
headers = { Authorization = \"Bearer @\", Accept = \"text/html\" }
";
    let tables = tables.replace("@@", "\u{1}").replace("\u{1}", &format!("{secret}\u{2}"));
    let tables = tables.replace('@', secret).replace('\u{2}', "@");
    let literal = in_dir(&format!("{}{tables}", issuer(secret)));
    let variable = in_dir(&issuer("env:PORTCULLIS_SECRET_NOT_SET"));
    let override_ = ("PORTCULLIS_ISSUER__0__SECRET", secret);
    for format in ["text", "json"] {
        for changed in [&[][..], &["--changed"]] {
            let arguments = [&["config", "show", "--format", format], changed].concat();
            for shown in [command(&literal, &arguments), command_in(&variable, &arguments, &[override_])] {
                assert_eq!(shown.code, Some(0), "{shown:?}");
                assert!(!shown.text().contains(secret) && shown.text().contains("\"****\""), "{shown:?}");
            }
            // The location of a secret is not secret.
            let shown = command(&variable, &arguments);
            assert!(
                shown.stdout.contains("env:PORTCULLIS_SECRET_NOT_SET") && !shown.stdout.contains("****"),
                "{shown:?}"
            );
        }
    }
    let shown = command(&literal, &["config", "show"]).stdout;
    assert!(shown.contains("Accept = \"text/html\"") && shown.contains("127.0.0.1:1"), "{shown}");
}

/// Operators write the settings of other programs, put a secret where its reference belongs, or put a password in a URL
/// that must not have one. The policy is refused, and no report repeats the secret.
#[test]
fn a_secret_at_a_wrong_place_is_shown_by_no_command() {
    let secret = "hush-hush";
    let authority = |store: &str| {
        format!("[authority]\nissuer = \"https://a.test\"\naudience = \"a\"\nstore = \"{store}\"\n")
    };
    let issuer = "[[issuer]]\nissuer = \"https://id.test/\"\naudience = \"a\"\nalgorithms = \"ES256\"\n";
    let in_variable = authority("env:DATABASE");
    for (text, variable) in [
        (authority("host=127.0.0.1 password=@ dbname=x"), ""),
        (authority("env:postgres://portcullis:@\u{1}127.0.0.1/db"), ""),
        (in_variable.clone(), "host=127.0.0.1 password=@ dbname=x"),
        (in_variable.clone(), "@"),
        (in_variable.clone(), "root;@\u{1}tcp(127.0.0.1:1)/db"),
        (in_variable.clone(), "@:x\u{1}127.0.0.1/db"),
        (in_variable.clone(), "mysql://root:@\u{1}127.0.0.1/db"),
        (in_variable, "jdbc:postgresql://127.0.0.1/db?password=@"),
        ("[shared]\nurl = \"redis://127.0.0.1:1?password=@\"\n".to_owned(), ""),
        ("[shared]\nurl = \"redis://127.0.0.1:1/#@\"\n".to_owned(), ""),
        ("[shared]\nurl = \"redis://127.0.0.1:1\"\npassword = \"env:redis://x:@\u{1}y\"\n".to_owned(), ""),
        ("[upstream.app]\nservers = \"http://127.0.0.1:1?key=@\"\n".to_owned(), ""),
        (format!("{issuer}jwks = \"https://root:@\u{1}id.test/jwks\"\n"), ""),
        (format!("{issuer}jwks = \"https://root:/@\u{1}id.test/jwks\"\n"), ""),
        (
            format!(
                "{issuer}[issuer.introspection]\nendpoint = \"https://root:@\u{1}id.test/i\"\nclient_id = \"a\"\n"
            ),
            "",
        ),
        (
            "[signals.idp]\nissuer = \"https://id.test/\"\naudience = \"a\"\n\
             jwks = \"https://root:@\u{1}id.test/jwks\"\npoll = \"https://root:@\u{1}id.test/poll\"\n"
                .to_owned(),
            "",
        ),
        (
            "[server]\nhttps = \"127.0.0.1:0\"\n[tls.acme]\ndomains = \"a.test\"\n\
             directory = \"https://root:@\u{1}ca.test/\"\n"
                .to_owned(),
            "",
        ),
    ] {
        let filled = |text: &str| text.replace('@', secret).replace('\u{1}', "@");
        let (text, variable) = (filled(&text), filled(variable));
        let dir = in_dir(&text);
        let check = command_in(&dir, &["check"], &[("DATABASE", &*variable)]);
        assert_eq!(check.code, Some(1), "{text} {variable}: {check:?}");
        for arguments in [
            &["check"][..],
            &["check", "--format", "json"],
            &["config", "show"],
            &["config", "show", "--format", "json"],
            &["run"],
        ] {
            let shown = command_in(&dir, arguments, &[("DATABASE", &*variable)]);
            assert!(!shown.text().contains(secret), "{arguments:?}: {text} {variable}: {shown:?}");
        }
    }
    // The host and the scheme are no secrets.
    let dir = in_dir(&authority("env:DATABASE"));
    let check = command_in(&dir, &["check"], &[("DATABASE", "mysql://root:x@127.0.0.1/db")]);
    assert!(check.text().contains("\"mysql:\""), "{check:?}");
    let dir = in_dir(&format!("{issuer}jwks = \"https://[2001:db8::1]/a@b?c=d\"\n"));
    says(&command(&dir, &["config", "show"]), "jwks = \"https://[2001:db8::1]/a@b?c=d\"", "gateway.toml:5");
}

/// `config show` masks such a value, so no other command shows it. `config diff` still reports that it has changed.
#[test]
fn the_value_of_a_field_that_may_be_a_credential_is_not_shown_and_its_change_is() {
    let secret = "hush-hush";
    let text = |value: &str| {
        format!(
            "[upstream.app]\nbuiltin = \"echo\"\n[[route]]\npath = \"/\"\nupstream = \"app\"\naccess = \"public\"\n\
             set_request_headers = {{ X-Api-Key = \"{value}\", X-Version = \"3\" }}\n\
             set_response_headers = {{ X-Session-Key = \"{value}\" }}\n"
        )
    };
    let case = |expected: &str| {
        format!(
            "[[test]]\nname = \"t\"\nrequest = \"GET https://h/\"\n\
             expect = {{ headers = {{ X-Api-Key = \"{expected}\" }}, response_headers = {{ X-Session-Key = \"{expected}\" }} }}\n"
        )
    };
    let (good, bad) = (in_dir(&(text(secret) + &case(secret))), in_dir(&(text(secret) + &case("other"))));
    let ends = in_dir(&text("hush-hush\\n"));
    let check = command(&good, &["check"]);
    assert_eq!(check.code, Some(0), "a test can expect the value: {check:?}");
    for dir in [&good, &bad, &ends] {
        for arguments in [
            &["check"][..],
            &["check", "--format", "json"],
            &["config", "show"],
            &["routes"],
            &["routes", "--format", "json"],
            &["explain", "GET", "https://h/"],
            &["explain", "--format", "json", "GET", "https://h/"],
        ] {
            let shown = command(dir, arguments);
            assert!(!shown.text().contains(secret), "{arguments:?}: {shown:?}");
        }
    }
    let failed = command(&bad, &["check"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for part in ["header x-api-key", "response header x-session-key", "another value that is not shown"] {
        assert!(failed.text().contains(part), "{part}: {failed:?}");
    }
    let explained = command(&good, &["explain", "GET", "https://h/"]).text();
    assert!(
        explained.contains("x-api-key: <not shown>") && explained.contains("x-version: 3"),
        "{explained}"
    );

    good.write("new.toml", text("hush-hush-2"));
    let diff = command(&good, &["config", "diff", "gateway.toml", "new.toml"]);
    for part in ["set_request_headers.X-Api-Key", "set_response_headers.X-Session-Key"] {
        assert!(diff.text().contains(part) && !diff.text().contains(secret), "{part}: {diff:?}");
    }
}

#[test]
fn an_unreadable_policy_is_reported_and_not_shown() {
    let dir = in_dir("[server]\nworkres = 1\nmin = \"hush-hush\"\n[[issuer]]\nsecret = \"$HUSH\"\n");
    let shown = command(&dir, &["config", "show"]);
    assert_eq!((shown.code, &*shown.stdout), (Some(1), ""), "{shown:?}");
    assert!(shown.stderr.contains("workers") && shown.stderr.contains("issuer[0].secret"), "{shown:?}");
    assert!(!shown.stderr.contains("hush-hush"), "{shown:?}");
    let shown = command(&Dir::new(), &["config", "show"]);
    assert_eq!((shown.code, &*shown.stdout), (Some(1), ""), "{shown:?}");
    assert!(shown.stderr.contains("gateway.toml"), "{shown:?}");
    // A policy that cannot be served is shown too, so that operators can find the fault.
    let dir = in_dir(&format!("{ISSUER}[[route]]\npath = \"/\"\nupstream = \"nowhere\"\n"));
    assert_eq!(command(&dir, &["check"]).code, Some(1));
    says(
        &command(&dir, &["config", "show"]),
        "upstream = \"nowhere\"",
        &format!("gateway.toml:{}", line(&dir, "upstream")),
    );
}

#[test]
fn the_schema_is_printed_without_a_policy() {
    let schema = command(&Dir::new(), &["config", "schema"]);
    assert_eq!((schema.code, &*schema.stderr), (Some(0), ""));
    assert!(
        schema.stdout == include_str!("../../docs/gateway.schema.json"),
        "docs/gateway.schema.json is behind"
    );
}

#[test]
fn a_starter_passes_its_own_check_whatever_upstream_is_given() {
    for url in [
        None,
        Some("http://127.0.0.1:9001"),
        Some("http://[::1]:9001"),
        Some("http://localhost"),
        Some("http://localhost/"),
        Some("http://orders.svc.cluster.local:80"),
        Some("HTTP://EXAMPLE.COM"),
        Some("https://orders.example:8443"),
        Some("http://127.0.0.1:8080"),
        Some("http://localhost:8080/"),
    ] {
        let dir = Dir::new();
        let upstream = url.map(|url| ["--upstream", url]);
        let arguments = [&["init"][..], upstream.as_ref().map_or(&[], |upstream| &upstream[..])].concat();
        let made = command(&dir, &arguments);
        assert_eq!(made.code, Some(0), "{url:?}: {made:?}");
        for next in ["portcullis check --strict", "portcullis user add"] {
            assert!(made.stdout.contains(next), "{url:?}: {made:?}");
        }
        let check = command(&dir, &["check", "--strict"]);
        assert_eq!(check.code, Some(0), "{url:?}: {check:?}");
        assert!(url.is_none_or(|url| policy_of(&dir).contains(&format!("[\"{url}\"]"))), "{url:?}");
        // The gateway does not listen where its service does.
        let port = if url.is_some_and(|url| url.contains(":8080")) { 8081 } else { 8080 };
        assert!(policy_of(&dir).contains(&format!("\nhttp  = \"127.0.0.1:{port}\"")), "{url:?}");
    }
}

#[test]
fn a_starter_that_guards_less_fails_its_own_tests() {
    let dir = Dir::new();
    assert_eq!(command(&dir, &["init"]).code, Some(0));
    let starter = policy_of(&dir);
    for (line, weaker) in [
        ("roles       = [\"admin\"]", "roles       = [\"admin\", \"clerk\"]"),
        ("path        = \"/admin/{*rest}\"", "path        = \"/admins/{*rest}\""),
        ("path        = \"/app/{*rest}\"", "path        = \"/{*rest}\""),
        ("name        = \"app\"", "access      = \"public\"\nname        = \"app\""),
    ] {
        assert_eq!(starter.matches(line).count(), 1, "{line}");
        dir.write("gateway.toml", starter.replace(line, weaker));
        let check = command(&dir, &["check"]);
        assert_eq!(check.code, Some(1), "{weaker}: {check:?}");
    }
}

#[test]
fn a_starter_serves_and_guards() {
    let starter = command(&Dir::new(), &["init", "--output", "-"]);
    assert_eq!(starter.code, Some(0), "{starter:?}");
    let free = "127.0.0.1:0";
    let gateway = Portcullis::with(&starter.stdout)
        .env("PORTCULLIS_SERVER__HTTPS", "")
        .env("PORTCULLIS_SERVER__HTTP", free)
        .env("PORTCULLIS_SERVER__ADMIN", free)
        .start();
    for (path, status, code) in
        [("/app/", 401, "missing_token"), ("/admin/", 401, "missing_token"), ("/", 404, "no_route")]
    {
        let answer = Request::get(path).to(gateway.http());
        answer.is(status);
        assert_eq!(answer.json()["code"], code, "{path}");
    }
}

#[test]
fn a_url_that_no_upstream_can_have_is_refused_and_nothing_is_written() {
    for (url, why) in [
        ("127.0.0.1:9001", "no scheme"),
        ("/app", "no scheme"),
        ("", "not a URL"),
        ("ftp://a", "the scheme ftp"),
        ("http://a/b", "a path or query"),
        ("http://a//", "a path or query"),
        ("http://a?b", "a path or query"),
        ("http://a:99999", "the port is not a number"),
        ("http://a:0", "port 0"),
        ("http://a\"]\n[upstream.b]\nservers = [\"http://b", "not a URL"),
        ("http://root:hush@a", "a user name"),
    ] {
        let dir = Dir::new();
        let made = command(&dir, &["init", "--upstream", url]);
        assert_eq!((made.code, &*made.stdout), (Some(2), ""), "{url:?}: {made:?}");
        assert!(made.stderr.starts_with("--upstream: ") && made.stderr.contains(why), "{url:?}: {made:?}");
        assert!(
            made.stderr.contains("http://host:port") && !made.stderr.contains("hush"),
            "{url:?}: {made:?}"
        );
        assert!(!dir.path().join("gateway.toml").exists(), "{url:?}");
    }
}

#[test]
fn a_file_that_is_there_is_left_as_it_is() {
    let dir = Dir::new();
    dir.write("gateway.toml", "# mine\n");
    std::os::unix::fs::symlink("nowhere.toml", dir.path().join("link.toml")).unwrap();
    for arguments in [
        &["init"][..],
        &["init", "--output", "link.toml"],
        &["init", "--config", "link.toml"],
        &["init", "--output", "."],
    ] {
        let made = command(&dir, arguments);
        assert_eq!((made.code, &*made.stdout), (Some(1), ""), "{made:?}");
        assert!(made.stderr.contains("already exists"), "{made:?}");
    }
    assert_eq!(policy_of(&dir), "# mine\n");
    assert!(!dir.path().join("nowhere.toml").exists());
    let made = command(&dir, &["init", "--output", "none/gateway.toml"]);
    assert!(made.code == Some(1) && made.stderr.contains("No such file"), "{made:?}");
    // The file may have another name.
    let made = command(&dir, &["init", "--output", "my own.toml"]);
    assert!(made.code == Some(0) && made.stdout.contains("--config 'my own.toml'"), "{made:?}");
    assert_eq!(command(&dir, &["check", "--strict", "--config", "my own.toml"]).code, Some(0));
    let made = command(&dir, &["init", "--config", "third.toml", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&made.stdout).unwrap()["written"], "third.toml");
    assert_eq!(command(&dir, &["check", "--strict", "--config", "third.toml"]).code, Some(0));
}
