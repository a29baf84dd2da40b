//! Routes whose requests several upstreams share, and paths that a pattern rewrites.

use crate::admin::{metric, metrics};
use crate::gateway;
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, completed, write_policy};
use crate::kit::{ISSUER, Portcullis, Request, Upstream, token};
use crate::reload::reload;
use serde_json::{Value, json};

const ARMS: &str = r#"
  { upstream = "next", headers = { "X-Canary" = "1" } },
  { upstream = "next", roles = ["beta"] },
  { upstream = "next", percent = PERCENT },
"#;

fn split(upstreams: [&Upstream; 2], percent: u16, more: &str) -> String {
    let [app, next] = upstreams;
    let arms = ARMS.replace("PERCENT", &percent.to_string());
    format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"{app}\"]\n[upstream.next]\nservers = [\"{next}\"]\n\
         [[route]]\nname = \"shop\"\npath = \"/{{*rest}}\"\nupstream = \"app\"\nsplit = [{arms}]\n{more}"
    )
}

fn asked<'u>(upstreams: [&'u Upstream; 2], gateway: &Portcullis, request: Request) -> &'u str {
    let before = upstreams.map(|upstream| upstream.requests().len());
    request.to(gateway.http()).is(200);
    let after = upstreams.map(|upstream| upstream.requests().len());
    match [after[0] - before[0], after[1] - before[1]] {
        [1, 0] => "app",
        [0, 1] => "next",
        other => panic!("{other:?}"),
    }
}

#[test]
fn callers_stay_with_their_upstream_and_a_header_or_a_role_selects_it() {
    let (app, next) = (Upstream::start(), Upstream::start());
    let both = [&app, &next];
    let gateway = Portcullis::with(&split(both, 30, "")).start();
    let get = |subject: &str| Request::get("/x").bearer(token(subject));
    let of = |gateway: &Portcullis, subject: &str| asked(both, gateway, get(subject));
    let subjects: Vec<String> = (0..60).map(|number| format!("user-{number}")).collect();
    let first: Vec<&str> = subjects.iter().map(|subject| of(&gateway, subject)).collect();
    let moved = first.iter().filter(|name| **name == "next").count();
    assert!((5..35).contains(&moved), "{moved} of 60");
    let of_app = subjects.iter().zip(&first).find(|(_, name)| **name == "app").expect("most are").0;
    assert_eq!(asked(both, &gateway, get(of_app).header("X-Canary", "1")), "next");
    let twice = get(of_app).header("X-Canary", "1").header("x_canary", "1");
    assert_eq!(asked(both, &gateway, twice), "app", "an ambiguous field selects nothing");
    let beta = Request::get("/x").bearer(token(of_app).role("beta"));
    assert_eq!(asked(both, &gateway, beta), "next");
    assert_eq!(next.last_request().header("x-auth-subject"), Some(&**of_app));
    let counted = metrics(&gateway);
    let count = |name: &str| {
        let label = format!("upstream=\"{name}\"");
        metric(&counted, "portcullis_upstream_split_requests_total", &[&label]) as usize
    };
    assert_eq!([count("app"), count("next")], [61 - moved, moved + 2]);
    // A larger share moves callers to the new upstream only, on this gateway and on others.
    gateway.dir().replace("gateway.toml", completed(&split(both, 60, "")));
    reload(&gateway).is(200);
    let other = Portcullis::with(&split(both, 60, "")).start();
    for (subject, before) in subjects.iter().zip(first).step_by(3) {
        let after = of(&gateway, subject);
        assert_eq!(after, of(&other, subject), "{subject}");
        assert!(after == before || after == "next", "{subject}: {before} {after}");
    }
}

#[test]
fn requests_can_be_drawn_one_by_one() {
    let (app, next) = (Upstream::start(), Upstream::start());
    let gateway = Portcullis::with(&split([&app, &next], 50, "split_by = \"request\"\n")).start();
    for _ in 0..40 {
        Request::get("/x").bearer(token("ada")).to(gateway.http()).is(200);
    }
    assert!(app.requests().len() > 5 && next.requests().len() > 5, "{}", app.requests().len());
}

#[test]
fn explain_tests_and_routes_know_the_split() {
    let (app, next) = (Upstream::start(), Upstream::start());
    let test = |claims: &str, upstream: &str| {
        format!(
            "[[test]]\nname = \"to {upstream}\"\nrequest = \"GET https://a.test/x\"\n\
             claims = {claims}\nexpect = {{ upstream = \"{upstream}\" }}\n"
        )
    };
    let tests = test("{ sub = \"ada\", roles = [\"beta\"] }", "next") + &test("{ sub = \"ada\" }", "app");
    let dir = Dir::new();
    write_policy(&dir, &split([&app, &next], 0, &tests));
    let checked = command(&dir, &["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    let shares = "app (100 %), next (x-canary: 1), next (role beta), next (0 %)";
    let claims = "{\"sub\":\"ada\",\"roles\":[\"beta\"]}";
    let arguments = ["--format", "json", "explain", "GET", "https://a.test/x", "--claims", claims];
    let printed = command(&dir, &arguments);
    let explained: Value =
        serde_json::from_str(&printed.stdout).unwrap_or_else(|_| panic!("{}", printed.text()));
    assert_eq!(explained["outgoing"]["upstream"], json!("next"), "{explained:#}");
    assert_eq!(explained["outgoing"]["split"], json!(shares), "{explained:#}");
    let listed = command(&dir, &["routes"]);
    assert!(listed.stdout.contains(shares), "{}", listed.text());
    let wrong = test("{ sub = \"bob\", roles = [\"beta\"] }", "app");
    write_policy(&dir, &split([&app, &next], 0, &wrong));
    let checked = command(&dir, &["check"]);
    assert_eq!(checked.code, Some(1), "{}", checked.text());
    assert!(checked.stdout.contains("upstream:\n    - \"app\"\n    + \"next\"\n"), "{}", checked.text());
}

#[test]
fn a_pattern_rewrites_the_path_and_an_invalid_result_is_refused() {
    let upstream = Upstream::start();
    let route = "[[route]]\npath = \"/shop/{*rest}\"\nupstream = \"app\"\naccess = \"public\"\n\
        rewrite_pattern = '/shop/(?<id>\\d+)/([^/]*)/?(.*)'\nrewrite_to = \"/v2/{2}/{id}/{3}\"\n";
    let gateway = gateway(&upstream, route);
    for (sent, forwarded) in [
        ("/shop/7/parts/a%20b?x=1", "/v2/parts/7/a%20b?x=1"),
        ("/shop/7/parts", "/v2/parts/7/"),
        ("/shop/all?x=1", "/shop/all?x=1"),
        ("/sho%70/7/y/%7e", "/v2/y/7/~"),
    ] {
        Request::get(sent).to(gateway.http()).is(200);
        assert_eq!(upstream.last_request().target, forwarded, "{sent}");
    }
    let count = upstream.requests().len();
    for sent in ["/shop/7/", "/shop/7/..%2f..%2fadmin/x", "/shop/7/x/../../../admin", "/shop/7/%2e%2e/x/.."] {
        let answer = Request::get(sent).to(gateway.http());
        assert!(answer.status == 400 || answer.status == 404, "{sent}: {answer:#?}");
    }
    assert_eq!(upstream.requests().len(), count);
    gateway.wait_log("the reason", |line| {
        line["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("rewrite_pattern turns the path into an invalid"))
    });
}
