//! The commands of the binary.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, write_policy};
use crate::kit::{ISSUER, Portcullis, Request, forge, token};
use serde_json::Value;

const ECHO: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/x\"
upstream = \"echo\"
roles    = [\"clerk\"]
scopes   = [\"orders:read\"]
claims   = { tenant = \"acme\" }
";

const AUTHORITY: &str = "
[authority]
issuer    = \"https://localhost:8443\"
audience  = [\"portcullis\"]
algorithm = \"ES256\"
";

fn in_dir(policy: &str) -> Dir {
    let dir = Dir::new();
    write_policy(&dir, policy);
    dir
}

#[track_caller]
fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {finished:?}"))
}

#[test]
fn a_good_policy_passes() {
    let dir = in_dir(&format!("{ISSUER}{ECHO}"));
    let check = command(&dir, &["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    let check = command(&dir, &["check", "--format", "json"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    json(&check);
}

#[test]
fn all_faults_of_a_policy_are_reported_at_once_each_with_its_place() {
    let policy = format!(
        "{ISSUER}{ECHO}\n[[route]]\npath = \"/y\"\nupstream = \"ehco\"\n\n[[route]]\npath = \"/z\"\n\
         upstream = \"echo\"\nrate_limits = [\"login\"]\n\n[[route]]\npath = \"/%2e%2e/{{oops\"\nupstream = \"echo\"\n"
    );
    let dir = in_dir(&policy);
    let text = std::fs::read_to_string(dir.path().join("gateway.toml")).unwrap();
    let check = command(&dir, &["check", "--config", "gateway.toml"]);
    assert_eq!(check.code, Some(1), "{check:?}");
    let said = check.text();
    for (fault, line_of) in [
        ("ehco", "upstream = \"ehco\""),
        ("login", "rate_limits = [\"login\"]"),
        ("oops", "path = \"/%2e%2e/{oops\""),
    ] {
        assert!(said.contains(fault), "{fault}: {said}");
        let number = text.lines().position(|line| line == line_of).unwrap() + 1;
        assert!(said.contains(&format!("gateway.toml:{number}")), "{fault} is at line {number}: {said}");
    }
    assert!(said.contains("echo"), "a hint names the nearest known name: {said}");
    let as_json = json(&command(&dir, &["check", "--format", "json"])).to_string();
    for fault in ["ehco", "login", "oops"] {
        assert!(as_json.contains(fault), "{fault}: {as_json}");
    }
    // `run` refuses to start as well.
    let run = command(&dir, &["run"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.text().contains("ehco"), "{run:?}");
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest_known_one() {
    for (policy, wrong, right) in [
        ("[server]\nadmn = \"127.0.0.1:1\"\n", "admn", "admin"),
        ("[server.bounds]\nheader_sise = \"1KiB\"\n", "header_sise", "header_size"),
        ("[[route]]\npath = \"/y\"\nupstream = \"echo\"\nrole = [\"admin\"]\n", "role", "roles"),
        ("[[route]]\npath = \"/y\"\nupstream = \"echo\"\nacess = \"public\"\n", "acess", "access"),
    ] {
        let dir = in_dir(&format!("{policy}{ISSUER}{ECHO}"));
        let check = command(&dir, &["check"]);
        assert_eq!(check.code, Some(1), "{policy}: {check:?}");
        let said = check.text();
        assert!(said.contains(wrong) && said.contains(right), "{policy}: {said}");
    }
}

#[test]
fn a_policy_that_would_guard_less_than_it_seems_does_not_load() {
    for (name, tables) in [
        (
            "an empty list of algorithms",
            "[[issuer]]\nissuer = \"https://a/\"\naudience = [\"o\"]\nalgorithms = []\njwks = \"jwks.json\"\n",
        ),
        (
            "the algorithm none",
            "[[issuer]]\nissuer = \"https://a/\"\naudience = [\"o\"]\nalgorithms = [\"none\"]\njwks = \"jwks.json\"\n",
        ),
        (
            "a key set that is not there",
            "[[issuer]]\nissuer = \"https://a/\"\naudience = [\"o\"]\nalgorithms = [\"ES256\"]\njwks = \"missing.json\"\n",
        ),
        ("a guarded route and nobody to trust", ""),
        (
            "an unknown access",
            &format!("{ISSUER}[[route]]\npath = \"/y\"\nupstream = \"echo\"\naccess = \"none\"\n"),
        ),
        (
            "a public route that asks for roles",
            &format!(
                "{ISSUER}[[route]]\npath = \"/y\"\nupstream = \"echo\"\naccess = \"public\"\nroles = [\"a\"]\n"
            ),
        ),
        ("the same route twice", &format!("{ISSUER}[[route]]\npath = \"/x\"\nupstream = \"echo\"\n")),
        (
            "a claim of a parameter that is not in the path",
            &format!(
                "{ISSUER}[[route]]\npath = \"/y\"\nupstream = \"echo\"\nclaims = {{ tenant = \"{{tenant}}\" }}\n"
            ),
        ),
    ] {
        let dir = in_dir(&format!("{tables}{ECHO}"));
        let check = command(&dir, &["check"]);
        assert_eq!(check.code, Some(1), "{name}: {check:?}");
    }
}

#[test]
fn wrong_usage_has_an_exit_code_of_its_own() {
    let dir = in_dir(&format!("{ISSUER}{ECHO}"));
    for arguments in
        [&["serve-everything"][..], &["check", "--no-such-flag"], &["token"], &["check", "--format", "xml"]]
    {
        let finished = command(&dir, arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {finished:?}");
        assert!(finished.stdout.is_empty(), "{arguments:?}: {finished:?}");
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["help"],
        &["help", "run"],
        &["help", "user", "add"],
    ] {
        let finished = command(&dir, arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    }
    let missing = command(&dir, &["check", "--config", "no-such-file.toml"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.text().contains("no-such-file.toml"), "{missing:?}");
}

#[test]
fn a_minted_token_is_accepted_by_the_gateway() {
    let gateway = Portcullis::with(&format!("{AUTHORITY}{ECHO}")).start();
    let mint = |more: &[&str]| {
        let minted = command(gateway.dir(), &[&["token", "mint", "--sub", "ada"][..], more].concat());
        assert_eq!(minted.code, Some(0), "{minted:?}");
        minted.stdout.trim().to_owned()
    };
    let full = ["--role", "clerk", "--role", "x", "--scope", "orders:read", "--claim", "tenant=acme"];
    let ask = |token: &str| Request::get("/x").bearer(token).to(gateway.http());
    let answer = ask(&mint(&full));
    let echo = answer.is(200).json();
    assert_eq!(echo["headers"]["x-auth-subject"], "ada");
    assert_eq!(echo["headers"]["x-auth-roles"], "clerk,x");
    ask(&mint(&full[2..])).is_refusal(403, "insufficient_role");
    ask(&mint(&full[..4])).is_refusal(403, "insufficient_scope");
    ask(&mint(&full[..6])).is_refusal(403, "claim_mismatch");
    let short = mint(&[&full[..], &["--expires-in", "1s"]].concat());
    crate::kit::eventually("the token has expired", || ask(&short).code() == "expired_token");
}

#[test]
fn the_authoritys_key_survives_a_restart() {
    let gateway = Portcullis::with(&format!("{AUTHORITY}{ECHO}")).start();
    let dir = gateway.dir().clone();
    let full = ["--role", "clerk", "--scope", "orders:read", "--claim", "tenant=acme"];
    let minted = command(&dir, &[&["token", "mint", "--sub", "ada"][..], &full].concat());
    let token = minted.stdout.trim().to_owned();
    gateway.stop();
    let gateway = Portcullis::with(&format!("{AUTHORITY}{ECHO}")).within(dir).start();
    Request::get("/x").bearer(token).to(gateway.http()).is(200);
}

#[test]
fn a_token_is_decoded_and_its_refusal_explained() {
    let dir = in_dir(&format!("{ISSUER}{ECHO}"));
    let inspect = |token: &str| command(&dir, &["token", "inspect", token]);
    let good = inspect(&token("ada").role("clerk").sign());
    assert_eq!(good.code, Some(0), "{good:?}");
    for part in ["ada", "clerk", "ES256", "https://id.test/"] {
        assert!(good.stdout.contains(part), "{part}: {good:?}");
    }
    for (name, token, code) in forge::every_bad_token() {
        if token.starts_with('-') {
            continue;
        }
        let bad = inspect(&token);
        assert_eq!(bad.code, Some(1), "{name}: {bad:?}");
        assert!(bad.text().contains(code), "{name}, {code}: {bad:?}");
    }
    let as_json = command(&dir, &["token", "inspect", &token("ada").expired().sign(), "--format", "json"]);
    assert_eq!(as_json.code, Some(1));
    assert!(json(&as_json).to_string().contains("expired_token"), "{as_json:?}");
}

#[test]
fn containers_can_ask_for_health() {
    let mut gateway = Portcullis::with(&format!("{ISSUER}{ECHO}")).start();
    let dir = gateway.dir().clone();
    // The policy has port 0, so the test writes a policy with the address that the gateway is bound to.
    let ask = |address: &str| {
        let policy = std::fs::read_to_string(dir.path().join("gateway.toml")).unwrap();
        let fixed = policy.replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{address}\""));
        dir.write("health.toml", fixed);
        command(&dir, &["healthcheck", "--config", "health.toml"])
    };
    let address = gateway.admin().to_string();
    let healthy = ask(&address);
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    gateway.signal("TERM");
    gateway.exit_code();
    let gone = ask(&address);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(gone.stderr.contains("nothing listens there"), "{gone:?}");
}

#[test]
fn the_environment_overrides_the_file() {
    let gateway =
        Portcullis::with(&format!("{ISSUER}{ECHO}")).env("PORTCULLIS_SERVER__BOUNDS__HEADERS", "3").start();
    let request = Request::get("/x").header("A", "1").header("B", "2").header("C", "3");
    request.to(gateway.http()).is_refusal(431, "headers_too_large");
    Request::get("/x").to(gateway.http()).is_refusal(401, "missing_token");
}

#[test]
fn a_port_in_use_is_reported_and_nothing_serves() {
    let gateway = Portcullis::with(&format!("{ISSUER}{ECHO}")).start();
    let taken = gateway.http();
    let dir = in_dir(&format!("[server]\nhttp = \"{taken}\"\n{ISSUER}{ECHO}"));
    let run = command(&dir, &["run"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.text().contains(&taken.to_string()), "{run:?}");
}

#[test]
fn unreadable_and_contradictory_keys_are_reported_together() {
    let dir = in_dir(&format!(
        "[server]\nhtps = \"127.0.0.1:1\"\ndrain = \"30\"\n\n{ISSUER}{ECHO}\n[rate_limit.slow]\nrate = \"often\"\n\n\
         [[route]]\npath = \"/a//b\"\nupstream = \"ordres\"\nrate_limits = [\"slow\"]\n"
    ));
    let check = command(&dir, &["check", "--config", "gateway.toml", "--format", "json"]);
    assert_eq!(check.code, Some(1), "{check:?}");
    let report = json(&check);
    let mut keys: Vec<_> =
        report["diagnostics"].as_array().unwrap().iter().map(|d| d["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    // A rate that cannot be parsed is not also reported as missing.
    let routes = keys.iter().filter(|key| key.starts_with("route[")).count();
    assert_eq!(routes, 2, "{keys:?}");
    assert_eq!(&keys[..1], ["rate_limit.slow.rate"], "{keys:?}");
    assert!(keys.contains(&"server.htps") && keys.contains(&"server.drain"), "{keys:?}");
    assert_eq!(keys.len(), 5, "{keys:?}");
}
