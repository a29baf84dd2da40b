//! `portcullis config diff`, and the recent decisions that it fetches.

use crate::kit::dir::Dir;
use crate::kit::forge::every_token_made;
use crate::kit::portcullis::{Finished, command, write_policy};
use crate::kit::{Portcullis, Request, Upstream, token};
use crate::{gateway, policy};
use serde_json::{Value, json};

const ROUTES: &str = r#"
[identity]
claims = { "X-Auth-Tenant" = "tenant", "X-Auth-Login" = "sub" }

[[route]]
name = "orders"
path = "/orders/{id}"
upstream = "app"
roles = ["clerk", "admin"]

[[route]]
name = "open"
path = "/open"
upstream = "app"
access = "public"
"#;

/// Returns the lines of the gateway's decisions.
fn decisions(gateway: &Portcullis) -> Vec<Value> {
    let answer = Request::get("/decisions").host("127.0.0.1").to(gateway.admin());
    assert_eq!(answer.is(200).header("content-type"), Some("application/x-ndjson"));
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes the policy in force as `old.toml`, with the real admin address, and an edited copy as `new.toml`.
fn write_both(gateway: &Portcullis, edit: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(gateway.dir().path().join("gateway.toml")).unwrap();
    let old = text.replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{}\"", gateway.admin()));
    assert_ne!(old, text);
    gateway.dir().write("old.toml", &old);
    gateway.dir().write("new.toml", edit(&old));
}

fn diff(dir: &Dir, more: &[&str]) -> Finished {
    command(dir, &[&["config", "diff", "old.toml", "new.toml"], more].concat())
}

fn report(dir: &Dir, more: &[&str]) -> Value {
    let finished = diff(dir, &[more, &["--format", "json"]].concat());
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.text()))
}

#[test]
fn kept_decisions_contain_only_the_facts_that_decided() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let clerk =
        token("ada@example.com").role("clerk").claim("tenant", json!("acme")).claim("email", json!("a@b"));
    let ask = Request::post("/orders/7?query=personal", "a body").bearer(clerk.sign());
    ask.header("X-Something", "of-the-client")
        .header("Cookie", "session=cookie-value")
        .to(gateway.http())
        .is(200);
    Request::get("/orders/8").to(gateway.http()).is_refusal(401, "missing_token");
    let expired = token("ada@example.com").role("clerk").expired();
    Request::get("/orders/9").bearer(expired.sign()).to(gateway.http()).is_refusal(401, "expired_token");
    let user = token("bob@example.com").role("user");
    Request::get("/orders/10").bearer(user.sign()).to(gateway.http()).is_refusal(403, "insufficient_role");
    Request::get("/open").bearer(clerk.sign()).to(gateway.http()).is(200);
    Request::get("/open").to(gateway.http()).is(200);
    Request::get("/nowhere/%41").to(gateway.http()).is_refusal(404, "no_route");
    Request::get("//").to(gateway.http()).is_refusal(400, "bad_request");

    let kept = decisions(&gateway);
    let reported = |path: &str, name: &str| {
        kept.iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("{path}: {kept:#?}"))[name]
            .clone()
    };
    assert_eq!(kept.len(), 7, "what has no reading is no decision: {kept:#?}");
    for (path, credential, route, code) in [
        ("/orders/7", "verified", json!("orders"), json!(null)),
        ("/orders/8", "none", json!("orders"), json!("missing_token")),
        ("/orders/9", "refused", json!("orders"), json!("expired_token")),
        ("/orders/10", "verified", json!("orders"), json!("insufficient_role")),
        ("/open", "unexamined", json!("open"), json!(null)),
        ("/nowhere/A", "none", json!(null), json!("no_route")),
    ] {
        assert_eq!(reported(path, "credential"), credential, "{path}");
        assert_eq!((reported(path, "route"), reported(path, "code")), (route, code), "{path}");
    }
    assert_eq!(
        (reported("/orders/7", "roles"), reported("/orders/7", "method")),
        (json!(["clerk"]), json!("POST"))
    );
    assert_eq!(
        reported("/orders/7", "claims"),
        json!({ "tenant": "acme" }),
        "what the policy uses, but for who it was"
    );

    let text = kept.iter().map(Value::to_string).collect::<String>();
    let secrets =
        ["personal", "body", "of-the-client", "cookie-value", "ada", "bob", "a@b"].map(str::to_owned);
    for secret in secrets.into_iter().chain(every_token_made()) {
        assert!(!text.contains(&secret), "{secret}: {text}");
    }
}

