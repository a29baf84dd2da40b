//! The places that a token may come from: a request has one token in one place, and the upstream gets no trace of it.

use crate::kit::{Request, Upstream, token};
use crate::{gateway, kit::Portcullis};

const ROUTES: &str = "
[[route]]
path     = \"/usual\"
upstream = \"app\"

[[route]]
path     = \"/named\"
upstream = \"app\"
sources  = [{ header = \"X-Api-Token\" }]

[[route]]
path     = \"/query\"
upstream = \"app\"
sources  = [\"header\", { query = \"jwt\" }]

[[route]]
path     = \"/either\"
upstream = \"app\"
sources  = [\"header\", { header = \"X-Api-Token\" }, \"query\"]

[[route]]
path     = \"/optional\"
upstream = \"app\"
access   = \"optional\"
sources  = [{ header = \"X-Api-Token\" }]
";

fn start(upstream: &Upstream) -> Portcullis {
    gateway(upstream, ROUTES)
}

#[test]
fn a_token_is_found_where_its_route_looks_and_nowhere_else() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let good = token("ada").to_string();
    let header = |path: &str| Request::get(path).bearer(&good);
    let named = |path: &str| Request::get(path).header("X-Api-Token", &good);
    let query = |path: &str, name: &str| Request::get(&format!("{path}?a=1&{name}={good}&b=2"));
    for (request, status) in [
        (header("/usual"), 200),
        (named("/usual"), 401),
        (query("/usual", "access_token"), 401),
        (header("/named"), 401),
        (named("/named"), 200),
        (header("/query"), 200),
        (query("/query", "jwt"), 200),
        (query("/query", "access_token"), 401),
        (query("/query", "JWT"), 401),
        (named("/query"), 401),
        (header("/either"), 200),
        (named("/either"), 200),
        (query("/either", "access_token"), 200),
    ] {
        let answer = request.to(gateway.http());
        assert_eq!(answer.status, status, "{request:?}");
        if status == 401 {
            answer.is_refusal(401, "missing_token");
        }
    }
}

#[test]
fn two_tokens_are_refused_wherever_they_stand() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let good = token("ada").to_string();
    for request in [
        Request::get("/either").bearer(&good).header("X-Api-Token", &good),
        Request::get("/either").header("X-Api-Token", &good).header("X-Api-Token", &good),
        Request::get(&format!("/either?access_token={good}")).bearer(&good),
        Request::get(&format!("/either?access_token={good}&access_token={good}")),
        Request::get("/either?access_token=x").header("X-Api-Token", &good),
    ] {
        request.to(gateway.http()).is_refusal(400, "ambiguous_credentials");
    }
    upstream.saw_nothing();
}

#[test]
fn nothing_of_the_token_reaches_the_upstream_and_the_rest_does() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let good = token("ada").to_string();
    Request::get("/named")
        .header("x_api_token", "theirs")
        .header("X-Api-Token", &good)
        .to(gateway.http())
        .is(200);
    for (query, sent) in [
        (format!("?jwt={good}"), "/query"),
        (format!("?a=1&jwt={good}"), "/query?a=1"),
        (format!("?jwt={good}&b=%2F&c"), "/query?b=%2F&c"),
    ] {
        Request::get(&format!("/query{query}")).to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.target, sent);
    }
    for seen in upstream.requests() {
        let told = format!("{seen:?}");
        assert!(!told.contains(&good), "{told}");
        assert!(told.contains("ada"), "{told}");
    }
}

#[test]
fn a_bad_token_in_a_place_of_its_own_is_refused_where_none_is_needed() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    Request::get("/optional").to(gateway.http()).is(200);
    Request::get("/optional").header("X-Api-Token", &token("ada").to_string()).to(gateway.http()).is(200);
    for bad in ["", "x", "Bearer x", "a b", "a,b"] {
        let answer = Request::get("/optional").header("X-Api-Token", bad).to(gateway.http());
        answer.is_refusal(401, "malformed_token");
    }
    Request::get("/optional")
        .header("X-Api-Token", &token("ada").expired().to_string())
        .to(gateway.http())
        .is_refusal(401, "expired_token");
}