#[test]
fn a_diff_says_how_many_recent_requests_would_end_otherwise() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let dir = gateway.dir();
    for id in 0..5 {
        let token = token("ada").role(if id < 3 { "clerk" } else { "admin" });
        Request::get(&format!("/orders/{id}")).bearer(token.sign()).to(gateway.http()).is(200);
    }
    Request::get("/later").to(gateway.http()).is_refusal(404, "no_route");
    let later = "[[route]]\nname = \"later\"\npath = \"/later\"\nupstream = \"app\"\naccess = \"public\"\n";
    write_both(&gateway, |old| old.replace("\"clerk\", ", "") + later);

    let live = report(dir, &["--live"]);
    let found = &live["decisions"];
    assert_eq!(
        (&found["decisions"], &found["would_change"], &found["unknown"]),
        (&json!(6), &json!(4), &json!(0))
    );
    assert_eq!(found["groups"][0]["after"]["route"], "later", "what would pass comes first: {found:#}");
    assert_eq!(
        (&found["groups"][1]["count"], &found["groups"][1]["after"]["outcome"]),
        (&json!(3), &json!("insufficient_role"))
    );
    assert_eq!(live["difference"]["gains"][0]["covers"], "/later", "{live:#}");
    assert_eq!(live["difference"]["losses"][0]["caller"], "role clerk", "{live:#}");

    let url = format!("http://{}/decisions", gateway.admin());
    dir.write("kept", Request::get("/decisions").host("localhost").to(gateway.admin()).text());
    for from in [&*url, "kept"] {
        assert_eq!(report(dir, &["--decisions", from])["decisions"], *found, "{from}");
    }
    let text = diff(dir, &["--live", "--exit-code"]);
    assert_eq!(text.code, Some(1));
    let first = "GAINS ACCESS (1)\n  everyone, with or without a token: ";
    assert!(text.stdout.starts_with(first) && text.stdout.contains("4 of 6 would change"), "{}", text.stdout);
    assert_eq!(diff(dir, &["--live"]).code, Some(0), "a change is no fault");

    write_both(&gateway, str::to_owned);
    let same = diff(dir, &["--live", "--exit-code"]);
    assert_eq!(same.code, Some(0), "{}", same.text());
    assert_eq!(same.stdout, "nothing changes\nrecent decisions: 0 of 6 would change\n");
}

#[test]
fn both_gateways_decide_as_the_diff_says() {
    let upstream = Upstream::start();
    let old = gateway(&upstream, ROUTES);
    let later = ROUTES.replace("\"admin\"]", "\"user\"]").replace("access = \"public\"", "");
    let new = gateway(&upstream, &later);
    write_both(&old, |_| policy(&upstream, &later));
    let found = report(old.dir(), &[]);
    let found = &found["difference"];
    let reported = |list: &str, caller: &str, covers: &str| {
        let list = found[list].as_array().unwrap();
        list.iter().any(|change| change["caller"] == caller && change["covers"] == covers)
    };
    for (caller, asked, path, covers) in [
        ("without a token", None, "/open", "/open"),
        ("role user", Some("user"), "/orders/7", "/orders/{id}"),
        ("role admin", Some("admin"), "/orders/7", "/orders/{id}"),
        ("role clerk", Some("clerk"), "/orders/7", "/orders/{id}"),
    ] {
        let passes = |gateway: &Portcullis| {
            let ask = Request::get(path);
            let ask = match asked {
                Some(role) => ask.bearer(token("ada").role(role).sign()),
                None => ask,
            };
            ask.to(gateway.http()).status == 200
        };
        let (before, after) = (passes(&old), passes(&new));
        assert_eq!(reported("gains", caller, covers), !before && after, "{caller} {path}: {found:#}");
        assert_eq!(reported("losses", caller, covers), before && !after, "{caller} {path}: {found:#}");
    }
}

#[test]
fn a_policy_may_keep_no_decisions() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[policy]\ndecisions = 0\n{ROUTES}"));
    Request::get("/open").to(gateway.http()).is(200);
    let answer = Request::get("/decisions").host("127.0.0.1").to(gateway.admin());
    assert!(answer.is(404).text().contains("decisions = 0"), "{answer:#?}");
    write_both(&gateway, str::to_owned);
    let finished = diff(gateway.dir(), &["--live"]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(finished.stderr.contains("cannot fetch decisions: 404"), "{}", finished.text());
}

#[test]
fn a_reload_that_keeps_no_more_decisions_forgets_those_that_were_kept() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    Request::get("/open").to(gateway.http()).is(200);
    assert_eq!(decisions(&gateway).len(), 1);
    let file = gateway.dir().path().join("gateway.toml");
    let keeping = std::fs::read_to_string(file).unwrap();
    let reload = |policy: &str| {
        gateway.dir().write("gateway.toml", policy);
        Request::post("/reload", "").host("127.0.0.1").to(gateway.admin()).is(200);
    };
    reload(&format!("[policy]\ndecisions = 0\n{keeping}"));
    Request::get("/open").to(gateway.http()).is(200);
    Request::get("/decisions").host("127.0.0.1").to(gateway.admin()).is(404);
    reload(&keeping);
    assert_eq!(decisions(&gateway), [] as [Value; 0], "neither from before nor from meanwhile");
    Request::get("/open").to(gateway.http()).is(200);
    assert_eq!(decisions(&gateway).len(), 1);
}

#[test]
fn a_policy_that_does_not_load_is_not_compared() {
    let dir = Dir::new();
    write_policy(&dir, &policy(&Upstream::start(), ROUTES));
    let good = std::fs::read_to_string(dir.path().join("gateway.toml")).unwrap();
    dir.write("old.toml", &good);
    dir.write("new.toml", good.replace("access = \"public\"", "acces = \"public\""));
    let finished = diff(&dir, &[]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(finished.stderr.contains("new.toml") && finished.stderr.contains("acces"), "{}", finished.text());
    dir.write("new.toml", &good);
    let finished = diff(&dir, &["--decisions", "nowhere"]);
    assert_eq!((finished.code, finished.stderr.contains("nowhere")), (Some(1), true), "{}", finished.text());
    let finished = diff(&dir, &["--decisions", "https://127.0.0.1:9900/decisions"]);
    assert_eq!(
        (finished.code, finished.stderr.contains("plain HTTP")),
        (Some(2), true),
        "{}",
        finished.text()
    );
}

#[test]
fn the_running_gateway_explains_a_request_to_operators_and_to_no_page() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let ask = |body: &Value| {
        Request::post("/explain", body.to_string())
            .host("127.0.0.1")
            .header("Content-Type", "application/json")
    };
    let asked = json!({ "request": "GET https://gateway.test/orders/7", "claims": { "sub": "u1", "roles": ["user"] } });
    let reported = ask(&asked).to(gateway.admin()).is(200).json();
    assert_eq!(
        (&reported["route"]["name"], &reported["outcome"]),
        (&json!("orders"), &json!("insufficient_role"))
    );
    let shown = token("ada").role("clerk").sign();
    let reported = ask(&json!({ "request": "GET https://gateway.test/orders/7", "token": shown }));
    assert_eq!(reported.to(gateway.admin()).is(200).json()["outcome"], "passed");

    let text = asked.to_string();
    let plain = Request::post("/explain", &text).host("127.0.0.1");
    for (name, request, status) in [
        ("another site's page", ask(&asked).header("Origin", "https://evil.example"), 403),
        ("a page that was led here", ask(&asked).host("evil.example"), 403),
        ("a form", plain.header("Content-Type", "text/plain"), 415),
        ("a GET", Request::get("/explain").host("127.0.0.1"), 405),
        ("no question", ask(&json!({ "requests": 1 })), 400),
        ("no request", ask(&json!({ "request": "GET /orders" })), 400),
        ("too long", ask(&json!({ "request": "GET https://h/", "token": "t".repeat(65 << 10) })), 413),
    ] {
        assert_eq!(request.to(gateway.admin()).status, status, "{name}");
    }
    for (name, request) in [
        ("another site's page", Request::get("/decisions").host("127.0.0.1").header("Origin", "null")),
        ("a page that was led here", Request::get("/decisions").host("evil.example")),
    ] {
        assert_eq!(request.to(gateway.admin()).status, 403, "{name}");
    }
    let log = gateway.stop();
    assert!(!log.contains(&shown) && !log.contains("tttt"), "{log}");
}
